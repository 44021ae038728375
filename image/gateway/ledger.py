"""The cold start ledger: the seconds that each phase of a cold start took, and who says so."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

PHASES = ("instance", "image", "weights", "compile", "ready")
"""In their order: until a machine is there, its image is pulled and its container started, the weights are loaded, the
graphs compiled, and its /health answers."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One phase, or several that nobody can tell apart: then `phase` names all, joined by "+"."""

    phase: str
    seconds: float
    source: str


def entries(began: float, ready: float, ends: Mapping[str, float], source: str) -> list[Entry]:
    """A cold start's ledger, without gaps: the seconds of all entries are those from `began` to `ready`.

    Times are time.time(). `ends`: when phases ended, of those that `source` can tell; `ready` is the gateway's own.
    A phase whose end is not reported is counted together with the next one that is.
    """
    found: list[Entry] = []
    unknown: list[str] = []
    last = began
    for phase in PHASES:
        end = ready if phase == "ready" else ends.get(phase)
        unknown.append(phase)
        if end is None:
            continue
        end = min(max(end, last), ready)  # clocks differ
        told_by = "health" if phase == "ready" else source
        found.append(Entry("+".join(unknown), round(end - last, 3), told_by))
        last = end
        unknown = []
    return found


def as_json(found: list[Entry]) -> list[dict[str, Any]]:
    """For /info and the log."""
    return [{"phase": entry.phase, "seconds": entry.seconds, "source": entry.source} for entry in found]
