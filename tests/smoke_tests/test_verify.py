"""The gate: conformance, benchmark, comparison with the last good one; what got worse fails it with one line."""

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path

import pytest

from infra.outputs import verify_output
from infra.stack_files import load_stack
from smoke_tests import __main__ as conformance
from smoke_tests import verify
from smoke_tests.benchmark import run_command
from smoke_tests.benchmark.compare import Thresholds
from smoke_tests.errors import TargetError
from smoke_tests.history_entry import Entry
from smoke_tests.history_store import FolderStore
from tests.smoke_tests.benchmark_records import document, measurement
from tests.smoke_tests.fake_openai_server import KEY, FakeOpenAIServer, serving

OPTIONS = argparse.Namespace(**{each.name: None for each in fields(Thresholds)})


class Gate:
    """Runs the gate with made-up tests and figures, and a real folder."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.code = folder, 0
        self.record = document()
        self.benchmarked = 0
        monkeypatch.setattr(conformance, "main", self._conformance)
        monkeypatch.setattr(run_command, "main", self._benchmark)
        self.failing: tuple[str, ...] = ()

    def _conformance(self, arguments: Sequence[str]) -> int:
        tests = [{"name": "test_chat", "outcome": "passed"}]
        tests += [{"name": name, "outcome": "failed"} for name in self.failing]
        if self.code != 4:
            report = {"passed": 1, "failed": len(self.failing), "skipped": 0, "tests": tests}
            Path(arguments[list(arguments).index("--json") + 1]).write_text(json.dumps(report))
        return self.code or int(bool(self.failing))

    def _benchmark(self, arguments: Sequence[str]) -> int:
        self.benchmarked += 1
        assert "--concurrency" in arguments
        Path(arguments[list(arguments).index("--json") + 1]).write_text(json.dumps(self.record))
        return int(any(point["figures"]["failed"] for point in self.record["measurements"]))

    def __call__(self, *arguments: str) -> int:
        return verify.main(
            ["--endpoint", "http://127.0.0.1:9", "--name", "dev", "--folder", str(self.folder), *arguments]
        )

    def entries(self) -> list[Entry]:
        return list(FolderStore(self.folder).entries("dev"))


@pytest.fixture
def gate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Gate:
    return Gate(tmp_path / "results", monkeypatch)


def test_the_first_is_kept_and_the_next_is_held_against_it(gate: Gate, capsys: pytest.CaptureFixture[str]) -> None:
    assert gate() == 0
    assert "not compared: there is no earlier verification that passed" in capsys.readouterr().out
    gate.record = document(measurement(median_ttft_ms=105.0))
    assert gate() == 0
    assert "nothing got worse past its limit" in capsys.readouterr().out
    second, first = gate.entries()
    assert (first.passed, second.passed) == (True, True)
    assert second.compared is not None
    assert second.compared.base == first.id


def test_a_regression_fails_with_one_line_and_is_kept_but_never_compared_with(
    gate: Gate, capsys: pytest.CaptureFixture[str]
) -> None:
    assert gate() == 0
    gate.record = document(measurement(median_ttft_ms=150.0))
    for _ in range(2):  # the slow one is no base for another slow one
        capsys.readouterr()
        assert gate() == 1
        error = capsys.readouterr().err
        assert error == (
            "error: dev does not pass: median_ttft_ms at 10 at once: 100.0 became 150.0 (1.500 times, limit 1.100)\n"
        )
    assert [entry.passed for entry in gate.entries()].count(False) == 2


def test_limits_come_from_the_command_line_then_the_stack_then_the_defaults(
    gate: Gate, capsys: pytest.CaptureFixture[str]
) -> None:
    assert gate() == 0
    gate.record = document(measurement(median_ttft_ms=150.0))
    assert gate("--max-slowdown", "0.6") == 0
    told = verify_output(load_stack("dev"))
    assert verify.thresholds(OPTIONS, {"verify": told}) == Thresholds()
    assert verify.thresholds(OPTIONS, {"verify": {**told, "maxTailSlowdown": 0.5}}) == Thresholds(max_tail_slowdown=0.5)
    given = argparse.Namespace(**{**vars(OPTIONS), "max_tail_slowdown": 0.1})
    assert verify.thresholds(given, {"verify": {**told, "maxTailSlowdown": 0.5}}).max_tail_slowdown == 0.1
    with pytest.raises(TargetError, match=r"max_slowdown: -1\.0 must be a fraction, for example 0\.1 for 10%"):
        verify.thresholds(argparse.Namespace(**{**vars(OPTIONS), "max_slowdown": -1.0}), {})


def test_every_limit_is_a_setting_of_the_stack() -> None:
    told = verify_output(load_stack("dev", {"verifyMaxSlowdownPercent": 20, "resultsBucket": "acme-results"}))
    assert (told["maxSlowdown"], told["resultsBucket"]) == (0.2, "acme-results")
    assert len(told) == 1 + len(fields(Thresholds))
    changed = {key: 0.77 for key in told if key != "resultsBucket"}
    limits = verify.thresholds(OPTIONS, {"verify": changed})
    assert {getattr(limits, each.name) for each in fields(Thresholds)} == {0.77}


def test_failed_tests_fail_it_and_nothing_is_measured(gate: Gate, capsys: pytest.CaptureFixture[str]) -> None:
    gate.failing = ("test_stop", "test_usage")
    assert gate() == 1
    assert "2 of 3 conformance tests failed: test_stop, test_usage" in capsys.readouterr().err
    (kept,) = gate.entries()
    assert (kept.passed, kept.benchmark, gate.benchmarked) == (False, None, 0)


def test_requests_that_fail_fail_it(gate: Gate, capsys: pytest.CaptureFixture[str]) -> None:
    point = measurement(failed=2, completed=198, success_rate=0.99)
    point["failures"] = {"timeout": {"count": 2, "example": "nothing for 600 s"}}
    gate.record = document(point)
    assert gate() == 1
    assert "2 of 200 requests failed at 10 at once (timeout: nothing for 600 s)" in capsys.readouterr().err


def test_other_hardware_is_not_held_against_it_but_the_last_of_the_same_is(
    gate: Gate, capsys: pytest.CaptureFixture[str]
) -> None:
    assert gate() == 0
    gate.record = document(measurement(median_ttft_ms=50.0), deployment={"gpu": "h100"})
    assert gate() == 0
    assert "not compared: different gpu: a10g and h100" in capsys.readouterr().out
    gate.record = document(measurement(median_ttft_ms=150.0))
    assert gate() == 1


def test_what_did_not_run_is_not_kept(gate: Gate) -> None:
    gate.code = 4
    assert gate() == 4
    assert gate.entries() == []


def test_what_was_measured_before_ctrl_c_is_kept_and_never_compared_with(
    gate: Gate, capsys: pytest.CaptureFixture[str]
) -> None:
    gate.code = 130
    assert gate() == 130
    (kept,) = gate.entries()
    assert (kept.passed, kept.reasons, kept.conformance["passed"]) == (
        False,
        ("interrupted during the conformance tests",),
        1,
    )
    gate.code = 0
    assert gate() == 0
    assert "not compared: there is no earlier verification that passed" in capsys.readouterr().out


@pytest.mark.parametrize("clone", ["writable", "unwritable"])
def test_the_last_resort_is_printing_the_result(
    gate: Gate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], clone: str
) -> None:
    """The folder is fine before the run and gone after it: a file has taken its place."""
    (tmp_path / "file").touch()

    class Vanishing(FolderStore):
        def keep(self, entry: Entry) -> str:
            return FolderStore(tmp_path / "file" / "results").keep(entry)

    vanishing: Callable[..., FolderStore] = lambda **_: Vanishing(tmp_path / "bucket")  # noqa: E731
    monkeypatch.setattr(verify, "store_for", vanishing)
    instead = FolderStore(tmp_path / ("clone" if clone == "writable" else "file"))
    monkeypatch.setattr(verify, "FolderStore", lambda: instead)
    assert gate() == 1
    told = capsys.readouterr()
    if clone == "writable":
        assert "Not a directory. Kept here instead: " in told.err
    else:
        assert "Not a directory. The result is printed above instead" in told.err
        printed = told.out[told.out.index('{\n "kind"') : told.out.rindex("}") + 1]
        assert Entry.model_validate_json(printed).passed


def test_a_folder_that_cannot_be_written_is_one_line_before_the_run(
    gate: Gate, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    gate.folder = tmp_path / "file" / "results"
    assert gate() == 4
    assert "cannot be kept" in capsys.readouterr().err
    assert gate.benchmarked == 0


def test_what_cannot_be_kept_where_it_should_is_kept_in_the_clone(
    gate: Gate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Refusing(FolderStore):
        def keep(self, entry: Entry) -> str:
            raise TargetError("resultsBucket: acme: AccessDenied")

    kept: Callable[..., FolderStore] = lambda **_: Refusing(tmp_path / "bucket")  # noqa: E731
    monkeypatch.setattr(verify, "store_for", kept)
    monkeypatch.setattr(verify, "FolderStore", lambda: FolderStore(tmp_path / "clone"))
    assert gate() == 1
    assert "AccessDenied. Kept here instead: " in capsys.readouterr().err
    assert len(list(FolderStore(tmp_path / "clone").entries("dev"))) == 1


def test_a_real_run_against_a_server(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    key = tmp_path / "key"
    key.write_text(KEY)
    with serving(FakeOpenAIServer()) as server:
        given = [
            "--endpoint",
            server.endpoint,
            "--api-key-file",
            str(key),
            "--name",
            "local-dev",
            "--folder",
            str(tmp_path / "r"),
        ]
        code = _run_here(given, monkeypatch)
    assert code == 0
    (kept,) = FolderStore(tmp_path / "r").entries("local-dev")
    assert kept.passed
    assert kept.conformance["failed"] == 0
    assert kept.conformance["passed"] > 5
    record = kept.record()
    assert record is not None
    assert record.measurements[0].figures.completed == 8
    assert KEY not in kept.as_json()


def _run_here(given: list[str], monkeypatch: pytest.MonkeyPatch) -> int:
    """As a user would, but without a timeout inside of the one that this test runs in."""
    run = conformance.main
    quickly = ["-k", "test_service or test_keys or chat", "-o", "timeout=0", "-q", "-p", "no:unraisableexception"]
    monkeypatch.setattr(conformance, "main", lambda arguments: run([*arguments, *quickly]))
    return verify.main([*given, "--", "--concurrency", "4", "--requests", "8", "--max-tokens", "4"])
