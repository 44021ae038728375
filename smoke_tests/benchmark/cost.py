"""Cost per million tokens: at the measured load, and including a day's idle hours.

`docs/benchmark.md` has the formulas in words. Nothing here is measured; prices come from the stack's outputs or the
command line, tokens and seconds from the run.
"""

import re
from dataclasses import dataclass

from smoke_tests.benchmark.record import Cost, DailyCost, Figures, Prices, TokenPrices

HOURS_PER_DAY = 24.0
# Hosted APIs charge 3 to 5 times as much for an output token as for an input token.
OUTPUT_TO_INPUT_PRICE = 4.0


@dataclass(frozen=True)
class DailyPattern:
    """The hours of a day with the measured load; the others are idle. `blocks`: (from, to), ascending, disjoint."""

    blocks: tuple[tuple[float, float], ...]

    @property
    def busy_hours(self) -> float:
        """How many hours a day are busy."""
        return sum(end - start for start, end in self.blocks)

    def __str__(self) -> str:
        if len(self.blocks) == 1 and self.blocks[0][0] == 0:
            return f"{self.busy_hours:g} h a day"
        return ", ".join(f"{start:g} to {end:g} h" for start, end in self.blocks)

    def day(self, scale_down_hours: float) -> tuple[float, float]:
        """Return active hours and cold starts of a day on a stack that stops `scale_down_hours` after the last request.

        A pause that is not longer than that is active throughout and ends without a cold start.
        """
        active, cold_starts = self.busy_hours, 0.0
        for number, (_, end) in enumerate(self.blocks):
            following = self.blocks[(number + 1) % len(self.blocks)][0]
            pause = following - end if number + 1 < len(self.blocks) else following + HOURS_PER_DAY - end
            active += min(pause, scale_down_hours)
            cold_starts += pause > scale_down_hours
        return active, cold_starts


def parse_pattern(text: str) -> DailyPattern:
    """Return the pattern in "8" (hours a day, in one piece) or "9-12,13-18" (hours of the clock). Raises ValueError."""
    hint = f"{text!r} is not a daily pattern; give hours a day such as 8, or hours of the clock such as 9-12,13-18"
    if re.fullmatch(r"\d+(\.\d+)?", text.strip()):
        blocks: tuple[tuple[float, float], ...] = ((0.0, float(text)),)
    else:
        pieces = [re.fullmatch(r"\s*(\d+(?:\.\d+)?)-(\d+(?:\.\d+)?)\s*", piece) for piece in text.split(",")]
        if not all(pieces):
            raise ValueError(hint)
        blocks = tuple((float(piece[1]), float(piece[2])) for piece in pieces if piece)
    edges = [0.0, *(edge for block in blocks for edge in block), HOURS_PER_DAY]
    if sorted(edges) != edges or any(start >= end for start, end in blocks):
        raise ValueError(hint)
    return DailyPattern(blocks)


def cost(figures: Figures, prices: Prices | None, replicas: int | None, pattern: DailyPattern | None) -> Cost | None:
    """Return the cost of the measured load; None without prices. `replicas`: ready replicas; None: as many as priced."""
    if prices is None:
        return None
    hour = prices.usd_per_hour_active
    if prices.usd_per_hour_replica is not None and replicas is not None:
        hour += max(0, replicas - prices.replicas_in_active) * prices.usd_per_hour_replica
    paid = hour / 3600 * figures.duration
    tokens = (figures.total_input_tokens, figures.total_output_tokens)
    day = None
    if pattern is not None and figures.duration > 0:
        day = _daily(tokens, figures.duration, prices, hour, pattern)
    return Cost(usd_per_hour=hour, with_idle_hours=day, **_split(paid, *tokens, prices).model_dump())


def _daily(tokens: tuple[int, int], duration: float, prices: Prices, hour: float, pattern: DailyPattern) -> DailyCost:
    idle_price = prices.usd_per_hour_idle if prices.usd_per_hour_idle is not None else hour
    if idle_price >= prices.usd_per_hour_active:  # nothing scales down, so nothing starts
        active, cold_starts = HOURS_PER_DAY, 0.0
    else:
        active, cold_starts = pattern.day((prices.scale_down_seconds or 0.0) / 3600)
    idle = HOURS_PER_DAY - active
    dollars = active * hour + idle * idle_price + cold_starts * (prices.usd_per_cold_start or 0.0)
    times = pattern.busy_hours * 3600 / duration
    return DailyCost(
        pattern=str(pattern),
        busy_hours=pattern.busy_hours,
        active_hours=active,
        idle_hours=idle,
        cold_starts=cold_starts,
        usd_per_day=dollars,
        **_split(dollars, tokens[0] * times, tokens[1] * times, prices).model_dump(),
    )


def _split(dollars: float, inputs: float, outputs: float, prices: Prices) -> TokenPrices:
    """Return prices that add up to `dollars`; an output token costs a multiple of an input token."""
    ratio = prices.output_to_input_price
    per_input = dollars / (inputs + ratio * outputs) * 1e6 if inputs + outputs else None
    return TokenPrices(
        usd_per_million_input_tokens=per_input,
        usd_per_million_output_tokens=per_input * ratio if per_input is not None else None,
        usd_per_million_total_tokens=dollars / (inputs + outputs) * 1e6 if inputs + outputs else None,
    )
