"""Records made up for tests: one that is whole and valid, and changes to it."""

from typing import Any

from smoke_tests.benchmark.record import Record

TIMES = {
    f"{figure}_{name}_ms": value
    for name, value in (("ttft", 100.0), ("tpot", 10.0), ("itl", 10.0), ("e2el", 1000.0))
    for figure in ("mean", "median", "std", "p90", "p99")
}


def figures(**changes: Any) -> dict[str, Any]:
    """Figures of 200 requests in 20 s, 100 tokens in and 50 out each."""
    return {
        "duration": 20.0, "completed": 200, "failed": 0, "wanted_output_tokens": 10_000, "short_answers": 0,
        "tokens_per_chunk": 1.0, "without_tpot": 0, "cached_prompt_tokens": 0, "total_input_tokens": 20_000, "total_output_tokens": 10_000,
        "request_throughput": 10.0, "output_throughput": 500.0, "total_token_throughput": 1500.0, **TIMES,
        "tps": 500.0, "p50_latency_ms": 1000.0, "p99_latency_ms": 1000.0, "avg_latency_ms": 1000.0, "success_rate": 1.0,
    } | changes  # fmt: skip


def measurement(load: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    """One point of a sweep; `changes` are its figures'."""
    return {
        "load": load or {"mode": "closed", "concurrency": 10},
        "started": "2026-11-21T12:00:00+00:00",
        "figures": figures(**changes),
        "client": {
            "cpu_share": 0.1, "cpu_seconds": 2.0, "cpu_seconds_per_request": 0.01, "loop_lag_p99_ms": 1.0,
            "send_delay_p99_ms": 1.0,
        },
        "samples": {
            "start_ms": [0.0, 1.0, 2.0], "ttft_ms": [90.0, 110.0, None], "e2el_ms": [900.0, 1100.0, None],
            "prompt_tokens": [100, 100, 0], "output_tokens": [50, 50, 0], "failure": ["", "", "timeout"],
        },
        "timeline": {"bucket_seconds": 10.0, "tokens": [5000.0, 5000.0]},
    }  # fmt: skip


def document(*measurements: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """A whole record as JSON has it. `deployment` and `workload` in `changes` are merged, the rest replaced."""
    deployment = {"endpoint": "http://127.0.0.1:1", "model": "m/m", "gpu": "a10g", "gpu_count": 1}
    lengths = {"prompt_tokens": {"low": 100, "high": 100}, "output_tokens": {"low": 50, "high": 50}}
    return {
        "kind": "vllm-endpoint benchmark",
        "schema_version": 2,
        "date": "2026-11-21T12:00:00+00:00",
        "tool": {"version": "0.1.0", "python": "3.11.7", "platform": "Linux", "options": {}},
        "deployment": deployment | changes.pop("deployment", {}),
        "workload": {"api": "chat", "same_prompts": False, **lengths} | changes.pop("workload", {}),
        "measurements": list(measurements) or [measurement()],
    } | changes


def record(*measurements: dict[str, Any], **changes: Any) -> Record:
    """The same, read."""
    return Record.model_validate(document(*measurements, **changes))
