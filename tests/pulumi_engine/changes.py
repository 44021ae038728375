"""What a change of one setting does to a deployed stack: the engine's steps, and what users of the endpoint notice."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from infra.changes.effects import DEPLOYS
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
    """The effects on users of the endpoint, worst first, derived only from the steps."""
    found: list[str] = []
    everything = steps
    steps = [step for step in steps if not (step.op == "update" and set(step.changed) <= {"tags", "tagsAll"})]

    def touched(kind: str, name: str = "", ops: tuple[str, ...] = ("replace", "delete", "update", "create")) -> bool:
        return any(f":{step.type}".endswith(f":{kind}") and name in step.name and step.op in ops for step in steps)

    def changed(kind: str, field: str, name: str = "") -> bool:
        return any(
            f":{step.type}".endswith(f":{kind}") and name in step.name and field in step.changed for step in steps
        )

    if touched("SecurityGroup", ops=REPLACED):
        found.append("The endpoint moves to another network and is unavailable until the deploy ends.")
    elif touched("LoadBalancer", ops=REPLACED) or _listeners_moved(steps):
        found.append("The endpoint's address changes.")
    elif touched("Record", "-domain", ("delete", "create")) or changed("Record", "name", "-domain"):
        found.append("The endpoint's name changes.")
    elif touched("Record", "-domain", ("replace",)):
        found.append("The endpoint's DNS record moves to another hosted zone; its name stays.")
    elif touched("SecurityGroupIngressRule", "-sg-clients-", (*REPLACED, "create")):
        found.append("Clients outside the new networks are cut off.")
    if touched("FileSystem", ops=("replace", "create")):
        found.append("The weights are downloaded again.")
    elif touched("FileSystem", ops=("delete",)):
        found.append("The weights are read from another file system; those that it lacks are downloaded.")
    if touched("ecs/service:Service", "-engine", REPLACED):
        found.append("The engine's service is replaced (cold start).")
    elif any(changed("ecs/service:Service", field, "-engine") for field in DEPLOYS):
        found.append("Running replicas restart (cold start); requests are held meanwhile.")
    if touched("ecs/service:Service", "-gateway", REPLACED):
        found.append("The gateway's service is replaced; the endpoint is unavailable until the new one is ready.")
    elif touched("TaskDefinition", "-gateway", ("replace",)):
        found.append("Gateways are replaced without losing requests.")
    elif _only_counted(steps):
        found.append("Gateways are added or stopped; running requests finish.")
    elif touched("ecs/service:Service", "-gateway", ("update",)):
        found.append("Gateways are replaced without losing requests.")
    if touched("Schedule", "-fetch", ("replace",)):
        found.append("The weights are checked, and downloaded if missing.")
    if (touched("LaunchTemplate") or changed("Group", "mixedInstancesPolicy")) and not touched(
        "TaskDefinition", "-engine", ("replace",)
    ):
        found.append("New instances differ; running ones stay.")
    if changed("Target", "minCapacity") or changed("Target", "maxCapacity"):
        found.append("Replicas are started or stopped where the new bounds require it.")
    if touched("SecretVersion", "-api-keys", (*REPLACED, "create")):
        found.append("The API keys change, without a restart; the old ones are rejected.")
    if touched("WebAcl", ops=("create",)):
        found.append("Clients above the limit of requests are blocked.")
    if touched("Schedule", "-ttl-service", ("create",)):
        found.append("Nothing until the time to live ends; then AWS scales the stack to zero.")
    if touched("Schedule", "-budget", ("create",)):
        found.append("Nothing until the month's budget is spent; then AWS scales the stack to zero.")
    return " ".join(found) or ("Nothing." if everything else "Nothing; no resource changes.")


def _listeners_moved(steps: Sequence[Step]) -> bool:
    """Whether the endpoint's own listener is made, deleted or moved (that of the redirect is not its address)."""
    return any(
        step.type.endswith(":Listener")
        and not any(action["type"] == "redirect" for action in step.inputs["defaultActions"])
        and (step.op in (*REPLACED, "create") or "port" in step.changed)
        for step in steps
    )


def _only_counted(steps: Sequence[Step]) -> bool:
    """Whether the gateway's service gets another number of tasks and nothing else."""
    return any(
        step.type == "aws:ecs/service:Service" and step.name.endswith("-gateway") and step.changed == ("desiredCount",)
        for step in steps
    )


def stale_revisions(steps: Sequence[Step]) -> list[str]:
    """Task definitions with a new revision that what runs them does not get in the same update."""
    users = {
        step.name
        for step in steps
        if (step.type == "aws:ecs/service:Service" and (step.op != "update" or "taskDefinition" in step.changed))
        or (step.type == "aws:scheduler/schedule:Schedule" and step.op == "replace")
    }
    revised = [step.name for step in steps if step.type.endswith(":TaskDefinition") and step.op == "replace"]
    return [name for name in revised if name not in users]


def refusal(ran: Ran) -> str:
    """The first line of what was said, or what AWS said of the first resource."""
    lines = [line for text in ran.diagnostics for line in text.splitlines() if line.startswith(("error", "info#err"))]
    return re.sub(r"\s+", " ", lines[0].partition(": ")[2]) if lines else ran.output[-200:]
