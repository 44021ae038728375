"""`python -m smoke_tests.benchmark [run] --stack NAME | --endpoint URL ...`."""

import argparse
import platform
import secrets
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from infra.command_line import interrupted_exit_code, without_reader
from infra.output_file import is_standard_output, results_to
from infra.web_address import redact
from smoke_tests.benchmark.calibration import calibrate
from smoke_tests.benchmark.client_limits import machine_digest, require_client_resources
from smoke_tests.benchmark.cost import DailyPattern
from smoke_tests.benchmark.dataset import read_data_file
from smoke_tests.benchmark.deployment import prices, read_deployment
from smoke_tests.benchmark.measuring import WARMUP_AT_ONCE, Judging, Measuring
from smoke_tests.benchmark.options import DEFAULT_REQUESTS, REQUESTS_PER_CONCURRENCY, parse
from smoke_tests.benchmark.record import ColdStart, Lengths, Load, Measurement, Record, Tool, write_record
from smoke_tests.benchmark.table import header, measurement_table, sweep_table
from smoke_tests.benchmark.waking import measure_cold_start
from smoke_tests.benchmark.workload import Workload
from smoke_tests.cold_start import wait_for_answer
from smoke_tests.progress import ProgressLine
from smoke_tests.target import Target, target_from_options

PROJECT_FILE = Path(__file__).resolve().parents[2] / "pyproject.toml"
# Secrets and paths of this machine are not recorded.
OPTIONS_NOT_TOLD = ("api_key_file", "json", "quiet")


def main(arguments: list[str]) -> int:
    """Run the benchmark; return 0 if every request succeeded, 1 if any failed, 130 after Ctrl-C, 143 after SIGTERM.

    Raises TargetError if it cannot start, and OutputError if the record cannot be written.
    """
    options = parse(arguments)
    # If the record goes to a file, it is written even if standard output is closed early.
    with results_to(options.json), without_reader(options.json is not None):
        return _run(options)


def _run(options: argparse.Namespace) -> int:
    require_client_resources(loads(options))
    line = ProgressLine(interval_seconds=None if options.quiet else 30.0)
    workload = _workload(options)
    target = target_from_options(options)
    priced = prices(target, _given_prices(options), options.output_input_price)
    cold = measure_cold_start(target, options.wait_seconds, line) if options.cold_start else None
    target = wait_for_answer(target, options.wait_seconds, line).target
    workload = calibrate(target, replace(workload, model=target.model))
    record = _record(options, target, workload, cold).model_copy(update={"prices": priced})
    print(header(record), flush=True)
    judging = Judging(dict(options.goodput), priced, options.busy_hours)
    measuring = Measuring(target, workload, options.timeout_seconds, line)
    if measuring.proxy:
        note = f"requests went through the proxy {measuring.proxy}, which is part of every time"
        record = record.model_copy(update={"notes": (*record.notes, note)})
        print(f"note: {note}", file=sys.stderr)
    for load in loads(options):
        try:
            point = measuring.measure(load, judging)
        except KeyboardInterrupt:  # a second Ctrl-C: the loads before this one are kept
            point = None
        except Exception:
            record = _with(record, None, interrupted=True)
            if options.json is not None and record.measurements:
                write_record(record, options.json)
            raise
        stopped = point is None or point.interrupted
        record = _with(record, point, interrupted=stopped)
        if point is not None:
            print(measurement_table(point, judging.slos_ms), flush=True)
        if stopped:
            break
    if len(record.measurements) > 1:
        print(sweep_table(record))
    if options.json is not None and record.measurements:
        write_record(record, options.json)
        if not is_standard_output(options.json):
            print(f"\nrecord: {options.json}")
    if record.interrupted:
        above = "what was measured so far is above" if record.measurements else "nothing was measured yet"
        print(f"interrupted: {above}", file=sys.stderr)
        return interrupted_exit_code()
    return 1 if any(point.figures.failed or point.figures.client_errors for point in record.measurements) else 0


def loads(options: argparse.Namespace) -> Iterator[Load]:
    """Return the points of the sweep, in the order in which they were given."""
    for at_once in options.concurrency or ():
        requests = options.requests or max(DEFAULT_REQUESTS, REQUESTS_PER_CONCURRENCY * at_once)
        yield Load(
            mode="closed",
            concurrency=at_once,
            requests=None if options.duration else requests,
            duration_seconds=options.duration,
            warmup_requests=options.warmup if options.warmup is not None else min(at_once, WARMUP_AT_ONCE),
        )
    for rate in options.request_rate or ():
        yield Load(
            mode="open",
            request_rate=rate,
            burstiness=options.burstiness or 1.0,
            requests=None if options.duration else options.requests or DEFAULT_REQUESTS,
            duration_seconds=options.duration,
            warmup_requests=options.warmup if options.warmup is not None else min(max(1, round(rate)), WARMUP_AT_ONCE),
        )


def _workload(options: argparse.Namespace) -> Workload:
    data_file = read_data_file(options.dataset) if options.dataset else None
    return Workload(
        model="",
        api=options.api,
        prompt_tokens=options.prompt_tokens or Lengths(low=128, high=128),
        output_tokens=options.max_tokens or (None if data_file else Lengths(low=256, high=256)),
        data_file=data_file,
        shared_prefix_tokens=options.shared_prefix_tokens,
        shared_prefixes=options.shared_prefixes or 1,
        temperature=options.temperature,
        seed=options.seed,
        nonce="" if options.same_prompts else secrets.token_hex(8),
    )


def _given_prices(options: argparse.Namespace) -> dict[str, float | None]:
    minutes = options.scale_down_minutes
    return {
        "usd_per_hour_active": options.usd_per_hour,
        "usd_per_hour_idle": options.usd_per_hour_idle,
        "usd_per_cold_start": options.usd_per_cold_start,
        "scale_down_seconds": minutes * 60 if minutes is not None else None,
    }


def _record(options: argparse.Namespace, target: Target, workload: Workload, cold: ColdStart | None) -> Record:
    told = {
        name: redact(str(value)) if isinstance(value, str | Path | Lengths | DailyPattern) else value
        for name, value in vars(options).items()
        if value is not None and name not in OPTIONS_NOT_TOLD
    }
    version = tomllib.loads(PROJECT_FILE.read_text(encoding="utf-8"))["project"]["version"]
    return Record(
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        tool=Tool(
            version=version,
            python=platform.python_version(),
            platform=platform.platform(),
            machine=machine_digest(),
            options=told,
        ),
        deployment=read_deployment(target),
        workload=workload.describe(),
        goodput_slos_ms=dict(options.goodput),
        cold_start=cold,
        measurements=(),
    )


def _with(record: Record, point: Measurement | None, *, interrupted: bool) -> Record:
    points = (*record.measurements, point) if point is not None else record.measurements
    return record.model_copy(update={"measurements": points, "interrupted": interrupted})
