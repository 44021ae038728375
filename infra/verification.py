"""What ``make verify`` wants to know of a stack, as one of its outputs."""

from __future__ import annotations

from typing import Any

from infra.settings import Settings


def verify_output(settings: Settings) -> dict[str, Any]:
    """Where results are kept, and how much worse is too much: shares, 0.1 for 10%."""
    return {
        "resultsBucket": settings.results_bucket,
        "maxSlowdown": settings.verify_max_slowdown_percent / 100,
        "maxTailSlowdown": settings.verify_max_tail_slowdown_percent / 100,
        "maxCostIncrease": settings.verify_max_cost_increase_percent / 100,
        "maxColdStartSlowdown": settings.verify_max_cold_start_slowdown_percent / 100,
        "maxSuccessRateDrop": settings.verify_max_success_rate_drop_percent / 100,
    }
