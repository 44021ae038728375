"""Results in, figures out: vLLM bench's names and formulas, seed names beside them, and cost."""

import math
from collections import Counter
from typing import Any

from smoke_tests.benchmark.closed_loop import Run

# Past this share of one core, or this late, the client rather than the endpoint may be what is measured.
BOTTLENECK_CPU_SHARE = 0.8
BOTTLENECK_LAG_SECONDS = 0.025


def percentile(values: list[float], rank: float) -> float:
    """Return the `rank`-th percentile (0 to 100), interpolated linearly between neighbours as numpy does.

    Raises ValueError for no values.
    """
    if not values:
        raise ValueError("no values, no percentile")
    ordered = sorted(values)
    position = (len(ordered) - 1) * rank / 100
    below = math.floor(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (position - below)


def spread_ms(name: str, seconds: list[float]) -> dict[str, float | None]:
    """Return mean, median, standard deviation (of the population), p90 and p99 of `seconds`, in milliseconds.

    Keys as in vLLM bench: `mean_ttft_ms` for `name` "ttft". All None without values.
    """
    if not seconds:
        return {f"{figure}_{name}_ms": None for figure in ("mean", "median", "std", "p90", "p99")}
    mean = math.fsum(seconds) / len(seconds)
    deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in seconds) / len(seconds))
    return {
        f"mean_{name}_ms": mean * 1000,
        f"median_{name}_ms": percentile(seconds, 50) * 1000,
        f"std_{name}_ms": deviation * 1000,
        f"p90_{name}_ms": percentile(seconds, 90) * 1000,
        f"p99_{name}_ms": percentile(seconds, 99) * 1000,
    }


def figures(run: Run) -> dict[str, Any]:
    """Return the run's figures; times and tokens are of the requests that succeeded, as in vLLM bench.

    TTFT: to the first token. TPOT: (latency - TTFT) / (output tokens - 1), a figure a request. ITL: every
    gap between two chunks with tokens. E2EL: to the last token. Throughputs divide by the run's whole
    duration. `tps`, `p50_latency_ms`, `p99_latency_ms`, `avg_latency_ms` and `success_rate` (0 to 1) are the
    same figures under the names of simpler benchmarks.
    """
    good = [result for result in run.results if not result.failure]
    total_input = sum(result.prompt_tokens for result in good)
    total_output = sum(result.output_tokens for result in good)
    latency = spread_ms("e2el", [result.latency_seconds for result in good])
    duration = run.duration_seconds
    return {
        "duration": duration,
        "completed": len(good),
        "failed": len(run.results) - len(good),
        "total_input_tokens": total_input,
        "total_output_tokens": total_output,
        "request_throughput": len(good) / duration,
        "output_throughput": total_output / duration,
        "total_token_throughput": (total_input + total_output) / duration,
        **spread_ms("ttft", [result.ttft_seconds for result in good]),
        **spread_ms("tpot", [tpot for result in good if (tpot := result.tpot_seconds) is not None]),
        **spread_ms("itl", [gap for result in good for gap in result.gaps_seconds]),
        **latency,
        "tps": total_output / duration,
        "p50_latency_ms": latency["median_e2el_ms"],
        "p99_latency_ms": latency["p99_e2el_ms"],
        "avg_latency_ms": latency["mean_e2el_ms"],
        "success_rate": len(good) / len(run.results),
    }


def cost(run_figures: dict[str, Any], usd_per_hour: float | None) -> dict[str, float | None]:
    """Return what a million tokens cost at the measured load, in US dollars; None where it is unknown.

        usd_per_million_X_tokens = usd_per_hour / 3600 * duration / X tokens * 1,000,000

    The same dollars are laid on the output tokens alone, on the input tokens alone, or evenly on both
    (`total`): three ways to say one cost, never to be added up. It holds for an endpoint kept this busy;
    idle hours come on top.
    """

    def per_million(tokens: int) -> float | None:
        if usd_per_hour is None or tokens == 0:
            return None
        return usd_per_hour / 3600 * float(run_figures["duration"]) / tokens * 1_000_000

    total_input, total_output = run_figures["total_input_tokens"], run_figures["total_output_tokens"]
    return {
        "usd_per_hour": usd_per_hour,
        "usd_per_million_output_tokens": per_million(total_output),
        "usd_per_million_input_tokens": per_million(total_input),
        "usd_per_million_total_tokens": per_million(total_input + total_output),
    }


def client_share(run: Run) -> dict[str, Any]:
    """Return what the measuring itself took, and a warning where it may have been the bottleneck."""
    share = run.client_cpu_seconds / run.duration_seconds
    lag = percentile(run.loop_lag_seconds, 99) if run.loop_lag_seconds else 0.0
    warning = ""
    if share > BOTTLENECK_CPU_SHARE:
        warning = f"the client used {share:.0%} of one core and may have been the bottleneck; run it elsewhere or with less load"
    elif lag > BOTTLENECK_LAG_SECONDS:
        warning = (
            f"the client was up to {lag * 1000:.0f} ms late (p99): this machine is too busy to time tokens exactly"
        )
    return {"cpu_share": share, "loop_lag_p99_ms": lag * 1000, "warning": warning}


def failures(run: Run) -> dict[str, Any]:
    """Return the failed requests, counted by kind, with the first detail of each."""
    failed = [result for result in run.results if result.failure]
    details: dict[str, str] = {}
    for result in failed:
        details.setdefault(result.failure, result.detail)
    return {
        kind: {"count": count, "example": details[kind]}
        for kind, count in Counter(result.failure for result in failed).most_common()
    }
