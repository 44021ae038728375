"""Reads a deployed stack from Pulumi and Secrets Manager."""

import json
import os
import re
import shlex
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from smoke_tests.errors import TargetError

PROJECT_FOLDER = Path(__file__).resolve().parent.parent
PULUMI_TIMEOUT_SECONDS = 120
SIGN_IN = "sign in to AWS (AWS_PROFILE, aws sso login)"
DETAILS = "stackDetails"
"""The nested output for programs; see infra/outputs.py."""


def own_name(stack: str) -> str:
    """The stack's name without organization and project, as in tags and file names."""
    return stack.rpartition("/")[2]


@dataclass(frozen=True)
class StackOutputs:
    """What the tests need of a stack's outputs, all of them in `outputs`; `keys_document`: the secret, None where not read."""

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


def read_stack(stack: str, *, read_key: bool = True, project_folder: Path = PROJECT_FOLDER) -> StackOutputs:
    """Return the outputs of `stack`, with the keys document from Secrets Manager.

    Secret values are not read from Pulumi: the key is read with the caller's own AWS credentials, so the tests require
    permission to read the secret. Raises TargetError.
    """
    outputs = _pulumi_outputs(stack, project_folder)
    endpoint = outputs.get("endpoint")
    if not isinstance(endpoint, str) or not endpoint:
        raise TargetError(f"stack {stack!r} has no output `endpoint`; deploy it first: make up STACK={stack}")
    region = _text(outputs, "region")
    secret = _text(outputs, "apiKeySecretArn")
    if read_key and not secret and outputs.get("apiKeySecretName"):
        raise TargetError(
            f"the API key of stack {stack!r} is in the cluster; save it with: {_text(outputs, 'showApiKeys')} > api-keys.json, "
            "and give --api-key-file api-keys.json"
        )
    return StackOutputs(
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
    config = json.loads(_pulumi(["config", "--json", "--non-interactive", "--stack", stack], project_folder) or "{}")
    found = {}
    for name, entry in sorted(config.items()):
        secret = not isinstance(entry, dict) or entry.get("secret")
        found[name] = "[secret]" if secret else entry.get("objectValue", entry.get("value"))
    return found


def _pulumi_outputs(stack: str, project_folder: Path) -> dict[str, Any]:
    told = _pulumi(["stack", "output", "--json", "--non-interactive", "--stack", stack], project_folder)
    try:
        outputs = json.loads(told or "{}")
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


def _pulumi(arguments: list[str], project_folder: Path) -> str:
    command = ["pulumi", *arguments]
    what = " ".join(word for word in command if word not in ("--json", "--non-interactive"))
    try:
        done = subprocess.run(
            command, cwd=project_folder, capture_output=True, text=True, timeout=PULUMI_TIMEOUT_SECONDS, check=False
        )
    except FileNotFoundError:
        raise TargetError(
            "--stack needs the pulumi command, which is not on the PATH; install it or use --endpoint URL "
            "(for make local: make chat, make key LOCAL=1, make history NAME=local-dev)"
        ) from None
    except subprocess.TimeoutExpired:
        raise TargetError(f"{what} did not finish within {PULUMI_TIMEOUT_SECONDS} s; is `pulumi login` done?") from None
    if done.returncode != 0:
        reason = next(
            (line.strip() for line in done.stderr.splitlines() if line.strip()), f"exit code {done.returncode}"
        )
        raise TargetError(_explained(what, reason.removeprefix("error: ")))
    return done.stdout


def _explained(what: str, reason: str) -> str:
    """Pulumi's error in one line, with a remedy if one is known."""
    if re.match(r"no stack named .* found", reason):
        return f"{reason}; pulumi stack ls lists the stacks, and pulumi stack init makes one"
    return f"{what} failed: {reason}"


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
