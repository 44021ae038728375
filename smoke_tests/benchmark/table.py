"""A record as text for a terminal."""

from collections.abc import Iterator, Mapping

from smoke_tests.benchmark.record import Cost, Figures, Measurement, Record

ROWS = (
    ("to the first token", "ttft"),
    ("per output token", "tpot"),
    ("between tokens", "itl"),
    ("whole answer", "e2el"),
)
WIDTH = 24
BUNDLED = 1.05


def header(record: Record) -> str:
    """Return what is measured, in a few lines."""
    deployment, workload = record.deployment, record.workload
    gpu = f"{deployment.gpu_count or 1} x {deployment.gpu}" if deployment.gpu else deployment.runs_on
    lines = [f"{deployment.model} at {deployment.endpoint}" + (f" on {gpu}" if gpu else "")]
    if deployment.stand_in:
        lines.append("STAND-IN: a tiny random model answers under that name; the speed is not the model's")
    lengths = [
        f"data file {workload.dataset.name}" if workload.dataset else f"{workload.prompt_tokens} tokens in",
        "answers as long as the file's"
        if workload.output_tokens is None
        else f"{workload.output_tokens} out requested",
    ]
    if workload.shared_prefix_tokens:
        lengths.append(f"{workload.shared_prefixes} shared beginnings of {workload.shared_prefix_tokens}")
    if not workload.ignore_eos:
        lengths.append("ended by the model")
    lines.append(f"{workload.api}, {', '.join(lengths)}")
    if record.cold_start:
        phases = ", ".join(f"{phase.phase} {phase.seconds:.0f} s" for phase in record.cold_start.phases or ())
        told = f" ({phases})" if phases else ""
        lines.append(f"cold start: first token after {record.cold_start.seconds_to_first_token:.1f} s{told}")
    return "\n".join(lines)


def measurement_table(point: Measurement, slos_ms: dict[str, float]) -> str:
    """Return one load's figures."""
    return "\n".join(_lines(point, slos_ms))


def sweep_table(record: Record) -> str:
    """Return a line for each load, to be read downwards."""
    columns = ("output tok/s", "requests/s", "ttft p50 ms", "ttft p99 ms", "tpot p50 ms", "e2el p99 ms", "ok")
    wide = max([WIDTH, *(len(point.load.label) + 1 for point in record.measurements)])
    lines = ["", f"{'sweep':{wide}}" + "".join(f"{column:>14}" for column in columns)]
    for point in record.measurements:
        told = point.figures
        values = (
            told.output_throughput, told.request_throughput, told.median_ttft_ms, told.p99_ttft_ms, told.median_tpot_ms,
            told.p99_e2el_ms,
        )  # fmt: skip
        cells = [*(_number(value) for value in values), f"{told.success_rate:.0%}"]
        lines.append(f"{point.load.label:{wide}}" + "".join(f"{cell:>14}" for cell in cells))
    return "\n".join(lines)


def _lines(point: Measurement, slos_ms: dict[str, float]) -> Iterator[str]:
    told, load = point.figures, point.load
    yield ""
    stopped = ", interrupted: figures of what was measured so far" if point.interrupted else ""
    yield f"{load.label}: {told.completed + told.failed} requests in {told.duration:.1f} s{stopped}"
    if load.mode == "open":
        yield "open loop: times count from when a request was due, not from when it left (no coordinated omission)"
    yield f"{'milliseconds':{WIDTH}}{'mean':>10}{'p50':>10}{'p90':>10}{'p99':>10}"
    for title, name in ROWS:
        values = [getattr(told, f"{figure}_{name}_ms") for figure in ("mean", "median", "p90", "p99")]
        yield f"{title:{WIDTH}}" + "".join(f"{_number(value):>10}" for value in values)
    yield _row("output tokens/s", told.output_throughput)
    yield _row("all tokens/s", told.total_token_throughput)
    yield _row("requests/s", told.request_throughput)
    if told.request_goodput is not None:
        limits = ", ".join(f"{name} {limit:g} ms" for name, limit in slos_ms.items())
        yield _row("goodput, requests/s", told.request_goodput, f"within {limits}")
    yield f"{'succeeded':{WIDTH}}{told.success_rate:>10.1%}   {told.completed} of {told.completed + told.failed}"
    if told.client_errors:
        yield f"{'client errors':{WIDTH}}{told.client_errors:>10,}   failed on this machine: not counted for the endpoint"
    yield f"{'tokens in, out':{WIDTH}}{told.total_input_tokens:>10,}   {told.total_output_tokens:,}"
    yield f"{'cached prompt tokens':{WIDTH}}{cached_share(told)}"
    yield f"{'answers, tokens':{WIDTH}}{answer_lengths(told)}"
    if told.tokens_per_chunk is not None and told.tokens_per_chunk > BUNDLED:
        yield _row("tokens per chunk", told.tokens_per_chunk, "ITL is the gap between chunks, not between tokens")
    if note := without_tpot(told, slos_ms):
        yield f"note: {note}"
    if told.short_answers:
        yield f"warning: {told.short_answers} of {told.completed} answers are shorter than requested: do not compare this run"
    if point.cost:
        yield from _cost_lines(point.cost)
    client = point.client
    late = f"clock {client.loop_lag_p99_ms:.1f} ms and requests {client.send_delay_p99_ms:.1f} ms late at p99"
    yield f"{'client':{WIDTH}}{client.cpu_share:>10.0%}   of one core; {late}"
    if client.warning:
        yield f"warning: {client.warning}"
    for kind, failure in point.failures.items():
        yield f"failed: {kind} x {failure.count}: {failure.example}"


def without_tpot(told: Figures, slos_ms: Mapping[str, float]) -> str:
    """How many answers have no TPOT; empty if none has more than one token, or all have a TPOT."""
    if not told.without_tpot or told.total_output_tokens <= told.completed:
        return ""
    more = ", and do not count as goodput" if "tpot" in slos_ms else ""
    return f"{told.without_tpot} of {told.completed} answers arrived at once: they have no TPOT{more}"


def cached_share(told: Figures) -> str:
    """Return the share of the prompt tokens that a prefix cache held."""
    if told.cached_prompt_tokens is None:
        return f"{'unknown':>10}   neither usage nor /metrics reports it (vLLM: --enable-prompt-tokens-details)"
    share = told.cached_prompt_tokens / max(1, told.total_input_tokens)
    return f"{share:>10.1%}   {told.cached_prompt_tokens:,} of {told.total_input_tokens:,}"


def answer_lengths(told: Figures) -> str:
    """Return how long the answers were, beside the requested length."""
    each = max(1, told.completed)
    received = f"{told.total_output_tokens / each:>10.1f}   on average"
    if told.wanted_output_tokens is None:
        return f"{received}; requested: unknown"
    return f"{received}, of {told.wanted_output_tokens / each:.1f} requested"


def _cost_lines(cost: Cost) -> Iterator[str]:
    yield _row("$ per hour", cost.usd_per_hour)
    yield _row(
        "$ per million out, in",
        cost.usd_per_million_output_tokens,
        f"{_number(cost.usd_per_million_input_tokens)}   at this load without a pause",
    )
    if day := cost.with_idle_hours:
        yield _row(
            "... with idle hours",
            day.usd_per_million_output_tokens,
            f"{_number(day.usd_per_million_input_tokens)}   {day.pattern} busy: ${day.usd_per_day:.2f} a day, "
            f"{day.active_hours:.1f} h active, {day.cold_starts:g} cold start" + ("" if day.cold_starts == 1 else "s"),
        )


def _row(title: str, value: float | None, more: str = "") -> str:
    return f"{title:{WIDTH}}{_number(value):>10}" + (f"   {more}" if more else "")


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 1000 else f"{value:.1f}" if value >= 10 else f"{value:.3f}"
