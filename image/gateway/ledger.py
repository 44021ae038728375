"""The cold start ledger: the duration of each phase of a cold start, and the source of each figure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

PHASES = ("instance", "image", "weights", "compile", "ready")
"""In order: an instance starts, its image is pulled and the container starts, the weights load, the graphs compile, and
/health answers."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One phase, or several that cannot be separated: then `phase` contains all names, joined by "+"."""

    phase: str
    seconds: float
    source: str


def entries(began: float, ready: float, ends: Mapping[str, float], source: str) -> list[Entry]:
    """A cold start's ledger, without gaps: the entries add up to the time from `began` to `ready`.

    Times are time.time(). `ends`: the end of each phase that `source` reports; the gateway measures `ready` itself.
    A phase whose end is not reported is merged with the next one that is.
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
