"""Run the conformance tests in this folder against one target, with pytest."""

import json
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from infra.output_file import OutputError, check, write
from infra.web_address import redact
from smoke_tests.keys_document import KeysDocument
from smoke_tests.target import Target

FOLDER = Path(__file__).resolve().parent
ABILITIES = ("text", "image", "video", "tools", "embeddings")
REPORT_SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Conformance:
    """The endpoint under test and what the tests may use.

    The tests of the abilities in `required` fail instead of being skipped. `keys` is the keys document of the endpoint,
    if the tests may change it. `image_url` and `video_url` are URLs that the endpoint can fetch; if they are empty and
    the endpoint runs on this machine, the tests serve the files themselves.
    """

    target: Target
    required: frozenset[str] = frozenset()
    keys: KeysDocument | None = None
    image_url: str = ""
    video_url: str = ""


STASH = pytest.StashKey[Conformance]()


@dataclass
class _Result:
    outcome: str
    seconds: float
    detail: str


@dataclass(eq=False)  # pytest keeps plugins in sets
class ConformancePlugin:
    """Passes the target to the tests without a command line or a variable, which would show the key; collects results."""

    conformance: Conformance
    results: dict[str, _Result] = field(default_factory=dict)

    @pytest.hookimpl(tryfirst=True)
    def pytest_configure(self, config: pytest.Config) -> None:
        """Store the target for the fixtures."""
        config.stash[STASH] = self.conformance

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Collect a test's outcome. A test whose set-up or clean-up failed has failed."""
        if report.failed and (text := redact(str(report.longrepr))) != str(report.longrepr):
            report.longrepr = text  # the terminal and the JUnit report print it
        before = self.results.get(report.nodeid, _Result("passed", 0.0, ""))
        seconds = before.seconds + report.duration
        if report.outcome == "passed" or before.outcome == "failed":
            self.results[report.nodeid] = _Result(before.outcome, seconds, before.detail)
        else:
            self.results[report.nodeid] = _Result(report.outcome, seconds, _detail(report))


def _detail(report: pytest.TestReport) -> str:
    """Return in one line why a test was skipped or failed."""
    if isinstance(report.longrepr, tuple):
        return str(report.longrepr[2]).removeprefix("Skipped: ")
    crash = getattr(report.longrepr, "reprcrash", None)
    text = str(getattr(crash, "message", "") or report.longrepr or "").strip()
    return text.splitlines()[0] if text else ""


def run_conformance(
    conformance: Conformance,
    *,
    files: tuple[str, ...] = (),
    junit: Path | None = None,
    report: Path | None = None,
    pytest_arguments: tuple[str, ...] = (),
) -> int:
    """Run the tests and return pytest's exit code: 0 if all passed, 1 if any failed.

    Args:
        conformance: the target and what the tests may use.
        files: names of test files, such as test_keys.py; empty: all of them.
        junit: file for a JUnit report.
        report: file for the same as JSON.
        pytest_arguments: more for pytest.

    Raises:
        OutputError: a report cannot be written; the tests have run, and the message says where it is instead.
    """
    for path in filter(None, (junit, report)):
        check(path)
    arguments = ["-c", str(FOLDER / "pytest.ini"), "--rootdir", str(FOLDER)]
    paths = [str(FOLDER / name) for name in files] or [str(FOLDER)]
    plugin = ConformancePlugin(conformance)
    started = time.time()
    with tempfile.TemporaryDirectory() as temporary:
        xml = Path(temporary, "junit.xml")
        if junit is not None:
            arguments += ["--junitxml", str(xml)]
        code = int(pytest.main([*arguments, *pytest_arguments, *paths], plugins=[plugin]))
        documents = {report: json.dumps(_document(plugin, started, code), indent=1) + "\n"} if report else {}
        if junit is not None and xml.is_file():
            documents[junit] = xml.read_text(encoding="utf-8")
        problems: list[str] = []
        for path, text in documents.items():
            try:
                write(path, text)
            except OutputError as error:
                problems += error.problems
    if problems:
        raise OutputError(problems)
    return code


def _document(plugin: ConformancePlugin, started: float, code: int) -> dict[str, Any]:
    target = plugin.conformance.target
    outcomes = [result.outcome for result in plugin.results.values()]
    return {
        "schema_version": REPORT_SCHEMA_VERSION,
        "kind": "conformance",
        "endpoint": target.endpoint,
        "model": target.model,
        "stack": target.stack,
        "started_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(started)),
        "duration_seconds": round(time.time() - started, 3),
        "exit_code": code,
        **{outcome: outcomes.count(outcome) for outcome in ("passed", "failed", "skipped")},
        "tests": [
            {
                "file": name.partition("::")[0],
                "name": name.partition("::")[2],
                "outcome": result.outcome,
                "seconds": round(result.seconds, 3),
                "detail": result.detail,
            }
            for name, result in plugin.results.items()
        ],
    }
