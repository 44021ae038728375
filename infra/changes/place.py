"""Rejects moving a deployed stack to another target, account, region or VPC, which would delete its endpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pulumi
from pulumi.runtime.sync_await import _sync_await

from infra.errors import DeployError

# Why each cannot change, in the order of the messages.
REASONS = {
    "target": "every resource would be deleted and recreated elsewhere",
    "account": "the state's resources are in the other account, which these credentials cannot access",
    "aws:region": "every resource would be deleted and recreated in the other region",
    "vpcId": "AWS can move neither a load balancer nor a file system's mount targets to another VPC",
}
UNSET = "none (the stack's own)"


def hold_place(
    name: str, component: pulumi.Resource, place: Mapping[str, str], former: Sequence[pulumi.Input[str]] = ()
) -> None:
    """Reject a place that differs from the first deploy's, which is recorded in the state. Call it before declaring resources.

    Args:
        name: name of the record in the state.
        component: the endpoint's component.
        place: the place by keys of ``REASONS``; keys that the first deploy did not record are not checked.
        former: URNs of components that an earlier deploy of this endpoint can have recorded its place under.

    Raises:
        DeployError: the stack was deployed elsewhere; nothing has been changed yet.
    """
    # The output of a stash stays at its first value, whatever its later inputs are.
    record = pulumi.Stash(
        name,
        input=dict(place),
        opts=pulumi.ResourceOptions(
            parent=component, ignore_changes=["input"], aliases=[pulumi.Alias(parent=urn) for urn in former]
        ),
    )

    async def first() -> Mapping[str, str]:
        return await record.output.future() or place

    if problems := moved(_sync_await(first()), place):
        raise DeployError("\n".join(problems))


def moved(before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    """Why a stack cannot move from one place to another: one line per key that differs."""
    target = before.get("target"), after.get("target")
    keys = ["target"] if target[0] != target[1] else list(REASONS)  # the other keys depend on the target
    return [
        _refusal(key, before[key], after[key])
        for key in keys
        if key in before and key in after and before[key] != after[key]
    ]


def _refusal(key: str, before: str, after: str) -> str:
    back = "use that account's credentials" if key == "account" else f"set {key} back to {before or UNSET}"
    return (
        f"{key}: this stack was deployed with {before or UNSET}, found {after or UNSET}; {REASONS[key]}. "
        f"Deploy a second stack (pulumi stack init NAME), move clients to it, then destroy this one; or {back}"
    )
