"""What a plot comes with, and how the report writes times and dollars."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Chart:
    """A plot with its heading, what it says, its legend (series number, name) and its table (head, rows)."""

    name: str
    heading: str
    says: str
    svg: str
    legend: tuple[tuple[int, str], ...] = ()
    head: tuple[str, ...] = ()
    rows: tuple[tuple[Any, ...], ...] = ()


def as_time(value: float | None) -> str:
    """Return milliseconds as a person reads them."""
    if value is None:
        return "-"
    return f"{value / 1000:.2f} s" if value >= 1000 else f"{value:.0f} ms" if value >= 10 else f"{value:.1f} ms"


def as_usd(value: float) -> str:
    """Return dollars to as many digits as say something."""
    return f"${value:,.0f}" if value >= 100 else f"${value:.2f}" if value >= 0.1 else f"${value:.2g}"


def known(value: float | None) -> float:
    """Return the value, zero where there is none: a plot needs a place."""
    return value if value is not None else 0.0
