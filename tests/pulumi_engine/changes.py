"""What a change of one setting does to a deployed stack: the engine's steps, and what users of the endpoint notice."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tests.pulumi_engine.alternatives import alternative
from tests.pulumi_engine.scene import Ran, Step

MOST_NAMED = 12  # of a stack's steps of one kind, until only their number is told

# What a replacement loses: these are replaced or deleted only where JUSTIFIED says why.
PRECIOUS = {
    "aws:lb/loadBalancer:LoadBalancer": "load balancer",
    "aws:efs/fileSystem:FileSystem": "file system",
    "aws:efs/accessPoint:AccessPoint": "access point",
    "aws:secretsmanager/secret:Secret": "secret",
    "aws:ecs/service:Service": "service",
}
REPLACED = ("replace", "delete")


@dataclass(frozen=True)
class Change:
    """One setting changed on one stack.

    Attributes:
        key: the setting.
        stack: one of STACKS.
        there: the steps of the change.
        back: the steps of its reversal.
        refused: why it was refused instead, in one line.
    """

    key: str
    stack: str
    there: Sequence[Step] = ()
    back: Sequence[Step] = ()
    refused: str = ""

    @property
    def lost(self) -> set[str]:
        """What is precious and does not survive the change or its reversal."""
        steps = [*self.there, *self.back]
        return {PRECIOUS[step.type] for step in steps if step.type in PRECIOUS and step.op in REPLACED}

    def row(self) -> Row:
        """What the document says of it."""
        found = alternative(self.key, self.stack)
        assert found
        if self.refused:
            return Row(value_of(found.value), f"Refused: {self.refused}", "")
        notice = noticed(self.there)
        if (back := noticed(self.back)) != notice:
            notice += f" Back: {back}"
        return Row(value_of(found.value), notice, told(self.there))


@dataclass(frozen=True)
class Row:
    """One change as the document shows it: the new value, what users of the endpoint notice, the engine's steps."""

    value: str
    notice: str
    steps: str


def value_of(value: object) -> str:
    """A setting's value as the document shows it."""
    if isinstance(value, bool):
        return str(value).lower()
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return text if len(text) <= 60 else text[:57] + "..."


def told(steps: Iterable[Step]) -> str:
    """The steps by kind, resources by name, in the order of the alphabet: the engine's own order differs each time."""
    found = []
    for op in ("create", "update", "replace", "delete"):
        mine = sorted({label(step) for step in steps if step.op == op})
        if len(mine) > MOST_NAMED:
            found.append(f"{op} {len(mine)} resources")
        elif mine:
            found.append(f"{op} {', '.join(mine)}")
    return "; ".join(found)


def label(step: Step) -> str:
    """A resource's type and its name in the stack, such as `Service gateway`."""
    kind = step.type.rsplit(":", 1)[-1]
    return f"{kind} {re.sub(r'^vllm-dev-', '', step.name)}"


def noticed(steps: Sequence[Step]) -> str:
    """What those who use the endpoint notice, the worst first, derived from the steps alone."""
    found: list[str] = []

    def touched(kind: str, name: str = "", ops: tuple[str, ...] = ("replace", "delete", "update", "create")) -> bool:
        return any(
            step.type.endswith(f":{kind}") and name in step.name and step.op in ops
            for step in steps
        )  # fmt: skip

    def changed(kind: str, field: str) -> bool:
        return any(step.type.endswith(f":{kind}") and field in step.changed for step in steps)

    if touched("LoadBalancer", ops=REPLACED) or changed("Listener", "port") or _listeners_moved(steps):
        found.append("The endpoint's address changes.")
    elif touched("Record", "-domain"):
        found.append("The endpoint's name changes.")
    if touched("FileSystem", ops=REPLACED):
        found.append("The weights are downloaded again.")
    if touched("Service", "-engine", REPLACED):
        found.append("The engine's service is replaced: a cold start.")
    elif touched("TaskDefinition", "-engine"):
        found.append("Running replicas restart: a cold start, requests are held meanwhile.")
    if touched("Service", "-gateway", REPLACED):
        found.append("The gateway's service is replaced: the endpoint is away until the new one is ready.")
    elif touched("TaskDefinition", "-gateway"):
        found.append("Gateways roll over without loss.")
    elif touched("Service", "-gateway", ("update",)):
        found.append("Gateways are added or stopped; requests in flight finish.")
    if touched("LaunchTemplate") and not touched("TaskDefinition", "-engine"):
        found.append("Instances started from now on differ; running ones stay.")
    if touched("SecretVersion", "-api-keys"):
        found.append("API keys change; gateways read them again without a restart.")
    return " ".join(found) or ("Nothing." if steps else "Nothing; no resource changes.")


def _listeners_moved(steps: Sequence[Step]) -> bool:
    """Whether the endpoint's own listener is made or deleted (the redirect's is not its address)."""
    return any(
        step.type.endswith(":Listener") and not step.name.endswith("-redirect") and step.op in (*REPLACED, "create")
        for step in steps
    )


def stale_revisions(steps: Sequence[Step]) -> list[str]:
    """Task definitions with a new revision that what runs them does not get in the same update."""
    users = {
        step.name
        for step in steps
        if (step.type.endswith((":Service", ":Schedule")) and step.op in ("create", "update", "replace"))
    }
    return [
        step.name for step in steps if step.type.endswith(":TaskDefinition") and step.op == "replace" and step.name not in users
    ]  # fmt: skip


def refusal(ran: Ran) -> str:
    """The first line of what was said, or what AWS said of the first resource."""
    lines = [line for text in ran.diagnostics for line in text.splitlines() if line.startswith(("error", "info#err"))]
    return re.sub(r"\s+", " ", lines[0].partition(": ")[2]) if lines else ran.output[-200:]
