"""`--availability`: steady traffic while a stack is updated, woken or scaled. Reports lost and slow requests."""

import json
import signal
import subprocess
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from types import FrameType
from typing import Any

from infra.command_line import note_signal
from infra.output_file import check, write
from smoke_tests.errors import TargetError
from smoke_tests.progress import ProgressLine
from smoke_tests.target import Target
from smoke_tests.traffic import Outcome, Traffic

REPORT_SCHEMA_VERSION = 1
# The effects of a change, such as a draining replica, appear in the seconds after it.
SETTLE_SECONDS = 10.0
FINISH_SECONDS = 900.0
POLL_SECONDS = 0.2
# A request is slow if it takes this many times as long as the slowest request of the baseline.
SLOW_FACTOR = 3.0
LEAST_REQUESTS = 8
SHOWN = 10


@dataclass(frozen=True)
class AvailabilityRun:
    """The endpoint, the number of clients, and the durations; `duration_seconds` None: until Ctrl-C or the command exits."""

    target: Target
    clients: int = 4
    baseline_seconds: float = 15.0
    duration_seconds: float | None = None
    settle_seconds: float = SETTLE_SECONDS


@dataclass
class Judgement:
    """The outcomes of the requests before the change (baseline) and after its start."""

    baseline: list[Outcome]
    during: list[Outcome]
    unanswered: int
    changed_at: float
    slow_seconds: float = field(init=False)

    def __post_init__(self) -> None:
        answered = [outcome.seconds for outcome in self.baseline if not outcome.lost]
        if not answered:
            reason = self.baseline[0].lost if self.baseline else "none was answered"
            raise TargetError(f"the baseline has no answered request ({reason}); give a longer --baseline-seconds")
        self.slow_seconds = SLOW_FACTOR * max(answered)

    @property
    def lost(self) -> list[Outcome]:
        """Requests without a complete response, including those of the baseline."""
        return [outcome for outcome in (*self.baseline, *self.during) if outcome.lost]

    @property
    def slow(self) -> list[Outcome]:
        """Requests after the start of the change that took much longer than the baseline's slowest."""
        return [outcome for outcome in self.during if not outcome.lost and outcome.seconds > self.slow_seconds]


def run_availability(run: AvailabilityRun, command: Sequence[str] = (), report: Path | None = None) -> int:
    """Send traffic, make the change or wait for it, and report the outcomes of the requests.

    Returns 0 if no request was lost, 1 if one was or none was sent during the change, else the command's own exit code.
    Raises TargetError if the baseline has no answered request or the command does not exist, and OutputError if the report
    cannot be written.
    """
    if report is not None:
        check(report)
    traffic = Traffic(run.target, run.clients)
    progress = ProgressLine()
    stopped = threading.Event()
    before = {
        number: signal.signal(number, lambda number, frame: _stop(stopped, number, frame))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        traffic.start()
        _watch(traffic, progress, "baseline", stopped, run.baseline_seconds)
        changed_at = time.monotonic()
        code = 0
        if command:
            code = _run(command, run, traffic, progress, stopped)
        else:
            _say("baseline taken; change the stack now" + ("" if run.duration_seconds else ". Ctrl-C ends the run"))
            _watch(traffic, progress, "during", stopped, run.duration_seconds)
        progress.close()
        unanswered = traffic.stop(FINISH_SECONDS)
    finally:
        progress.close()
        traffic.stop(0.0)
        for number, handler in before.items():
            signal.signal(number, handler)
    outcomes = traffic.outcomes()
    # A request that was in flight at the start of the change belongs to the change.
    is_before = [outcome.started + outcome.seconds < changed_at for outcome in outcomes]
    judgement = Judgement(
        [outcome for outcome, early in zip(outcomes, is_before, strict=True) if early],
        [outcome for outcome, early in zip(outcomes, is_before, strict=True) if not early],
        unanswered,
        changed_at,
    )
    print(text(judgement), flush=True)
    if report is not None:
        write(report, json.dumps(document(judgement, run, command, code), indent=1) + "\n")
    if judgement.lost or unanswered or not judgement.during:
        return 1
    return code


def _stop(stopped: threading.Event, number: int, frame: FrameType | None) -> None:
    note_signal(number)
    if stopped.is_set():
        signal.default_int_handler(number, frame)
    stopped.set()


def _watch(
    traffic: Traffic, progress: ProgressLine, phase: str, stopped: threading.Event, seconds: float | None
) -> None:
    """Show the traffic for this long, and longer until enough requests have ended to draw a conclusion."""
    started = time.monotonic()
    enough = len(traffic.outcomes()) + LEAST_REQUESTS
    while not stopped.wait(POLL_SECONDS):
        elapsed = time.monotonic() - started
        progress.update(f"{phase}: {elapsed:.0f} s, {_counts(traffic)}")
        if seconds is not None and elapsed >= seconds and len(traffic.outcomes()) >= enough:
            return


def _run(
    command: Sequence[str], run: AvailabilityRun, traffic: Traffic, progress: ProgressLine, stopped: threading.Event
) -> int:
    """Run the command until it exits, then watch its effects. The terminal sends Ctrl-C to the command as well."""
    progress.close()
    _say(f"running {' '.join(command)}")
    try:
        process = subprocess.Popen(command)
    except OSError as error:
        raise TargetError(f"cannot run {command[0]}: {error.strerror}") from None
    code = process.wait()
    _say(f"{command[0]} exited with code {code}; {_counts(traffic)}")
    if not stopped.is_set():
        _watch(traffic, progress, "afterwards", stopped, run.settle_seconds)
    return code


def _counts(traffic: Traffic) -> str:
    outcomes = traffic.outcomes()
    lost = sum(bool(outcome.lost) for outcome in outcomes)
    return f"{len(outcomes) - lost} answered, {lost} lost"


def _say(line: str) -> None:
    print(line, flush=True)


def text(judgement: Judgement) -> str:
    """Return the outcome for a person."""
    lines = [f"{'':<10}{'answered':>9}{'lost':>6}{'slow':>6}{'first token s':>15}{'answer s':>10}{'slowest s':>11}"]
    slow = {"baseline": 0, "during": len(judgement.slow)}
    for phase, outcomes in (("baseline", judgement.baseline), ("during", judgement.during)):
        figures = _figures(outcomes)
        lines.append(
            f"{phase:<10}{figures['answered']:>9}{figures['lost']:>6}{slow[phase]:>6}"
            f"{_number(figures['median_first_token_seconds']):>15}{_number(figures['median_seconds']):>10}"
            f"{_number(figures['max_seconds']):>11}"
        )
    for title, outcomes in (("lost", judgement.lost), ("slow", judgement.slow)):
        for outcome in outcomes[:SHOWN]:
            kind = "stream" if outcome.stream else "plain"
            what = (
                outcome.lost
                or f"answered after {outcome.seconds:.2f} s, first token after {outcome.first_token_seconds:.2f} s"
            )
            lines.append(
                f"{title} at {outcome.started - judgement.changed_at:+.1f} s: {kind} {outcome.request_id}: {what}"
            )
        if len(outcomes) > SHOWN:
            lines.append(f"... and {len(outcomes) - SHOWN} more {title}")
    if judgement.unanswered:
        lines.append(f"{judgement.unanswered} requests were never answered")
    if not judgement.during:
        lines.append("no request was answered during the change, so nothing is proven; watch for longer")
    slower = f"slow: over {judgement.slow_seconds:.2f} s, {SLOW_FACTOR:g} times the baseline's slowest"
    verdict = "LOST" if judgement.lost or judgement.unanswered else "none lost"
    return "\n".join([*lines, f"{verdict}; {slower}"])


def _figures(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    answered = [outcome for outcome in outcomes if not outcome.lost]
    seconds = [outcome.seconds for outcome in answered]
    first = [outcome.first_token_seconds for outcome in answered if outcome.stream]
    return {
        "answered": len(answered),
        "lost": len(outcomes) - len(answered),
        "median_first_token_seconds": median(first) if first else None,
        "median_seconds": median(seconds) if seconds else None,
        "max_seconds": max(seconds) if seconds else None,
    }


def _number(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds:.3f}"


def document(judgement: Judgement, run: AvailabilityRun, command: Sequence[str], code: int) -> dict[str, Any]:
    """Return the outcome for a program; times are in seconds since the start of the change."""

    def listed(outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
        return [asdict(outcome) | {"started": outcome.started - judgement.changed_at} for outcome in outcomes]

    return {
        "schema_version": REPORT_SCHEMA_VERSION,
        "kind": "availability",
        "endpoint": run.target.endpoint,
        "model": run.target.model,
        "stack": run.target.stack,
        "clients": run.clients,
        "command": list(command),
        "command_exit_code": code,
        "slow_above_seconds": judgement.slow_seconds,
        "unanswered": judgement.unanswered,
        "baseline": _figures(judgement.baseline),
        "during": _figures(judgement.during) | {"slow": len(judgement.slow)},
        "lost": listed(judgement.lost),
        "slow": listed(judgement.slow),
    }
