"""Command line: `python -m smoke_tests.verify --stack dev`: conformance tests, benchmark, comparison, and a history of them."""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from infra.command_line import interrupted_exit_code, run, without_reader
from infra.errors import UserError
from infra.terminal import paint
from smoke_tests import __main__ as conformance
from smoke_tests.benchmark import run_command
from smoke_tests.benchmark.compare import Thresholds, as_text, compare
from smoke_tests.benchmark.compare_command import HELP
from smoke_tests.benchmark.deployment import read_deployment
from smoke_tests.benchmark.record import Measurement, Record, read_record
from smoke_tests.errors import TargetError
from smoke_tests.history import bucket_of
from smoke_tests.history_entry import Compared, Entry, checked_name, digest, name_of, new_id
from smoke_tests.history_store import FolderStore, Store, store_for
from smoke_tests.options import add_results_store, new_parser
from smoke_tests.shares import share_option
from smoke_tests.stack import PROJECT_FOLDER
from smoke_tests.target import Target, add_target_options, target_from_options

UNUSABLE_TARGET_EXIT_CODE = 4
INTERRUPTED = "interrupted"
SIGNALLED = 128  # a program that a signal ended exits with this and the signal's number
# Only equal loads can be compared. From 100 requests on, p99 is judged as well.
LOAD = ("--concurrency", "1,16", "--requests", "100", "--prompt-tokens", "256", "--max-tokens", "64")


def main(arguments: list[str] | None = None) -> int:
    """Verify, and save the result.

    Returns:
        0: everything passed and nothing got worse; 1: something failed or got worse, or the result could not be saved where
        it belongs; 4: the endpoint or the store cannot be reached, and nothing was saved; 130 after Ctrl-C.
    """
    given = sys.argv[1:] if arguments is None else arguments
    own, load = (given[: given.index("--")], given[given.index("--") + 1 :]) if "--" in given else (given, list(LOAD))
    options = _parser().parse_args(own)
    with without_reader():
        return _main(options, load)


def _main(options: argparse.Namespace, load: list[str]) -> int:
    try:
        target = target_from_options(options)
        limits = thresholds(options, target.outputs)
        name = checked_name(options.name or (name_of(target.identity) if target.identity else "endpoint"))
        store = store_for(
            bucket=options.bucket or bucket_of(target.outputs), region=target.region, folder=options.folder
        )
        store.check()
        earlier = [entry for entry in store.entries(name) if entry.passed]
        entry, lines = _verify(options, load, target, name, earlier, limits)
    except (TargetError, UserError) as error:
        print(f"{paint('error:', 'red', sys.stderr)} {error}", file=sys.stderr)
        return UNUSABLE_TARGET_EXIT_CODE
    if entry is None:
        return UNUSABLE_TARGET_EXIT_CODE
    print("\n".join(["", *lines]))
    kept = _keep(store, entry)
    if not entry.passed:
        more = f" (and {len(entry.reasons) - 1} more)" if len(entry.reasons) > 1 else ""
        print(f"{paint('error:', 'red', sys.stderr)} {name} does not pass: {entry.reasons[0]}{more}", file=sys.stderr)
        return interrupted_exit_code() if entry.reasons[0].startswith(INTERRUPTED) else 1
    print(paint(f"{name} passes", "green"))
    return 0 if kept else 1


def _parser() -> argparse.ArgumentParser:
    parser = new_parser(
        "smoke_tests.verify",
        "Is it right, how fast is it, and did anything get worse since it last passed? Saves the answer.",
        f"Arguments after -- are passed to the benchmark instead of: {' '.join(LOAD)}",
    )
    add_target_options(parser)
    parser.add_argument("--name", default="", help="name of the results (default: the stack's name)")
    add_results_store(parser)
    for each in fields(Thresholds):
        parser.add_argument(
            f"--{each.name.replace('_', '-')}", type=share_option, metavar="FRACTION",
            help=f"allowed change for the worse: {HELP[each.name]} (default: the stack's verify settings, else {each.default})",
        )  # fmt: skip
    return parser


def thresholds(options: argparse.Namespace, outputs: Mapping[str, Any]) -> Thresholds:
    """The limits: from the command line, else from the stack's settings, else the defaults.

    Raises:
        TargetError: one is not a fraction.
    """
    verify = outputs.get("verify")
    told = verify if isinstance(verify, dict) else {}
    found: dict[str, float] = {}
    for each in fields(Thresholds):
        head, *rest = each.name.split("_")
        value = getattr(options, each.name)
        value = told.get(head + "".join(part.title() for part in rest)) if value is None else value
        if value is not None:
            found[each.name] = float(value)
    try:
        return Thresholds(**found)
    except ValueError as error:
        raise TargetError(str(error)) from None


def _verify(
    options: argparse.Namespace,
    load: Sequence[str],
    target: Target,
    name: str,
    earlier: Sequence[Entry],
    limits: Thresholds,
) -> tuple[Entry | None, list[str]]:
    """Run both, compare, and make an entry; None if the conformance tests could not start.

    Ctrl-C makes an entry as well, with what was measured until then. It never passes, so nothing is compared with it.
    """
    where = _target_arguments(options)
    reasons: list[str] = []
    record: Record | None = None
    compared: Compared | None = None
    lines: list[str] = []
    started = datetime.now(UTC)
    with tempfile.TemporaryDirectory() as temporary:
        report, file = Path(temporary, "conformance.json"), Path(temporary, "benchmark.json")
        code = conformance.main([*where, "--json", str(report)])
        if not report.is_file():
            return None, []
        tests = json.loads(report.read_text(encoding="utf-8"))
        if code > SIGNALLED:
            reasons.append(f"{INTERRUPTED} during the conformance tests")
        elif code:
            reasons.append(_failed_tests(tests, code))
            lines.append("the benchmark was not run, because the conformance tests failed")
        else:
            print(flush=True)
            code = run_command.main([*where, *load, "--json", str(file)])
            record = read_record(file) if code <= 1 or file.is_file() else None
            if code > SIGNALLED:
                reasons.append(f"{INTERRUPTED} during the benchmark")
        if record is not None:
            reasons += [_failed_requests(point) for point in record.measurements if point.figures.failed]
        if record is not None and not record.interrupted:
            compared, told = compare_with_last_good(record, earlier, limits)
            lines += told
            reasons += compared.regressions if compared else ()
    deployment = record.deployment if record else read_deployment(target)
    config_hash = digest(deployment)
    entry = Entry(
        id=new_id(started, config_hash), name=name, date=started.isoformat(timespec="seconds"), config_hash=config_hash,
        commit=commit(), passed=not reasons, reasons=tuple(reasons), conformance=tests,
        benchmark=record.model_dump(mode="json") if record else None, compared=compared,
    )  # fmt: skip
    return entry, lines


def _target_arguments(options: argparse.Namespace) -> list[str]:
    found = ["--stack", options.stack] if options.stack else ["--endpoint", options.endpoint]
    if options.endpoint_name:
        found += ["--endpoint-name", options.endpoint_name]
    if options.api_key_file:
        found += ["--api-key-file", str(options.api_key_file)]
    if options.model:
        found += ["--model", options.model]
    return [*found, "--wait-seconds", str(options.wait_seconds)]


def _failed_tests(report: Mapping[str, Any], code: int) -> str:
    failed = [test["name"] for test in report.get("tests", ()) if test["outcome"] == "failed"]
    if not failed:
        return f"the conformance tests ended with code {code}"
    return f"{len(failed)} of {len(report['tests'])} conformance tests failed: {', '.join(failed[:3])}{', ...' if len(failed) > 3 else ''}"


def _failed_requests(point: Measurement) -> str:
    first = next((f"{kind}: {failure.example}" for kind, failure in point.failures.items()), "")
    return f"{point.figures.failed} of {point.figures.failed + point.figures.completed} requests failed at {point.load.label} ({first})"


def compare_with_last_good(
    record: Record, earlier: Sequence[Entry], limits: Thresholds
) -> tuple[Compared | None, list[str]]:
    """Compare a record with the newest entry that passed and measured the same model, hardware and load.

    Args:
        record: the new one.
        earlier: entries that passed, the newest first.
        limits: the allowed changes for the worse.

    Returns:
        The comparison, None if no entry is comparable, and lines for a person.
    """
    reason = "there is no earlier verification that passed"
    for entry in earlier:
        base = entry.record()
        if base is None:
            continue
        found = compare(base, record, limits)
        if found.incomparable:
            reason = found.incomparable[0] if reason == "there is no earlier verification that passed" else reason
            continue
        shown = f"{entry.date[:16].replace('T', ' ')} {entry.id.rpartition('-')[2]} {entry.commit or ''}".strip()
        return (
            Compared(base=entry.id, regressions=found.regressions, notes=found.notes),
            [as_text(found, shown, "now")],
        )
    return None, [f"not compared: {reason}. Later verifications are compared with this one"]


def _keep(store: Store, entry: Entry) -> bool:
    """Save the entry: in the store, else in the folder, else on standard output, so that minutes of a GPU are not lost."""
    try:
        print(f"saved: {store.keep(entry)}")
    except TargetError as error:
        problem = f"{paint('error:', 'red', sys.stderr)} {error}"
        try:
            place = FolderStore().keep(entry)
        except TargetError:
            print(entry.as_json(), end="", flush=True)
            print(f"{problem}. The result is printed above instead", file=sys.stderr)
        else:
            print(f"{problem}. Kept here instead: {place}", file=sys.stderr)
        return False
    return True


def commit() -> str | None:
    """The commit of this clone, with -dirty if a file is modified; None outside a clone."""

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", *arguments], cwd=PROJECT_FOLDER, capture_output=True, text=True, timeout=10, check=False
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    head = git("rev-parse", "--short", "HEAD")
    if not head:
        return None
    return f"{head}-dirty" if git("status", "--porcelain", "--untracked-files=no") else head


if __name__ == "__main__":
    run(main)
