"""`make local-check`: starts the endpoint, tests it as a user would, stops it, and reports the results."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from local import banner, folders, processes
from local.failures import reason
from local.options import Options
from local.progress import Progress

if TYPE_CHECKING:
    from local.running import Running

STEP_SECONDS = 600.0
BENCHMARK = ("--requests", "16", "--concurrency", "4", "--max-tokens", "32")


@dataclass(frozen=True)
class Step:
    """One check and its result."""

    name: str
    passed: bool
    seconds: float
    detail: str


class Steps:
    """Runs checks in order and stores their results."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self.done: list[Step] = []

    def run(
        self,
        name: str,
        command: Sequence[str | Path],
        judge: Callable[[str], str] = lambda output: "",
        environment: Mapping[str, str] | None = None,
    ) -> str:
        """Run a command. It passes if it exits with 0 and ``judge`` raises no ValueError for its output.

        ``judge`` returns the detail to report on success. Returns the output.
        """
        self._progress.phase("check", name)
        started = time.monotonic()
        log = folders.LOGS / f"check-{name.replace(' ', '-').lower()}.log"
        log.unlink(missing_ok=True)
        code, output = processes.run(name, command, log, self._progress.tick, STEP_SECONDS, environment, folders.ROOT)
        try:
            passed = code == 0
            detail = judge(output) if passed else f"{reason(output, code)}. The log: {log}"
        except ValueError as error:
            passed, detail = False, f"{error}. The log: {log}"
        self.add(name, passed, time.monotonic() - started, detail)
        return output

    def add(self, name: str, passed: bool, seconds: float, detail: str) -> None:
        """Store a result."""
        self.done.append(Step(name, passed, seconds, detail))
        self._progress.say(_line(self.done[-1]))


def run(options: Options, progress: Progress, serve: Callable[[], AbstractContextManager[Running]]) -> int:
    """Run all checks; returns 0 if all of them passed, else 1."""
    steps = Steps(progress)
    with serve() as running:
        shown = (running.base_url, running.model)
        steps.add("version", True, 0.0, banner.versions_line(running.version, running.deployed_image))
        _as_a_person(steps, *shown)
        target: list[str | Path] = ["--endpoint", running.base_url.removesuffix("/v1")]
        target += ["--api-key-file", folders.API_KEY, "--model", running.model]
        python = folders.LOCAL_ENVIRONMENT / "bin" / "python"
        conformance: list[str | Path] = [
            "--rotate-keys",
            folders.API_KEYS,
            "--json",
            folders.STATE / "conformance.json",
        ]
        steps.run("smoke tests", [python, "-m", "smoke_tests", *target, *conformance], _last_line)
        report = folders.STATE / "benchmark.json"
        benchmark: list[str | Path] = [python, "-m", "smoke_tests.benchmark", *target, *BENCHMARK, "--json", report]
        table = steps.run("benchmark", benchmark, _tokens_per_second)
        progress.say(table.strip())
    started = time.monotonic()
    left = processes.left_running()
    steps.add("stopped", not left, time.monotonic() - started, f"left running: {', '.join(left) or 'nothing'}")
    direct: list[str | Path] = [running.engine_python, "-m", "local.check_client", running.model_folder]
    steps.run("direct client", direct, _last_line, running.engine_environment)
    progress.end()
    failed = [step for step in steps.done if not step.passed]
    _summary(steps.done, progress, running)
    return 1 if failed else 0


def _as_a_person(steps: Steps, base_url: str, model: str) -> None:
    """Execute the commands of the banner exactly as printed."""

    def answer_of(output: str) -> str:
        answer = json.loads(output)
        if "choices" not in answer:
            raise ValueError(f"the answer is {output[:200]}")
        message = answer["choices"][0]["message"]
        return words(message["content"] or message.get("reasoning") or "")

    def words(output: str) -> str:
        if not output.strip():
            raise ValueError("the answer is empty")
        return f"{len(output.split())} words"

    if shutil.which("curl"):
        steps.run("printed curl", ["sh", "-c", banner.curl_line(base_url, model)], answer_of)
    else:
        steps.add("printed curl", True, 0.0, "skipped: curl is not installed")
    program = banner.sdk_lines(base_url, model)
    steps.run("printed Python", [folders.LOCAL_ENVIRONMENT / "bin" / "python", "-c", program], words)


def _tokens_per_second(output: str) -> str:
    return next((" ".join(line.split()) for line in output.splitlines() if line.startswith("output tokens/s")), "")


def _last_line(output: str) -> str:
    lines = output.strip().splitlines()
    return lines[-1].strip("= ") if lines else ""


def _line(step: Step) -> str:
    return f"  {'ok' if step.passed else 'FAILED':<7} {step.name:<15} {step.seconds:>5.1f} s  {step.detail}"


def _summary(steps: Sequence[Step], progress: Progress, running: Running) -> None:
    installing = progress.seconds.get("install", 0.0)
    rest = running.first_token_seconds - installing
    progress.say("")
    progress.say(f"{running.model} through the gateway, vLLM {running.version} on {running.machine}")
    if running.model_note:
        progress.say(running.model_note)
    progress.say("\n".join(_line(step) for step in steps))
    phases = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in progress.seconds.items())
    progress.say(f"phases: {phases}")
    progress.say(
        f"first token after {running.first_token_seconds:.0f} s: {installing:.0f} s for installation, {rest:.0f} s for the start"
    )
    failed = [step.name for step in steps if not step.passed]
    progress.say(f"FAILED: {', '.join(failed)}" if failed else f"all {len(steps)} checks passed")
