"""Command line: `python -m smoke_tests.benchmark --endpoint URL | --stack NAME`."""

import argparse
import asyncio
import json
import sys
from pathlib import Path

from smoke_tests.benchmark.closed_loop import ClosedLoop, Progress, Run
from smoke_tests.benchmark.report import report, table
from smoke_tests.benchmark.stream_client import Endpoint
from smoke_tests.benchmark.workload import PATHS, Workload, calibrate
from smoke_tests.cold_start import wait_for_answer
from smoke_tests.errors import TargetError
from smoke_tests.progress import ProgressLine
from smoke_tests.target import Target, add_target_options, target_from_options


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark; return 0 where every request succeeded, 1 where any failed, 2 where none could start."""
    options = _parser().parse_args(arguments)
    try:
        target = wait_for_answer(target_from_options(options), options.wait_seconds).target
        workload = calibrate(target, options.api, options.prompt_tokens, options.max_tokens, options.seed)
    except TargetError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    run = _measure(target, workload, options)
    usd_per_hour = options.usd_per_hour if options.usd_per_hour is not None else target.usd_per_hour
    told = report(run, target, workload, options.concurrency, options.warmup, usd_per_hour)
    print(table(told))
    if options.json is not None:
        try:
            options.json.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
        except OSError as error:
            print(f"error: cannot write {options.json}: {error.strerror}", file=sys.stderr)
            return 2
    return 1 if told["failed"] else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m smoke_tests.benchmark",
        description="How fast is this endpoint, and what do a million tokens cost? Streams, so many at once.",
    )
    add_target_options(parser)
    parser.add_argument("--requests", type=_positive, default=50, help="requests to measure (default 50)")
    parser.add_argument("--concurrency", type=_positive, default=10, help="requests at once (default 10)")
    parser.add_argument("--max-tokens", type=_positive, default=256, help="tokens out per request (default 256)")
    parser.add_argument("--prompt-tokens", type=_positive, default=128, help="tokens in, about (default 128)")
    parser.add_argument(
        "--warmup", type=int, default=1, metavar="N", help="requests sent before, not measured (default 1)"
    )
    parser.add_argument("--api", choices=sorted(PATHS), default="chat", help="which API (default chat)")
    parser.add_argument("--seed", type=int, default=0, help="makes the prompts; the same seed, the same prompts")
    parser.add_argument(
        "--timeout-seconds", type=float, default=600.0, metavar="S", help="a request's limit (default 600)"
    )
    parser.add_argument(
        "--usd-per-hour", type=float, metavar="X", help="what the endpoint costs (default: the stack's output)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the report there")
    return parser


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is less than 1")
    return value


def _measure(target: Target, workload: Workload, options: argparse.Namespace) -> Run:
    endpoint = Endpoint(target.endpoint, target.api_key)

    def messages(first: int, count: int) -> list[bytes]:
        # Made before the clock starts: writing JSON is not what is measured.
        return [endpoint.message(workload.path, workload.body(number)) for number in range(first, first + count)]

    line = ProgressLine(interval_seconds=None)

    def show(progress: Progress) -> None:
        rate = progress.token_chunks / progress.elapsed_seconds
        line.update(
            f"{progress.ended} of {options.requests} done, {progress.running} running, "
            f"{rate:,.0f} tokens/s, {progress.elapsed_seconds:.0f} s"
        )

    async def run() -> Run:
        if options.warmup > 0:
            warm = messages(options.requests, options.warmup)
            await ClosedLoop(endpoint, warm, options.concurrency, options.timeout_seconds).run()
        measured = messages(0, options.requests)
        return await ClosedLoop(endpoint, measured, options.concurrency, options.timeout_seconds, show).run()

    try:
        return asyncio.run(run())
    finally:
        line.close()
