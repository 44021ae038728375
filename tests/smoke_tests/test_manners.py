"""Every program that asks an endpoint, as a process: passwords, proxies, pipes that close, and signals."""

import http.server
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from infra.web_address import basic
from smoke_tests.history_store import FolderStore
from tests.forked_programs import Programs
from tests.smoke_tests.fake_openai_server import KEY, MODEL, FakeOpenAIServer, serving

ROOT = Path(__file__).resolve().parents[2]
PASSWORD = "pl4nted-sentinel"
USER = f"user:{PASSWORD}"
PYTEST = ("-k", "test_health or test_info", "-p", "no:unraisableexception")
LOAD = ("--requests", "4", "--concurrency", "2", "--max-tokens", "4", "--warmup", "0")
# Each program, with {endpoint} and {folder} to be filled in, and what it reads from standard input.
PROGRAMS: dict[str, tuple[list[str], str]] = {
    "conformance": (["-m", "smoke_tests", "--endpoint", "{endpoint}", "--json", "{folder}/c.json", "--junitxml", "{folder}/c.xml", *PYTEST], ""),
    "availability": (["-m", "smoke_tests", "--endpoint", "{endpoint}", "--availability", "--baseline-seconds", "0", "--duration-seconds", "0.1",
                      "--json", "{folder}/a.json"], ""),
    "benchmark": (["-m", "smoke_tests.benchmark", "--endpoint", "{endpoint}", *LOAD, "--json", "{folder}/b.json"], ""),
    "example": (["clients/openai_example.py", "--endpoint", "{endpoint}", "Hello"], ""),
    "example, streamed": (["clients/openai_example.py", "--endpoint", "{endpoint}", "--stream", "Hello"], ""),
    "chat": (["-m", "clients.chat", "--endpoint", "{endpoint}"], "Hello\n"),
}  # fmt: skip


def environment(**more: str) -> dict[str, str]:
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
    return {**kept, "PYTHONPATH": str(ROOT), "NO_COLOR": "1", "OPENAI_API_KEY": "", **more}


Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run(programs: Programs) -> Run:
    def run_one(name: str, endpoint: str, folder: Path, **more: str) -> subprocess.CompletedProcess[str]:
        arguments, given = PROGRAMS[name]
        command = [word.replace("{endpoint}", endpoint).replace("{folder}", str(folder)) for word in arguments]
        return programs.run(command, environment(**more), given)

    return run_one


class Recording(http.server.BaseHTTPRequestHandler):
    """A proxy that forwards nothing and writes down what it is asked."""

    asked: list[str]

    def do_GET(self) -> None:
        self.asked.append(f"{self.command} {self.path} {self.headers}")
        self.send_error(502)

    do_POST = do_CONNECT = do_GET  # noqa: N815 - as the base class names them

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


@pytest.fixture
def proxy() -> Iterator[tuple[list[str], dict[str, str]]]:
    """What a proxy was asked, and an environment that names it."""
    asked: list[str] = []
    handler = type("Handler", (Recording,), {"asked": asked})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        address = f"http://proxyuser:{PASSWORD}@127.0.0.1:{server.server_address[1]}"
        names = ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY")
        yield asked, dict.fromkeys(names, address)
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("name", PROGRAMS)
def test_this_machine_is_asked_without_a_proxy(
    name: str, tmp_path: Path, proxy: tuple[list[str], dict[str, str]], run: Run
) -> None:
    asked, variables = proxy
    with serving(FakeOpenAIServer()) as server:
        done = run(name, server.endpoint, tmp_path, VLLM_API_KEY=KEY, **variables)
    assert (done.returncode, asked) == (0, []), done.stderr + done.stdout


@pytest.mark.parametrize("name", PROGRAMS)
def test_another_machine_is_asked_through_the_proxy(
    name: str, tmp_path: Path, proxy: tuple[list[str], dict[str, str]], run: Run
) -> None:
    asked, variables = proxy
    wait = {"VLLM_API_KEY": KEY}
    arguments, _ = PROGRAMS[name]
    if "clients" not in arguments[0] and "clients" not in arguments[1]:
        PROGRAMS["here"] = ([*arguments, "--wait-seconds", "1"], "")
        name = "here"
    done = run(name, "http://llm.invalid", tmp_path, **wait, **variables)
    PROGRAMS.pop("here", None)
    assert done.returncode != 0
    assert any("http://llm.invalid/" in line for line in asked)
    assert "Traceback" not in done.stderr
    assert PASSWORD not in done.stderr + done.stdout


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_password_in_the_endpoint_is_sent_as_basic_auth_and_written_nowhere(
    name: str, tmp_path: Path, run: Run
) -> None:
    with serving(FakeOpenAIServer(api_key=basic(USER))) as server:
        endpoint = server.endpoint.replace("http://", f"http://{USER}@")
        done = run(name, endpoint, tmp_path)
        assert done.returncode == 0, done.stderr + done.stdout
        both = run(name, endpoint, tmp_path, VLLM_API_KEY=KEY)
        refused = run(name, endpoint.replace(USER, f"{USER}-wrong"), tmp_path)
    written = [path.read_text(encoding="utf-8") for path in tmp_path.rglob("*") if path.is_file()]
    assert len(written) == sum("{folder}" in word for word in PROGRAMS[name][0])
    secret = basic(USER).removeprefix("Basic ")
    for text in (*written, done.stdout, done.stderr, both.stderr, refused.stdout, refused.stderr):
        assert PASSWORD not in text
        assert secret not in text
    assert both.returncode != 0
    assert both.stderr.count("\n") == 1
    assert "VLLM_API_KEY" in both.stderr
    assert refused.returncode != 0


def test_the_report_of_a_record_with_a_password_does_not_show_it(tmp_path: Path, programs: Programs, run: Run) -> None:
    """A record of an older version."""
    with serving(FakeOpenAIServer()) as server:
        assert run("benchmark", server.endpoint, tmp_path, VLLM_API_KEY=KEY).returncode == 0
    record = tmp_path / "b.json"
    record.write_text(record.read_text().replace("http://127", f"http://{USER}@127"))
    page = tmp_path / "r.html"
    for arguments in (["report", str(record), "-o", str(page)], ["compare", str(record), str(record)]):
        done = programs.run(["-m", "smoke_tests.benchmark", *arguments], environment())
        assert PASSWORD not in done.stdout + done.stderr
    assert PASSWORD not in page.read_text()


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize(
    "arguments",
    [
        ["infra.planning", "dev", "--json"], ["infra.planning", "dev"], ["smoke_tests.history", "--name", "x", "--folder", "."],
        ["infra.planning", "--help"], ["smoke_tests.benchmark", "--help"], ["smoke_tests.keys", "--help"],
        ["smoke_tests.teardown", "--help"], ["clients.chat", "--help"],
    ],
    ids=" ".join,
)  # fmt: skip
def test_a_reader_that_leaves_is_no_error_message(arguments: list[str], unbuffered: str) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(
            [sys.executable, "-m", *arguments], cwd=ROOT, env=environment(PYTHONUNBUFFERED=unbuffered), stdout=writing,
            stderr=subprocess.PIPE, text=True, timeout=50,
        )  # fmt: skip
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.parametrize("name", ["benchmark", "conformance", "availability"])
def test_a_reader_that_leaves_costs_no_results(name: str, tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with serving(FakeOpenAIServer()) as server:
        arguments = [
            word.replace("{endpoint}", server.endpoint).replace("{folder}", str(tmp_path)) for word in PROGRAMS[name][0]
        ]
        try:
            done = subprocess.run(
                [sys.executable, *arguments], cwd=ROOT, env=environment(VLLM_API_KEY=KEY), stdout=writing, stderr=subprocess.PIPE,
                text=True, timeout=50,
            )  # fmt: skip
        finally:
            os.close(writing)
    assert (done.returncode, done.stderr) == (0, "")
    assert all(json.loads(path.read_text()) for path in tmp_path.glob("*.json"))
    assert list(tmp_path.glob("*.json"))


@pytest.mark.parametrize("arguments", [["infra.planning", "dev"], ["infra.planning", "dev", "--json"]], ids=" ".join)
def test_a_full_or_closed_standard_output_is_one_line(arguments: list[str]) -> None:
    for redirection, code in (("> /dev/full", 1), (">&-", 0)):
        command = f"{sys.executable} -m {' '.join(arguments)} {redirection}"
        done = subprocess.run(
            ["sh", "-c", command], cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=50
        )
        assert done.returncode == code, done.stderr
        assert done.stderr.count("\n") == (1 if code else 0)


@pytest.mark.parametrize(
    ("number", "code", "word"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")]
)
@pytest.mark.parametrize(
    "arguments",
    [
        ["smoke_tests", "-k", "health"],
        ["smoke_tests.benchmark"],
        ["smoke_tests.verify", "--folder", "{folder}"],
        ["clients.chat"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_a_signal_while_it_waits_is_one_line(
    arguments: list[str], number: int, code: int, word: str, tmp_path: Path, programs: Programs
) -> None:
    """The endpoint accepts connections and answers nothing."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        command = [each.replace("{folder}", str(tmp_path)) for each in arguments]
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        process = programs.start(
            ["-m", *command, "--endpoint", endpoint, "--model", MODEL], environment(VLLM_API_KEY=KEY), "Hello\n"
        )
        connection, _ = silent.accept()
        assert connection.recv(1)
        process.send_signal(number)
        done = process.wait(20)
        connection.close()
    assert done.returncode == code, done.stderr
    assert done.stderr.strip().splitlines()[-1:] == [word], done.stderr
    assert "Traceback" not in done.stdout + done.stderr


def test_a_signal_during_the_tests_keeps_the_results(tmp_path: Path) -> None:
    with serving(FakeOpenAIServer()) as server:
        process = subprocess.Popen(
            [sys.executable, "-m", "smoke_tests.verify", "--endpoint", server.endpoint, "--name", "x", "--folder", str(tmp_path)],
            cwd=ROOT, env=environment(VLLM_API_KEY=KEY), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert process.stdout
        until = time.monotonic() + 40
        while "PASSED" not in (line := process.stdout.readline()):
            assert line, process.stderr and process.stderr.read()
            assert time.monotonic() < until
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=40)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    (kept,) = FolderStore(tmp_path).entries("x")
    assert kept.reasons[0] == "interrupted during the conformance tests"
    assert kept.conformance["passed"] >= 1
