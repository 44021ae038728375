"""More of AWS's refusals than the engine kit makes, in AWS's words: asked before the kit's own."""

from __future__ import annotations

from typing import Any


def refusal(kind: str, new: dict[str, Any], others: list[dict[str, Any]], updating: bool) -> str | None:
    """AWS's error where a resource may not exist beside the others; None where it may.

    Args:
        kind: the last word of its type, such as ``Listener``.
        new: its inputs, secrets revealed.
        others: inputs of what exists, each with its ``kind``; without the resource itself where it is updated.
        updating: whether it exists already.
    """
    return None
