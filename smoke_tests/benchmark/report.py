"""A run, told: a table for people and JSON for programs."""

import platform
from datetime import UTC, datetime
from typing import Any

from smoke_tests.benchmark.closed_loop import Run
from smoke_tests.benchmark.figures import client_share, cost, failures, figures
from smoke_tests.benchmark.workload import Workload
from smoke_tests.target import Target

# Raised when a key changes its meaning or goes; a new key does not raise it.
SCHEMA_VERSION = 1
ROWS = [("TTFT", "ttft"), ("time per output token", "tpot"), ("between tokens", "itl"), ("latency", "e2el")]


def report(
    run: Run, target: Target, workload: Workload, concurrency: int, warmup_requests: int, usd_per_hour: float | None
) -> dict[str, Any]:
    """Return the whole report. Figures stand at the top level, as in vLLM bench's own result files."""
    run_figures = figures(run)
    return {
        "schema_version": SCHEMA_VERSION,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "endpoint": target.endpoint,
        "model": target.model,
        "stack": target.stack,
        "gpu": target.gpu,
        "gpu_count": target.gpu_count,
        "instance_type": target.instance_type,
        "region": target.region,
        "requests": len(run.results),
        "concurrency": concurrency,
        "warmup_requests": warmup_requests,
        "workload": workload.describe(),
        **run_figures,
        **cost(run_figures, usd_per_hour),
        "failures": failures(run),
        "client": {
            **client_share(run),
            "python": platform.python_version(),
            "platform": platform.platform(),
        },
        "per_request": [
            {
                "started_seconds": result.started_seconds,
                "ended_seconds": result.ended_seconds,
                "ttft_ms": None if result.failure else result.ttft_seconds * 1000,
                "latency_ms": None if result.failure else result.latency_seconds * 1000,
                "prompt_tokens": result.prompt_tokens,
                "output_tokens": result.output_tokens,
                "failure": result.failure,
            }
            for result in run.results
        ],
    }


def table(told: dict[str, Any]) -> str:
    """Return `report`'s result for a person."""
    workload = told["workload"]
    ends = "" if workload["ignore_eos"] else ", ended by the model"
    hardware = f" on {told['gpu_count'] or 1} x {told['gpu']}" if told["gpu"] else ""
    lines = [
        f"{told['model']} at {told['endpoint']}{hardware}",
        f"{told['requests']} {workload['api']} requests, {told['concurrency']} at once, "
        f"at most {workload['max_tokens']} tokens out{ends}",
        "",
        f"{'milliseconds':24}{'mean':>10}{'p50':>10}{'p90':>10}{'p99':>10}",
    ]
    for title, name in ROWS:
        values = [told[f"{figure}_{name}_ms"] for figure in ("mean", "median", "p90", "p99")]
        lines.append(f"{title:24}" + "".join(f"{_number(value):>10}" for value in values))
    lines += [
        "",
        f"{'output tokens/s':24}{_number(told['output_throughput']):>10}",
        f"{'all tokens/s':24}{_number(told['total_token_throughput']):>10}",
        f"{'requests/s':24}{_number(told['request_throughput']):>10}",
        f"{'succeeded':24}{told['success_rate']:>10.1%}   {told['completed']} of {told['requests']} in {told['duration']:.1f} s",
        f"{'tokens in, out':24}{told['total_input_tokens']:>10,}   {told['total_output_tokens']:,}",
    ]
    if told["usd_per_hour"] is not None:
        lines += [
            f"{'$ per hour':24}{told['usd_per_hour']:>10.3f}",
            f"{'$ per million tokens':24}{_number(told['usd_per_million_output_tokens']):>10}   all laid on the output; "
            f"{_number(told['usd_per_million_total_tokens'])} laid evenly on input and output",
        ]
    client = told["client"]
    lines.append(
        f"{'client':24}{client['cpu_share']:>10.0%}   of one core; {client['loop_lag_p99_ms']:.1f} ms late at p99"
    )
    if client["warning"]:
        lines.append(f"warning: {client['warning']}")
    lines += [f"failed: {kind} x {what['count']}: {what['example']}" for kind, what in told["failures"].items()]
    return "\n".join(lines)


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 1000 else f"{value:.1f}" if value >= 10 else f"{value:.3f}"
