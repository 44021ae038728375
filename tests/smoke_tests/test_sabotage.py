"""Tests of the conformance tests: a sound endpoint passes all of them, and each fault fails the tests named for it."""

import ast
import json
import subprocess
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator, Sequence
from itertools import zip_longest
from pathlib import Path

import pytest

from smoke_tests import test_keys, test_load
from smoke_tests.conformance import STASH, Conformance, ConformancePlugin, run_conformance
from smoke_tests.keys_document import KeysFile
from smoke_tests.target import Target
from tests.forked_programs import Programs
from tests.smoke_tests.fake_openai_server import KEY, MODEL, FakeOpenAIServer, serving
from tests.smoke_tests.faults import FAULTS
from tests.smoke_tests.gateway_process import gateway

REPOSITORY = Path(__file__).resolve().parents[2]

CONFORMANCE = REPOSITORY / "smoke_tests"

# No timeout: an inner one would cancel the timeout of the calling test. No garbage collection at the end: it would take
# a third of the time. Python's own tracebacks: pytest's parse each file that a failure passes through. No plugins that
# these tests do not use: hundreds of sessions start here.
UNUSED = (
    "unraisableexception threadexception doctest pastebin stepwise faulthandler legacypath setuponly setupplan unittest "
    "debugging recwarn logging subtests junitxml"
)
QUICKLY = ("-o", "timeout=0", "-q", "--capture=no", "--tb=native", *(f"-pno:{plugin}" for plugin in UNUSED.split()))


SHARE = 12  # faults of a file that share a session of pytest: starting one takes longer than most of its tests


class SabotagePlugin(ConformancePlugin):
    """Runs the tests of one file once for each fault, against a server with that fault.

    The clean-up after a fault's last test is that of a session: the next fault starts with fixtures of its own.
    """

    def __init__(self, faults: Sequence[str], folder: Path) -> None:
        super().__init__(Conformance(Target("http://127.0.0.1:9", KEY, MODEL)))
        self._faults, self._folder = faults, folder
        self.failing: dict[str, set[str]] = {}

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Run each fault's tests."""
        for fault in self._faults:
            self.results.clear()
            keys_file = self._folder / f"keys-{fault}"
            keys_file.write_text(f"{KEY}\n")
            # Slow enough that a buffer delays the first chunk by more than this machine's jitter.
            token_seconds = 0.002 if fault == "buffers_the_stream" else 0.0001
            items = [item for item in session.items if wanted(fault, item)]
            with serving(FakeOpenAIServer(fault, token_seconds=token_seconds, keys_file=keys_file)) as server:
                target = Target(server.endpoint, KEY, MODEL)
                session.config.stash[STASH] = Conformance(target, keys=KeysFile(keys_file))
                for item, following in zip_longest(items, items[1:]):
                    session.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
            self.failing[fault] = {
                nodeid.rpartition("::")[2] for nodeid, result in self.results.items() if result.outcome == "failed"
            }
        return True


def wanted(fault: str, item: pytest.Item) -> bool:
    """Only the tests named, if others of the file may fail, too: the whole file takes several times as long."""
    caught_by = FAULTS[fault]
    return not caught_by.breaks_much or item.name.partition("[")[0] in {
        test.partition("[")[0] for test in caught_by.tests
    }


def shares() -> Iterator[tuple[str, tuple[str, ...]]]:
    """Each file with some of its faults."""
    for file in sorted({fault.file for fault in FAULTS.values()}):
        faults = [name for name, fault in FAULTS.items() if fault.file == file]
        for start in range(0, len(faults), SHARE):
            yield file, tuple(faults[start : start + SHARE])


def failed(outcomes: dict[str, str]) -> set[str]:
    return {name for name, outcome in outcomes.items() if outcome == "failed"}


@pytest.fixture
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten waits that take minutes on AWS."""
    monkeypatch.setattr(KeysFile, "notice_seconds", 0.3)
    monkeypatch.setattr(test_keys, "ROTATION_POLL_SECONDS", 0.01)
    monkeypatch.setattr(test_load, "GONE_SECONDS", 1.0)


@pytest.fixture
def keys_file(tmp_path: Path) -> Path:
    file = tmp_path / "keys"
    file.write_text(f"{KEY}\n")
    return file


@pytest.mark.usefixtures("_impatient")
@pytest.mark.parametrize(
    ("file", "faults"), list(shares()), ids=lambda value: value if isinstance(value, str) else value[0]
)
def test_each_fault_fails_its_own_tests(file: str, faults: tuple[str, ...], tmp_path: Path) -> None:
    plugin = SabotagePlugin(faults, tmp_path)
    pytest.main(
        ["-c", str(CONFORMANCE / "pytest.ini"), "--rootdir", str(CONFORMANCE), *QUICKLY, str(CONFORMANCE / file)],
        plugins=[plugin],
    )
    assert list(plugin.failing) == list(faults)
    for fault, failing in plugin.failing.items():
        caught_by = FAULTS[fault]
        assert caught_by.tests <= failing, fault
        assert caught_by.breaks_much or failing == caught_by.tests, fault


@pytest.mark.parametrize("file", sorted({fault.file for fault in FAULTS.values()}))
def test_every_test_has_a_fault_that_it_catches(file: str) -> None:
    functions = [node for node in ast.parse((CONFORMANCE / file).read_text()).body if isinstance(node, ast.FunctionDef)]
    tests = {function.name for function in functions if function.name.startswith("test_")}
    caught = {test.partition("[")[0] for fault in FAULTS.values() if fault.file == file for test in fault.tests}
    assert tests == caught


def test_every_file_of_the_conformance_tests_is_sabotaged() -> None:
    assert {path.name for path in CONFORMANCE.glob("test_*.py")} == {fault.file for fault in FAULTS.values()}


def test_the_real_gateway_passes_all_of_them(tmp_path: Path, keys_file: Path) -> None:
    report, replicas = tmp_path / "report.json", tmp_path / "replicas"
    with serving(FakeOpenAIServer(api_key=None)) as server:
        replicas.write_text(server.endpoint)
        with gateway(replicas, keys=f"file:{keys_file}", key=KEY) as endpoint:
            conformance = Conformance(Target(endpoint, KEY, MODEL), keys=KeysFile(keys_file))
            run_conformance(conformance, report=report, pytest_arguments=QUICKLY)
    outcomes = {test["name"]: test["outcome"] for test in json.loads(report.read_text())["tests"]}
    assert len(outcomes) > 90
    assert failed(outcomes) == set()


def test_a_sound_server_with_embeddings_passes_all_of_them(tmp_path: Path, keys_file: Path) -> None:
    report = tmp_path / "report.json"
    server = FakeOpenAIServer(keys_file=keys_file)
    server.embeds = True
    with serving(server):
        conformance = Conformance(Target(server.endpoint, KEY, MODEL), keys=KeysFile(keys_file))
        assert run_conformance(conformance, report=report, pytest_arguments=QUICKLY) == 0
    tests = json.loads(report.read_text())["tests"]
    assert [test["name"] for test in tests if test["outcome"] == "skipped"] == [
        "test_what_the_model_is_not_for_is_refused[/v1/embeddings]"
    ]


SmokeTests = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def smoke_tests(programs: Programs) -> SmokeTests:
    def run(*arguments: str, key: str | None = None) -> subprocess.CompletedProcess[str]:
        environment = {"PATH": "/usr/bin:/bin"} | ({"VLLM_API_KEY": key} if key else {})
        return programs.run(["-m", "smoke_tests", *arguments], environment)

    return run


def test_a_right_endpoint_passes_and_the_key_shows_nowhere(tmp_path: Path, smoke_tests: SmokeTests) -> None:
    report = tmp_path / "junit.xml"
    with serving(FakeOpenAIServer()) as server:
        done = smoke_tests("--endpoint", f"{server.endpoint}/v1/", "--junit", str(report), key=KEY)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{server.endpoint} serves {MODEL}" in done.stdout
    assert "no API key was given" not in done.stdout
    suite = next(ET.parse(report).getroot().iter("testsuite"))  # noqa: S314
    assert int(str(suite.get("tests"))) >= 40
    assert KEY not in done.stdout + done.stderr + report.read_text()


def test_a_wrong_endpoint_exits_1_and_the_key_shows_nowhere(tmp_path: Path, smoke_tests: SmokeTests) -> None:
    key_file = tmp_path / "key"
    key_file.write_text(f'{{"default": "{KEY}"}}')
    with serving(FakeOpenAIServer("accepts_any_key")) as server:
        done = smoke_tests("--endpoint", server.endpoint, "--api-key-file", str(key_file), "-k", "key or chat")
    assert done.returncode == 1
    assert "FAILED" in done.stdout
    assert KEY not in done.stdout + done.stderr


def test_only_the_key_tests_are_skipped_without_keys(tmp_path: Path, smoke_tests: SmokeTests) -> None:
    with serving(FakeOpenAIServer(api_key=None)) as server:
        done = smoke_tests("--endpoint", server.endpoint, "-k", "key or health or models")
    assert done.returncode == 0, done.stdout
    assert done.stdout.count("SKIPPED") >= 1
    assert "no API key was given and the endpoint answers without one" in done.stdout
    assert "4 passed, 9 skipped" in done.stdout
