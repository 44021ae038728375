"""Computes figures from results, with vLLM bench's names and formulas, and also under the names of simpler benchmarks."""

import math
from collections import Counter
from collections.abc import Mapping

from smoke_tests.benchmark.load import BUCKET_SECONDS, Run
from smoke_tests.benchmark.record import Client, Failure, Figures, Samples, Timeline
from smoke_tests.benchmark.timeline import RequestResult

# Past this share of one core, or this delay, the client may be the bottleneck instead of the endpoint.
BOTTLENECK_CPU_SHARE = 0.8
BOTTLENECK_LAG_SECONDS = 0.025
MOST_BUCKETS = 200


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


def figures(run: Run, goodput_slos_ms: Mapping[str, float] | None = None) -> Figures:
    """Return the run's figures; times and tokens are of the requests that succeeded, as in vLLM bench.

    TTFT: to the first token. TPOT: (latency - TTFT) / (output tokens after the first chunk's), one value a request.
    ITL: every gap between two chunks with tokens. E2EL: to the last token. Throughputs divide by the run's whole
    duration. `request_goodput` counts the requests that met every SLO. Requests that failed on this machine are
    `client_errors`, and neither `failed` nor in `success_rate`.
    """
    good = [result for result in run.results if not result.failure]
    client_errors = sum(result.client_error for result in run.results)
    sent = len(run.results) - client_errors
    wanted = [result.wanted_tokens for result in good if result.wanted_tokens is not None]
    gaps = [gap for result in good for gap in result.gaps_seconds]
    chunks = len(gaps) + len(good)
    without_tpot = sum(result.tpot_seconds is None for result in good)
    total_input = sum(result.prompt_tokens for result in good)
    total_output = sum(result.output_tokens for result in good)
    latency = spread_ms("e2el", [result.latency_seconds for result in good])
    duration = max(run.duration_seconds, 1e-9)
    slos = goodput_slos_ms or {}
    return Figures.model_validate(
        {
            "duration": run.duration_seconds,
            "completed": len(good),
            "failed": sent - len(good),
            "client_errors": client_errors,
            "wanted_output_tokens": sum(wanted) if len(wanted) == len(good) else None,
            "short_answers": sum(result.output_tokens < (result.wanted_tokens or 0) for result in good),
            "tokens_per_chunk": total_output / chunks if chunks else None,
            "merged_chunk_share": gaps.count(0.0) / len(gaps) if gaps else None,
            "without_tpot": without_tpot,
            "cached_prompt_tokens": cached_tokens(run, good, total_input),
            "total_input_tokens": total_input,
            "total_output_tokens": total_output,
            "request_throughput": len(good) / duration,
            "output_throughput": total_output / duration,
            "total_token_throughput": (total_input + total_output) / duration,
            "request_goodput": sum(keeps(result, slos) for result in good) / duration if slos else None,
            **spread_ms("ttft", [result.ttft_seconds for result in good]),
            **spread_ms("tpot", [tpot for result in good if (tpot := result.tpot_seconds) is not None]),
            **spread_ms("itl", gaps),
            **latency,
            "tps": total_output / duration,
            "p50_latency_ms": latency["median_e2el_ms"],
            "p99_latency_ms": latency["p99_e2el_ms"],
            "avg_latency_ms": latency["mean_e2el_ms"],
            "success_rate": len(good) / sent if sent else 0.0,
        }
    )


def keeps(result: RequestResult, slos_ms: Mapping[str, float]) -> bool:
    """Return whether a request met every SLO; `slos_ms` by "ttft", "tpot" and "e2el". A request without a TPOT does not meet a TPOT objective."""
    took = {"ttft": result.ttft_seconds, "tpot": result.tpot_seconds, "e2el": result.latency_seconds}
    return all((seconds := took[name]) is not None and seconds * 1000 <= limit for name, limit in slos_ms.items())


def cached_tokens(run: Run, good: list[RequestResult], total_input: int) -> int | None:
    """Return the cached prompt tokens: the usage's, else by the engine's counters; None if neither reports them.

    Some versions of vLLM omit the detail if an answer has no cached tokens: it is 0 if another answer includes it.
    """
    found = [result.cached_tokens for result in good if result.cached_tokens is not None]
    if found:
        return sum(found)
    return round(run.prefix_cache_share * total_input) if run.prefix_cache_share is not None else None


def client_share(run: Run) -> Client:
    """Return the client's resource use, and a warning if the client may have been the bottleneck."""
    share = run.client_cpu_seconds / max(run.duration_seconds, 1e-9)
    lag = percentile(run.loop_lag_seconds, 99) if run.loop_lag_seconds else 0.0
    delay = percentile(run.send_delay_seconds, 99) if run.send_delay_seconds else 0.0
    warning = ""
    if share > BOTTLENECK_CPU_SHARE:
        warning = f"the client used {share:.0%} of one core and was the bottleneck: these are its figures, not the endpoint's. Run it elsewhere or with less load"
    elif max(lag, delay) > BOTTLENECK_LAG_SECONDS:
        warning = f"the client was up to {max(lag, delay) * 1000:.0f} ms late (p99): this machine is too busy to time tokens exactly"
    return Client(
        cpu_share=share,
        cpu_seconds=run.client_cpu_seconds,
        cpu_seconds_per_request=run.client_cpu_seconds / max(1, len(run.results)),
        loop_lag_p99_ms=lag * 1000,
        send_delay_p99_ms=delay * 1000,
        warning=warning,
    )


def failures(run: Run) -> dict[str, Failure]:
    """Return the failed requests, counted by kind, with the first detail of each."""
    failed = [result for result in run.results if result.failure]
    details: dict[str, str] = {}
    for result in failed:
        details.setdefault(result.failure, result.detail)
    counts = Counter(result.failure for result in failed)
    return {kind: Failure(count=count, example=details[kind]) for kind, count in counts.most_common()}


def samples(run: Run) -> Samples:
    """Return the requests as columns, in order of sending, times in milliseconds to a tenth."""
    ordered = sorted(run.results, key=lambda result: result.started_seconds)
    return Samples(
        start_ms=tuple(round(result.started_seconds * 1000, 1) for result in ordered),
        ttft_ms=tuple(None if result.failure else round(result.ttft_seconds * 1000, 1) for result in ordered),
        e2el_ms=tuple(None if result.failure else round(result.latency_seconds * 1000, 1) for result in ordered),
        prompt_tokens=tuple(result.prompt_tokens for result in ordered),
        output_tokens=tuple(result.output_tokens for result in ordered),
        failure=tuple(result.failure for result in ordered),
    )


def timeline(run: Run) -> Timeline:
    """Return the tokens by the time of their arrival, in at most MOST_BUCKETS stretches.

    Each chunk counts as the average number of tokens per chunk, because its own number is unknown.
    """
    merged = max(1, math.ceil(run.duration_seconds / BUCKET_SECONDS / MOST_BUCKETS))
    counts = [0.0] * max(1, math.ceil(run.duration_seconds / BUCKET_SECONDS / merged))
    chunks = sum(run.token_chunks.values())
    tokens = sum(result.output_tokens for result in run.results if not result.failure)
    for bucket, count in run.token_chunks.items():
        counts[min(bucket // merged, len(counts) - 1)] += count * tokens / chunks
    return Timeline(bucket_seconds=merged * BUCKET_SECONDS, tokens=tuple(round(count, 1) for count in counts))
