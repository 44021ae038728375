"""Reads a deployed stack from Pulumi and Secrets Manager."""

import os
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from infra.identity import Identity
from smoke_tests.components import details_of, find_component, is_of_stack_file
from smoke_tests.errors import TargetError
from smoke_tests.pulumi_command import json_in, run_pulumi

PROJECT_FOLDER = Path(__file__).resolve().parent.parent
SIGN_IN = "sign in to AWS (AWS_PROFILE, aws sso login)"
DETAILS = "stackDetails"
"""The nested output for programs; see infra/outputs.py."""


def own_name(stack: str) -> str:
    """The stack's name without organization and project, as in tags and file names."""
    return stack.rpartition("/")[2]


@dataclass(frozen=True)
class StackOutputs:
    """What the tests need of an endpoint's outputs, all of them in `outputs`.

    Attributes:
        identity: whose endpoint it is, which its names and tags in AWS are derived from.
        keys_document: the secret; None where it was not read.
    """

    identity: Identity
    endpoint: str
    model: str
    region: str | None
    gpu: str | None
    gpu_count: int | None
    instance_type: str | None
    usd_per_hour_active: float | None
    keys_document: str | None = None
    outputs: Mapping[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"StackOutputs(endpoint={self.endpoint!r}, model={self.model!r})"


def read_stack(
    stack: str, endpoint_name: str = "", *, read_key: bool = True, project_folder: Path = PROJECT_FOLDER
) -> StackOutputs:
    """Return the outputs of an endpoint, with the keys document from Secrets Manager.

    Secret values are not read from Pulumi: the key is read with the caller's own AWS credentials, so the tests require
    permission to read the secret.

    Args:
        stack: a stack of this repository's program, or of another program that declares endpoints (ORG/PROJECT/STACK).
        endpoint_name: the component's name, if the program is another one and declares several.
        read_key: whether the key is needed.
        project_folder: where this repository's program is.

    Raises:
        TargetError: with one line.
    """
    if is_of_stack_file(stack, endpoint_name):
        identity, which = Identity(own_name(stack)), f"stack {stack!r}"
        outputs = _pulumi_outputs(stack, project_folder)
    else:
        component = find_component(stack, endpoint_name)
        identity, which = component.identity, f"endpoint {component.name} of stack {stack}"
        outputs = flat(details_of(component, stack))
    endpoint = outputs.get("endpoint")
    if not isinstance(endpoint, str) or not endpoint:
        how = "run pulumi up again" if identity.endpoint else f"deploy it first: make up STACK={stack}"
        raise TargetError(f"{which} has no output `endpoint`; {how}")
    region = _text(outputs, "region")
    secret = _text(outputs, "apiKeySecretArn")
    if read_key and not secret and outputs.get("apiKeySecretName"):
        raise TargetError(
            f"the API key of {which} is in the cluster; save it with: {_text(outputs, 'showApiKeys')} > api-keys.json, "
            "and give --api-key-file api-keys.json"
        )
    return StackOutputs(
        identity=identity,
        endpoint=endpoint,
        model=_text(outputs, "model") or "",
        region=region,
        gpu=_text(outputs, "gpu"),
        gpu_count=int(outputs["gpuCount"]) if outputs.get("gpuCount") else None,
        instance_type=_text(outputs, "instanceType"),
        usd_per_hour_active=float(outputs["usdPerHourActive"]) if outputs.get("usdPerHourActive") else None,
        keys_document=_secret_text(secret, outputs) if secret and read_key else None,
        outputs=outputs,
    )


def _text(outputs: Mapping[str, Any], name: str) -> str | None:
    value = outputs.get(name)
    return str(value) if value else None


def read_config(stack: str, project_folder: Path = PROJECT_FOLDER) -> dict[str, Any]:
    """Return the stack's settings from Pulumi, name: value; a secret's value is "[secret]". Raises TargetError."""
    config = json_in(run_pulumi(["config", "--json", "--non-interactive", "--stack", stack], project_folder))
    found = {}
    for name, entry in sorted(config.items()):
        secret = not isinstance(entry, dict) or entry.get("secret")
        found[name] = "[secret]" if secret else entry.get("objectValue", entry.get("value"))
    return found


def _pulumi_outputs(stack: str, project_folder: Path) -> dict[str, Any]:
    told = run_pulumi(["stack", "output", "--json", "--non-interactive", "--stack", stack], project_folder)
    try:
        outputs = json_in(told)
    except ValueError:
        raise TargetError(f"pulumi stack output --stack {stack} printed no JSON") from None
    if not isinstance(outputs, dict) or not outputs:
        raise TargetError(f"stack {stack!r} has no outputs; deploy it first: make up STACK={stack}")
    return flat(outputs)


def flat(outputs: Mapping[str, Any]) -> dict[str, Any]:
    """Outputs for programs: the top-level ones merged with the nested output."""
    details = outputs.get(DETAILS)
    found = {name: value for name, value in outputs.items() if name != DETAILS}
    found |= details if isinstance(details, Mapping) else {}
    if isinstance(arguments := found.get("engineArguments"), str):
        found["engineArguments"] = shlex.split(arguments)
    return found


def aws_client(service: str, outputs: Mapping[str, Any]) -> Any:
    """A client for the stack's region, with the profile it is deployed with unless AWS_PROFILE names another.

    Raises botocore's errors: the profile does not exist on this machine.
    """
    # Imported here: boto3 takes half a second to load, and `--endpoint` does not need it.
    import boto3
    from botocore.config import Config

    profile = None if os.environ.get("AWS_PROFILE") else _text(outputs, "profile")
    session = boto3.Session(profile_name=profile, region_name=_text(outputs, "region"))
    config = Config(connect_timeout=3, read_timeout=5, retries={"max_attempts": 2})
    return session.client(service, config=config)  # type: ignore[call-overload]


def _secret_text(arn: str, outputs: Mapping[str, Any]) -> str:
    from botocore.exceptions import BotoCoreError, ClientError

    hint = f"{SIGN_IN}, or give --api-key-file"
    try:
        secret = aws_client("secretsmanager", outputs).get_secret_value(SecretId=arn)
    except ClientError as error:
        detail = error.response.get("Error", {})
        raise TargetError(
            f"cannot read the API key {arn}: {detail.get('Code')}: {detail.get('Message')}; {hint}"
        ) from None
    except BotoCoreError as error:
        raise TargetError(f"cannot read the API key {arn}: {error}; {hint}") from None
    if "SecretString" not in secret:
        raise TargetError(f"the API key {arn} is binary; store a JSON object {{name: key}}")
    return str(secret["SecretString"])
