"""An endpoint that another Pulumi program declares: whose it is, and what the stack's state says of it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infra.identity import Identity
from smoke_tests.errors import TargetError
from smoke_tests.pulumi_command import json_in, run_pulumi

OUR_PROJECT = "vllm-endpoint"
"""The project of the stack-file program, in Pulumi.yaml."""
OUR_COMPONENT = "endpoint"
"""The component of the stack-file program."""
ON_KUBERNETES = "vllm-endpoint:index:VllmEndpointOnKubernetes"
TYPES = ("vllm-endpoint:index:VllmEndpoint", ON_KUBERNETES)
_PROJECT_FILES = ("Pulumi.yaml", "Pulumi.yml", "Pulumi.json")
# How a state marks an encrypted value, and a value that is not known yet.
_SECRET = "4dabf18193072939515e22adb298388d"  # noqa: S105 - a marker, not a secret
_UNKNOWN = "04da6b54-80e4-46f7-96ec-b56ff0331ba9"


@dataclass(frozen=True)
class Component:
    """An endpoint in a stack's state.

    Attributes:
        identity: whose endpoint it is.
        type: one of TYPES.
        urn: Pulumi's name of it, unique in the stack.
        outputs: the component's outputs, as the state holds them.
    """

    identity: Identity
    type: str
    urn: str
    outputs: Mapping[str, Any]

    @property
    def name(self) -> str:
        """The component's name in the program."""
        return self.urn.rpartition("::")[2]


def project_here(folder: Path | None = None) -> str:
    """The project of the Pulumi program that a folder, by default the current one, belongs to; empty if to none."""
    folder = folder or Path.cwd()
    for parent in (folder, *folder.parents):
        for file in (parent / name for name in _PROJECT_FILES):
            if file.is_file():
                told = re.search(
                    r"^\s*\"?name\"?\s*:\s*[\"']?([^\"'\s,#]+)", file.read_text(errors="replace"), re.MULTILINE
                )
                return told[1] if told else ""
    return ""


def stack_name_problem(stack: str) -> str:
    """Why this is no stack's name; empty if it is one. Of an empty name, Pulumi would take the stack that is selected."""
    parts = stack.split("/")
    if parts[-1].strip() and len(parts) <= 3:
        return ""
    return f"found {stack!r}; set STACK, or ORG/PROJECT/STACK for another program's"


def project_and_stack(stack: str) -> tuple[str, str]:
    """The names of project and stack in STACK, ORG/STACK or ORG/PROJECT/STACK; without a project: the current folder's.

    Raises:
        TargetError: it is no stack's name.
    """
    if problem := stack_name_problem(stack):
        raise TargetError(f"--stack: {problem}")
    parts = stack.split("/")
    return (parts[1] if len(parts) == 3 else "") or project_here(), parts[-1]


def is_of_stack_file(stack: str, endpoint_name: str = "") -> bool:
    """Whether a stack is meant that this repository's program deployed, and not another program's.

    A project in the stack's name decides, else the current folder's. Outside of every Pulumi project it is this repository's.

    Raises:
        TargetError: `stack` is no stack's name.
    """
    project, _ = project_and_stack(stack)
    return not endpoint_name and project in ("", OUR_PROJECT)


def identity_by_name(stack: str, endpoint_name: str = "") -> Identity | None:
    """Whose endpoint it is, as far as names tell: None for one of another program whose name is not given.

    Raises:
        TargetError: `stack` is no stack's name, or nothing names the project.
    """
    project, own = project_and_stack(stack)
    if is_of_stack_file(stack, endpoint_name) or (project, endpoint_name) == (OUR_PROJECT, OUR_COMPONENT):
        return Identity(own)
    if not endpoint_name:
        return None
    if not project:
        raise TargetError(f"which project is stack {stack} of? Give --stack ORG/PROJECT/STACK")
    return Identity(own, project, endpoint_name)


def find_component(stack: str, endpoint_name: str = "") -> Component:
    """The endpoint of that name, or the only one, in the state of a stack. No secret is decrypted.

    Raises:
        TargetError: Pulumi does not know the stack, or it has no such endpoint, or several.
    """
    found = components(stack)
    listed = ", ".join(sorted({component.name for component in found}))
    if not found:
        raise TargetError(f"stack {stack} has no endpoint: neither VllmEndpoint nor VllmEndpointOnKubernetes is in it")
    if not endpoint_name:
        if len(found) > 1:
            raise TargetError(f"stack {stack} has {len(found)} endpoints; give --endpoint-name, one of: {listed}")
        return found[0]
    named = [component for component in found if endpoint_name in (component.name, component.urn)]
    if not named:
        raise TargetError(
            f"stack {stack} has no endpoint named {endpoint_name}; give --endpoint-name, one of: {listed}"
        )
    if len(named) > 1:
        urns = ", ".join(component.urn for component in named)
        raise TargetError(
            f"stack {stack} has {len(named)} endpoints named {endpoint_name}; give the urn, one of: {urns}"
        )
    return named[0]


def components(stack: str) -> list[Component]:
    """The endpoints in the state of a stack.

    Raises:
        TargetError: Pulumi does not know the stack, or it is not deployed.
    """
    project_and_stack(stack)
    told = run_pulumi(["stack", "export", "--non-interactive", "--stack", stack], Path.cwd())
    try:
        deployment = json_in(told).get("deployment") or {}
    except (ValueError, AttributeError):
        raise TargetError(f"pulumi stack export --stack {stack} printed no JSON") from None
    resources = deployment.get("resources") or []
    if not resources:
        raise TargetError(f"stack {stack} is not deployed; run pulumi up first")
    # A resource that is marked for deletion was replaced, and is deleted by the next `pulumi up`.
    rows = [row for row in resources if row.get("type") in TYPES and not row.get("delete")]
    return [Component(_identity(row["urn"]), row["type"], row["urn"], row.get("outputs") or {}) for row in rows]


def details_of(component: Component, stack: str) -> dict[str, Any]:
    """What programs read of an endpoint: the component's output `details`, without values that are secret.

    Raises:
        TargetError: the state does not contain it.
    """
    which, details = f"endpoint {component.name} of stack {stack}", component.outputs.get("details")
    if not component.outputs or details == _UNKNOWN:
        raise TargetError(f"{which} is not completely deployed; run pulumi up again")
    if details is None:
        raise TargetError(
            f"{which} has no output `details`: an earlier version of the component deployed it; run pulumi up with this one"
        )
    if not isinstance(details, Mapping) or _SECRET in details:
        raise TargetError(
            f"the output `details` of {which} is encrypted, because the program passes a secret where the component expects "
            "none; pass it as a plain value, or use --endpoint URL and --api-key-file"
        )
    return {name: value for name, value in details.items() if not _hidden(value)}


def _hidden(value: Any) -> bool:
    return value == _UNKNOWN or (isinstance(value, Mapping) and _SECRET in value)


def _identity(urn: str) -> Identity:
    stack, project, *_ = urn.removeprefix("urn:pulumi:").split("::")
    name = urn.rpartition("::")[2]
    return Identity(stack) if (project, name) == (OUR_PROJECT, OUR_COMPONENT) else Identity(stack, project, name)
