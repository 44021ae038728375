"""Chooses the replica for a request: the one whose prefix cache may hold the conversation's beginning, unless overloaded.

Consistent hashing with bounded loads (Mirrokni, Thorup, Zadimoghaddam, 2016): a conversation goes to the first replica
in its own order that has at most 1.25 times the average load. Rendezvous hashing determines the order: every gateway
computes the same one, and adding or removing a replica moves only the conversations of that replica.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from image.gateway.fleet import Replica

_MOST_OF_AVERAGE_LOAD = 1.25
_PREFIX_CHARACTERS = 2048
# A block of the system prompt that Anthropic's tools regenerate for each request; vLLM removes it from the prompt.
_NEW_EACH_TIME = "x-anthropic-billing-header"


def affinity_of(document: dict[str, Any]) -> bytes:
    """A digest of the conversation's beginning: all messages up to the first user message, or the prompt; b"" if neither."""
    parts: list[str] = []
    for name in ("instructions", "system", "prompt"):
        _add_text(parts, document.get(name))
    turns = document.get("messages") or document.get("input")
    if isinstance(turns, list):
        for turn in turns:
            if isinstance(turn, dict):
                _add_text(parts, turn.get("content"))
                if turn.get("role") == "user":
                    break
    else:
        _add_text(parts, turns)
    return blake2b("\0".join(parts).encode("utf-8", "replace"), digest_size=16).digest() if parts else b""


def _add_text(parts: list[str], content: Any) -> None:
    if isinstance(content, str):
        parts.append(content[:_PREFIX_CHARACTERS])
    elif isinstance(content, list):
        for part in content[:8]:
            if isinstance(part, dict):
                # A part is {"type": "text", "text": ...} or {"type": "image_url", "image_url": {"url": ...}}.
                if str(part.get("text", "")).startswith(_NEW_EACH_TIME):
                    continue
                values = [value for value in part.values() if isinstance(value, dict)]
                for value in (part, *values):
                    parts += [text[:_PREFIX_CHARACTERS] for text in value.values() if isinstance(text, str)]


def choose(rotation: list[Replica], limit: int, affinity: bytes, excluded: Collection[Replica]) -> Replica | None:
    """A replica with a free slot, or None. `limit`: requests in flight per replica."""
    free = []
    load = 0
    for replica in rotation:
        outstanding = replica.outstanding
        load += outstanding
        if excluded and replica in excluded:
            continue
        if replica.on_trial:
            if not outstanding:
                return replica  # one request at a time shows whether it has recovered
        elif outstanding < limit:
            free.append(replica)
    if len(free) < 2:
        return free[0] if free else None
    best = None
    if affinity:
        bound = math.ceil(_MOST_OF_AVERAGE_LOAD * (load + 1) / len(rotation))
        highest = b""
        for replica in free:
            if replica.outstanding < bound:
                weight = blake2b(affinity, key=replica.hash_key, digest_size=8).digest()
                if weight > highest:
                    best, highest = replica, weight
    return best or min(free, key=_outstanding)


def _outstanding(replica: Replica) -> int:
    return replica.outstanding
