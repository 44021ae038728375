"""Which endpoint is swept: the stack's own, or one that another program declares."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from smoke_tests.components import (
    ON_KUBERNETES,
    OUR_PROJECT,
    Component,
    components,
    find_component,
    identity_by_name,
    is_of_stack_file,
    project_and_stack,
)
from smoke_tests.errors import TargetError
from smoke_tests.stack import own_name
from smoke_tests.teardown.identity import Identity


@dataclass(frozen=True)
class Chosen:
    """An endpoint to look for.

    Attributes:
        identity: its names and tags.
        stack: the stack's own name, as in the name of its stack file.
        root: the folder of that stack file.
        region: as in Pulumi's state; empty if the state does not contain it.
        profile: the AWS profile it was deployed with, if the state says so.
    """

    identity: Identity
    stack: str
    root: Path
    region: str = ""
    profile: str = ""


def choose(stack: str, endpoint_name: str, project: str, root: Path, *, say: Callable[[str], None]) -> Chosen:
    """The endpoint that the command line names.

    The region of another program's endpoint is read from Pulumi's state. An endpoint that is no longer in the state can
    still be found by its name, which is the purpose of a teardown check.

    Args:
        stack: as given.
        endpoint_name: the component's name; empty: the only one of the stack.
        project: the value of the tag Project.
        root: the folder of this repository's program.
        say: receives notes to print before the sweep.

    Raises:
        TargetError: nothing names one endpoint, or it is on Kubernetes.
    """
    component: Component | None
    own, identity = own_name(stack), identity_by_name(stack, endpoint_name)
    if identity and is_of_stack_file(stack, endpoint_name):
        return Chosen(Identity.of(identity, project), own, root)
    if identity is None:
        component = find_component(stack)
        identity = component.identity
    else:
        component = _deployed(stack, endpoint_name, say)
    if component and component.type == ON_KUBERNETES:
        raise TargetError(
            f"endpoint {component.name} of stack {stack} runs on Kubernetes; kubectl get namespaces lists what is left of it"
        )
    details = component.outputs.get("details") if component else None
    known = details if isinstance(details, dict) else {}
    region, profile = (known.get(name) for name in ("region", "profile"))
    return Chosen(Identity.of(identity, project), own, Path.cwd(), _text(region), _text(profile))


def _deployed(stack: str, endpoint_name: str, say: Callable[[str], None]) -> Component | None:
    """The endpoint of that name in the state. If the state does not contain it, print a note and return None."""
    try:
        found = [one for one in components(stack) if endpoint_name in (one.name, one.urn)]
        told = f"stack {stack} has no endpoint named {endpoint_name} now"
    except TargetError as error:
        # In this repository's own folder, a short name says nothing about the other program's project.
        if stack.count("/") < 2 and project_and_stack(stack)[0] == OUR_PROJECT:
            raise TargetError(f"{error}; another program's stack is ORG/PROJECT/STACK") from None
        found, told = [], str(error)
    if not found:
        say(f"note: {told}; searching AWS for its remaining resources")
    return found[0] if found else None


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
