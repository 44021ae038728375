"""Where a stack lives is decided once: moving it would take the endpoint away, and is refused."""

from __future__ import annotations

from collections.abc import Mapping

import pulumi
from pulumi.runtime.sync_await import _sync_await

from infra.errors import DeployError

# Why each cannot change in place; the order is the messages'.
REASONS = {
    "target": "every resource would be deleted and made anew elsewhere",
    "account": "the state's resources are in the other account, out of these credentials' reach",
    "aws:region": "every resource would be deleted and made anew in the other region",
    "vpcId": "AWS moves neither a load balancer nor a file system's mount targets to another VPC",
}
UNSET = "none (the stack's own)"


def hold_place(name: str, place: Mapping[str, str]) -> None:
    """Refuse a place other than that of the first deploy, which the state keeps. Call it before anything is declared.

    Args:
        name: of the record in the state.
        place: by keys of ``REASONS``; keys that the first deploy did not record are let through.

    Raises:
        DeployError: the stack lives elsewhere; nothing was changed yet.
    """
    # A stash's output stays what it was first, whatever is put in later.
    record = pulumi.Stash(name, input=dict(place), opts=pulumi.ResourceOptions(ignore_changes=["input"]))

    async def first() -> Mapping[str, str]:
        return await record.output.future() or place

    if problems := moved(_sync_await(first()), place):
        raise DeployError("\n".join(problems))


def moved(before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    """Why a stack cannot go from one place to another: a line for each key that differs."""
    target = before.get("target"), after.get("target")
    keys = ["target"] if target[0] != target[1] else list(REASONS)  # the other keys are of a target
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
