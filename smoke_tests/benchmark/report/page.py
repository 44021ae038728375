"""The page around the plots: what was measured, the figures at a glance, every number in a table, and how it was done."""

from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Any

from smoke_tests.benchmark.record import Figures, Measurement, Record
from smoke_tests.benchmark.report import charts, runs
from smoke_tests.benchmark.report.chart import Chart, as_time, as_usd
from smoke_tests.benchmark.report.plot import short
from smoke_tests.benchmark.table import without_tpot

WIDE = 6  # a table of more columns is stacked on a narrow screen earlier
STYLE = Path(__file__).with_name("page.css")
COLUMNS = (
    ("output tok/s", "output_throughput"), ("all tok/s", "total_token_throughput"), ("requests/s", "request_throughput"),
    ("TTFT p50", "median_ttft_ms"), ("TTFT p99", "p99_ttft_ms"), ("TPOT p50", "median_tpot_ms"), ("TPOT p99", "p99_tpot_ms"),
    ("ITL p50", "median_itl_ms"), ("ITL p99", "p99_itl_ms"), ("E2EL p50", "median_e2el_ms"), ("E2EL p99", "p99_e2el_ms"),
)  # fmt: skip


def page(records: Sequence[Record]) -> str:
    """Return the whole page. The last record is the one the cards are about."""
    named = list(zip(_names(records), records, strict=True))
    several = len(named) > 1
    wide = [
        charts.throughput_against_latency(named),
        charts.ttft_distribution(named),
        charts.cost_against_utilisation(named),
    ]
    wide += [
        make(record, name if several else "", number)
        for number, (name, record) in enumerate(named)
        for make in (runs.timeline, runs.cold_start)
    ]
    newest = records[-1]
    body = [
        _header(newest, len(records)),
        _cards(newest),
        *(_warnings(name if several else "", record) for name, record in named),
        f'<div class="charts">{"".join(_figure(chart) for chart in wide if chart)}</div>',
        _numbers(named),
        _tokens(named),
        _how(newest),
        *(_facts(name if several else "", record) for name, record in named),
    ]
    title = f"Benchmark of {newest.deployment.model}"
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        # Nothing from anywhere, should ever something slip through the escaping.
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        '<meta name="color-scheme" content="light dark">'
        f"<title>{escape(title)}</title><style>{STYLE.read_text(encoding='utf-8')}</style></head>"
        f"<body><main>{''.join(body)}</main></body></html>\n"
    )


def _names(records: Sequence[Record]) -> list[str]:
    """Return a name for each record; of several, each begins with the number that marks it in the plots."""
    names = [f"{record.deployment.stack or record.deployment.model}, {_minute(record)}" for record in records]
    return [f"{number}: {name}" for number, name in enumerate(names, 1)] if len(names) > 1 else names


def _minute(record: Record) -> str:
    return record.date[:16].replace("T", " ")


def _header(record: Record, count: int) -> str:
    where = record.deployment
    gpu = f"{where.gpu_count or 1} x {where.gpu}" if where.gpu else where.runs_on
    engine = f"vLLM {where.engine_version}" if where.engine_version else None
    place = where.region and f"in {where.region}"
    facts = [gpu, where.instance_type, place, engine, f"{_minute(record)} UTC"]
    badges = ['<span class="badge">stand-in model: not its speed</span>'] if where.stand_in else []
    badges += ['<span class="badge">interrupted</span>'] if record.interrupted else []
    badges += [f'<span class="badge plain">{count} records; cards show the last</span>'] if count > 1 else []
    stack = f"stack {where.stack}" if where.stack else where.endpoint
    return (
        f'<header><p class="eyebrow">Benchmark · {escape(stack)}</p><h1>{_breakable(where.model)}</h1>'
        f'<p class="facts">{" · ".join(escape(str(fact)) for fact in facts if fact)}</p>{"".join(badges)}</header>'
    )


def _cards(record: Record) -> str:
    measured = [point for point in record.measurements if point.figures.completed]
    if not measured:
        return '<p class="warning">No request succeeded: there are no figures.</p>'
    best = max(measured, key=lambda point: point.figures.output_throughput)
    told = best.figures
    cards: list[tuple[str, str, str]] = [
        ("Output tokens a second", f"{told.output_throughput:,.0f}", f"at {best.load.label}"),
        ("Time to first token", as_time(told.median_ttft_ms), f"median; p99 {as_time(told.p99_ttft_ms)}"),
        ("Per output token", as_time(told.median_tpot_ms), f"median; p99 {as_time(told.p99_tpot_ms)}"),
        (
            "Succeeded",
            f"{told.success_rate:.1%}".replace(".0%", "%"),
            f"{told.completed:,} of {told.completed + told.failed:,} requests",
        ),
    ]
    if best.cost and best.cost.usd_per_million_output_tokens is not None:
        daily = best.cost.with_idle_hours
        more = f"{as_usd(best.cost.usd_per_million_input_tokens or 0)} in; ${best.cost.usd_per_hour:.3f} an hour"
        cards.append(("$ per million tokens out", as_usd(best.cost.usd_per_million_output_tokens), more))
        if daily and daily.usd_per_million_output_tokens is not None:
            more = f"{daily.pattern} busy, ${daily.usd_per_day:.2f} a day"
            cards.append(("... idle hours included", as_usd(daily.usd_per_million_output_tokens), more))
    if told.request_goodput is not None:
        limits = ", ".join(f"{name} {limit:g} ms" for name, limit in record.goodput_slos_ms.items())
        cards.append(("Goodput, requests a second", f"{told.request_goodput:.2f}", f"within {limits}"))
    if record.cold_start:
        cards.append(
            ("Cold start", f"{record.cold_start.seconds_to_first_token:.0f} s", "from zero to the first token")
        )
    return '<section class="cards" aria-label="At a glance">' + "".join(
        f'<div class="card"><h2>{escape(title)}</h2><p class="value">{escape(value)}</p><p class="more">{escape(more)}</p></div>'
        for title, value, more in cards
    ) + "</section>"  # fmt: skip


def _warnings(name: str, record: Record) -> str:
    found = [f"{point.load.label}: {point.client.warning}" for point in record.measurements if point.client.warning]
    found += [
        f"{point.load.label}: {failure.count} requests failed: {kind}: {failure.example}"
        for point in record.measurements
        for kind, failure in point.failures.items()
    ]
    found += [
        f"{point.load.label}: {point.figures.short_answers} of {point.figures.completed} answers are shorter than requested"
        for point in record.measurements
        if point.figures.short_answers
    ]
    found += [
        f"{point.load.label}: {note}"
        for point in record.measurements
        if (note := without_tpot(point.figures, record.goodput_slos_ms))
    ]
    if not found:
        return ""
    rows = "".join(f"<li>{escape(text)}</li>" for text in found)
    return (
        f'<div class="warning" role="note"><b>{escape(name) or "Read these figures with care"}</b><ul>{rows}</ul></div>'
    )


def _figure(chart: Chart) -> str:
    legend = "".join(f'<li><span class="swatch s{series}"></span>{escape(name)}</li>' for series, name in chart.legend)
    table = ""
    if chart.rows:
        numbers = _table(chart.head, [("", chart.rows)], chart.heading)
        table = f"<details><summary>Numbers</summary>{numbers}</details>"
    return (
        f"<figure><figcaption><h2>{escape(chart.heading)}</h2><p>{escape(chart.says)}</p></figcaption>{chart.svg}"
        f"{f'<ul class=legend>{legend}</ul>' if legend else ''}{table}</figure>"
    )


def _numbers(named: Sequence[tuple[str, Record]]) -> str:
    costs = any(point.cost for _, record in named for point in record.measurements)
    head = [
        "load",
        "ok",
        *(title for title, _ in COLUMNS),
        *(["$/M out", "$/M in"] if costs else []),
    ]
    groups: list[tuple[str, list[list[str]]]] = []
    for name, record in named:
        rows = [
            [
                point.load.label,
                f"{point.figures.success_rate:.1%}",
                *(_cell(getattr(point.figures, figure), figure) for _, figure in COLUMNS),
                *(_cost_cells(point) if costs else []),
            ]
            for point in record.measurements
        ]
        groups.append((name if len(named) > 1 else "", rows))
    return f"<section><h2>Every load</h2>{_table(head, groups, 'Every load')}</section>"


def _cell(value: float | None, figure: str) -> str:
    if value is None:
        return "-"
    return as_time(value) if figure.endswith("_ms") else short(value)


def _tokens(named: Sequence[tuple[str, Record]]) -> str:
    head = ("load", "tokens an answer", "requested", "tokens a chunk", "prompt tokens cached")
    groups = [
        (
            name if len(named) > 1 else "",
            [[point.load.label, *_length_cells(point.figures)] for point in record.measurements],
        )
        for name, record in named
    ]
    return f"<section><h2>Answer lengths and prefix cache</h2>{_table(head, groups, 'Answer lengths and prefix cache')}</section>"


def _length_cells(told: Figures) -> list[str]:
    each = max(1, told.completed)
    wanted = "unknown" if told.wanted_output_tokens is None else short(told.wanted_output_tokens / each)
    cached = told.cached_prompt_tokens
    share = "unknown" if cached is None else f"{cached / max(1, told.total_input_tokens):.1%}"
    chunk = "unknown" if told.tokens_per_chunk is None else short(told.tokens_per_chunk)
    return [short(told.total_output_tokens / each), wanted, chunk, share]


def _cost_cells(point: Measurement) -> list[str]:
    prices = (
        (point.cost.usd_per_million_output_tokens, point.cost.usd_per_million_input_tokens)
        if point.cost
        else (None, None)
    )
    return ["-" if usd is None else as_usd(usd) for usd in prices]


def _how(record: Record) -> str:
    work = record.workload
    asked = (
        f"prompts and lengths from {work.dataset.name} ({work.dataset.entries} entries)"
        if work.dataset
        else f"{work.prompt_tokens} tokens in"
    )
    answers = f"{work.output_tokens} tokens out" if work.output_tokens else "answers as long as the file's"
    ends = "" if work.ignore_eos else ", ended by the model"
    shared = (
        f", after {work.shared_prefixes} shared beginnings of {work.shared_prefix_tokens} tokens"
        if work.shared_prefix_tokens
        else ""
    )
    points = [
        f"<b>Requests:</b> streamed, {escape(work.api)}, {escape(asked)}, {escape(answers)}{ends}{shared}. Warm-up requests are in no figure.",
        "<b>TTFT</b> is the time to the first chunk with a token, <b>TPOT</b> the time per token after the first chunk's, <b>ITL</b> the "
        "gap between two chunks, <b>E2EL</b> the time to the last token.",
    ]
    if any(point.load.mode == "open" for point in record.measurements):
        points.append(
            "<b>Open loop:</b> times count from when a request was due, not from when it left, so a slow server or client cannot hide "
            "behind requests that were never sent (no coordinated omission)."
        )
    if any(point.load.mode == "closed" for point in record.measurements):
        points.append(
            "<b>Closed loop:</b> each of the N at once sends its next request when its last one was answered."
        )
    if record.prices:
        points.append(
            f"<b>Dollars</b> come from {escape(record.prices.source)}. An output token counts as {record.prices.output_to_input_price:g} input "
            "tokens; the two prices together pay the bill once."
        )
    return f"<section><h2>How it was measured</h2><ul class=how>{''.join(f'<li>{point}</li>' for point in points)}</ul></section>"


def _facts(name: str, record: Record) -> str:
    where = record.deployment
    client = max(record.measurements, key=lambda point: point.client.cpu_share).client if record.measurements else None
    facts: list[tuple[str, Any]] = [
        ("model", where.model), ("revision", where.model_revision), ("endpoint", where.endpoint), ("stack", where.stack),
        ("config hash", where.config_hash), ("engine", where.engine_version), ("engine image", where.engine_image),
        ("engine arguments", " ".join(where.engine_arguments) if where.engine_arguments else None),
        ("gateway", where.gateway_version), ("runs on", where.runs_on), ("context", where.max_model_len),
        ("requests at once a replica", where.concurrency_per_replica),
        ("client", f"Python {record.tool.python} on {record.tool.platform}"),
        ("client's CPU", f"{client.cpu_share:.0%} of one core at most" if client else None),
        ("record", f"schema {record.schema_version}, {record.date}"),
    ]  # fmt: skip
    rows = "".join(
        f"<tr><th scope=row>{escape(key)}</th><td>{_breakable(str(value))}</td></tr>"
        for key, value in facts
        if value is not None
    )
    config = "".join(
        f"<tr><th scope=row>{_breakable(key)}</th><td>{_breakable(str(value))}</td></tr>"
        for key, value in (where.config or {}).items()
    )
    settings = f"<h3>Settings of the stack</h3><table class=facts>{config}</table>" if config else ""
    return f"<section><details><summary>What was measured{f': {escape(name)}' if name else ''}</summary><table class=facts>{rows}</table>{settings}</details></section>"


def _table(head: Sequence[str], groups: Iterable[tuple[str, Iterable[Iterable[Any]]]], label: str) -> str:
    """Return a table; each group of rows has a heading, or none where it is empty.

    Where it is too narrow for its columns the page's style stacks the cells of a row, each beside its own label. The roles
    keep it a table to a screen reader then.
    """
    top = "".join(f"<th role=columnheader scope=col>{escape(title)}</th>" for title in head)
    kind, body = "wide" if len(head) > WIDE else "small", []
    for name, rows in groups:
        if name:
            body.append(
                f'<tr role=row class=group><th role=rowheader colspan="{len(head)}" scope=rowgroup>{_breakable(name)}</th></tr>'
            )
        for row in rows:
            cells = (
                f'<td role=cell data-label="{escape(title)}">{escape(str(cell))}</td>'
                for title, cell in zip(head, row, strict=True)
            )
            body.append(f"<tr role=row>{''.join(cells)}</tr>")
    return (
        f'<div class="table {kind}"><table role=table aria-label="{escape(label)}">'
        f"<thead role=rowgroup><tr role=row>{top}</tr></thead><tbody role=rowgroup>{''.join(body)}</tbody></table></div>"
    )


def _breakable(text: str) -> str:
    """Return the text escaped, with places where a long name may be broken."""
    return escape(text).replace("/", "/<wbr>").replace("-", "-<wbr>")
