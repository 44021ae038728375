"""Command line: `python -m smoke_tests.history --stack dev` lists the verifications of a stack."""

import argparse
import json
import sys
from collections.abc import Sequence
from itertools import islice
from typing import Any

from infra.command_line import count, run
from infra.errors import UserError
from infra.output_file import is_standard_output, output_path
from infra.terminal import paint
from smoke_tests.benchmark.record import Record, write_record
from smoke_tests.components import identity_by_name, is_of_stack_file
from smoke_tests.errors import TargetError
from smoke_tests.history_entry import Entry, checked_name, name_of
from smoke_tests.history_store import Store, store_for
from smoke_tests.options import (
    add_endpoint_name,
    add_json,
    add_results_store,
    add_stack,
    check_stack_options,
    new_parser,
)
from smoke_tests.stack import own_name, read_stack

UNUSABLE_TARGET_EXIT_CODE = 4
COLUMNS = ("date (UTC)", "id", "config", "commit", "verdict", "tests", "at once", "tokens/s", "TTFT ms", "$/M out")
RIGHT = COLUMNS.index("tests")  # from here on figures


def main(arguments: list[str] | None = None) -> int:
    """Print the history; returns 0, or 4 if it cannot be read."""
    options = _parser().parse_args(arguments)
    try:
        name, store = _place(options)
        if options.record:
            return _write_record(name, store, *options.record)
        entries = list(islice(store.entries(name), options.limit))
    except (TargetError, UserError) as error:
        print(f"{paint('error:', 'red', sys.stderr)} {error}", file=sys.stderr)
        return UNUSABLE_TARGET_EXIT_CODE
    if options.json:
        print(json.dumps([_told(entry) for entry in entries], indent=1))
    elif entries:
        print(colored(table(entries)))
        failed = sum(not entry.passed for entry in entries)
        verdict = f"; {failed} failed" if failed else "; all passed"
        print(f"\n{len(entries)} of {name}, in {store}{verdict if sys.stdout.isatty() else ''}")
    else:
        print(f"there are no results of {name} in {store}; {_how_to_verify(options)} saves the first")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = new_parser(
        "smoke_tests.history", "The verifications of a stack: date, configuration, verdict, speed and cost."
    )
    which = parser.add_mutually_exclusive_group(required=True)
    add_stack(which)
    which.add_argument("--name", help="name of an endpoint without a stack, such as local-dev")
    add_endpoint_name(parser)
    add_results_store(parser)
    parser.add_argument("--limit", type=count, default=20, metavar="N", help="the last N (default 20)")
    add_json(parser, "the results")
    parser.add_argument(
        "--record",
        nargs=2,
        metavar=("ID", "FILE"),
        help="write the benchmark record of one entry, for compare and report; FILE - is standard output",
    )
    return parser


def _place(options: argparse.Namespace) -> tuple[str, Store]:
    check_stack_options(options)
    if options.stack is None:
        return checked_name(options.name), store_for(bucket=options.bucket, folder=options.folder)
    bucket, region = options.bucket, None
    identity = identity_by_name(options.stack, options.endpoint_name)
    if identity is None or not (bucket or options.folder):
        stack = read_stack(options.stack, options.endpoint_name, read_key=False)
        identity, region = stack.identity, stack.region
        bucket = bucket or (bucket_of(stack.outputs) if options.folder is None else "")
    return checked_name(name_of(identity)), store_for(bucket=bucket, region=region, folder=options.folder)


def _how_to_verify(options: argparse.Namespace) -> str:
    if options.stack is None:
        return f"make verify STACK={options.name}"
    if is_of_stack_file(options.stack, options.endpoint_name):
        return f"make verify STACK={own_name(options.stack)}"
    named = f" --endpoint-name {options.endpoint_name}" if options.endpoint_name else ""
    return f"python -m smoke_tests.verify --stack {options.stack}{named}"


def bucket_of(outputs: Any) -> str:
    """The bucket that a stack's outputs name, or an empty string."""
    verify = outputs.get("verify")
    return str(verify.get("resultsBucket") or "") if isinstance(verify, dict) else ""


def _write_record(name: str, store: Store, wanted: str, file: str) -> int:
    path = output_path(file, "--record")
    found = [entry for entry in store.entries(name) if wanted in entry.id]
    if len(found) != 1 or (record := found[0].record()) is None:
        many = f"{len(found)} entries" if len(found) != 1 else "no benchmark that this version reads"
        raise TargetError(f"--record: {many} for {wanted!r}; python -m smoke_tests.history lists the ids")
    write_record(record, path)
    if not is_standard_output(path):
        print(f"record: {file}")
    return 0


def table(entries: Sequence[Entry]) -> str:
    """The entries for a person: a line each, another for each further load, and the reason if it did not pass."""
    groups = [(entry, _rows(entry)) for entry in entries]
    rows = [COLUMNS, *(row for _, found in groups for row in found)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(COLUMNS))]
    lines = [_line(COLUMNS, widths)]
    for entry, found in groups:
        lines += [_line(row, widths) for row in found]
        lines += [f"    {reason}" for reason in entry.reasons[:1]]
    return "\n".join(lines)


def colored(text: str) -> str:
    """The table with colored verdicts."""
    return text.replace(" passed ", f" {paint('passed', 'green')} ").replace(" FAILED ", f" {paint('FAILED', 'red')} ")


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    cells = (
        cell.rjust(width) if i >= RIGHT else cell.ljust(width)
        for i, (cell, width) in enumerate(zip(row, widths, strict=True))
    )
    return "  ".join(cells).rstrip()


def _rows(entry: Entry) -> list[tuple[str, ...]]:
    tests = entry.conformance
    count = f"{tests.get('passed', 0)}/{tests.get('passed', 0) + tests.get('failed', 0)}"
    shown = entry.date[:16].replace("T", " ")
    verdict = "passed" if entry.passed else "FAILED"
    left = (shown, entry.id.rpartition("-")[2], entry.config_hash[:8], entry.commit or "-", verdict, count)
    loads = _loads(entry.record()) or [("-", "-", "-", "-")]
    return [(*left, *loads[0])] + [("",) * len(left) + load for load in loads[1:]]


def _loads(record: Record | None) -> list[tuple[str, ...]]:
    """Each measured load: concurrency, output tokens a second, median TTFT, $ per million output tokens."""
    if record is None:
        return []
    rows: list[tuple[str, ...]] = []
    for point in record.measurements:
        price = point.cost.usd_per_million_output_tokens if point.cost else None
        ttft = point.figures.median_ttft_ms
        rows.append((
            point.load.label.removesuffix(" at once"), f"{point.figures.output_throughput:,.0f}",
            "-" if ttft is None else f"{ttft:,.0f}", "-" if price is None else f"{price:.3f}",
        ))  # fmt: skip
    return rows


def _told(entry: Entry) -> dict[str, Any]:
    """An entry for a program, without the samples of its benchmark."""
    record = entry.record()
    loads = [] if record is None else [
        {"load": point.load.label, "figures": point.figures.model_dump(), "cost": point.cost and point.cost.model_dump()}
        for point in record.measurements
    ]  # fmt: skip
    found = entry.model_dump(exclude={"benchmark", "conformance"})
    outcomes = {name: entry.conformance.get(name) for name in ("passed", "failed", "skipped")}
    return {**found, "conformance": outcomes, "loads": loads}


if __name__ == "__main__":
    run(main)
