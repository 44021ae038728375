"""The chat in the terminal: on a real pseudo-terminal or in a pipe, against a server on loopback and the real gateway."""

import os
import pty
import re
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar, cast

import httpx2
import pytest

from clients import chat as chat_program
from clients.answer import Answer
from local.preflight import free_port
from tests.forked_programs import Programs
from tests.smoke_tests.fake_openai_server import KEY, MODEL, FakeOpenAIServer, answer_tokens, serving
from tests.smoke_tests.gateway_process import gateway

REPOSITORY = Path(__file__).resolve().parents[2]
SECONDS = 20.0
Piped = Callable[..., subprocess.CompletedProcess[str]]
COLORS = re.compile(r"\x1b\[[0-9;]*m")


def expected(*messages: str, max_tokens: int) -> str:
    roles = ("user", "assistant")
    asked = [{"role": roles[index % 2], "content": text} for index, text in enumerate(messages)]
    return "".join(answer_tokens({"messages": asked, "max_tokens": max_tokens}))


class Terminal:
    """The chat as a person has it: keys in, a screen out. `stop` kills it, `wait` returns its exit code."""

    def __init__(self, file: int, stop: Callable[[], None], wait: Callable[[], int]) -> None:
        self.file, self._stop, self._wait = file, stop, wait
        self.code: int | None = None
        self.screen = ""
        self._seen = 0

    def shows(self, words: str) -> str:
        """Wait for words after those waited for before; returns what came up to them."""
        deadline = time.monotonic() + SECONDS
        while words not in self.screen[self._seen :]:
            ready, _, _ = select.select([self.file], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, f"waited for {words!r}: {self.screen!r}"
            try:
                self.screen += os.read(self.file, 65536).decode(errors="replace")
            except OSError:
                pytest.fail(f"it ended before {words!r}: {self.screen!r}")
        start, self._seen = self._seen, self.screen.index(words, self._seen) + len(words)
        return self.screen[start : self._seen]

    def type(self, text: str) -> None:
        os.write(self.file, text.encode())

    def ends(self) -> int:
        try:
            while part := os.read(self.file, 65536):
                self.screen += part.decode(errors="replace")
        except OSError:
            pass
        self.code = self._wait()
        return self.code

    def close(self) -> None:
        if self.code is None:
            self._stop()
            self._wait()
        os.close(self.file)


InTerminal = Callable[..., AbstractContextManager[Terminal]]


def environment(**variables: str) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], **variables}


@contextmanager
def terminal_of(command: list[str], folder: Path = REPOSITORY, **variables: str) -> Iterator[Terminal]:
    """A command in a terminal."""
    pid, file = pty.fork()
    if pid == 0:
        os.chdir(folder)
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # a test run in the background ignores it, and its children too
        os.execvpe(command[0], command, environment(TERM="xterm", **variables))  # noqa: S606 - no shell is wanted
    chat = Terminal(
        file, lambda: os.kill(pid, signal.SIGKILL), lambda: os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    )
    try:
        yield chat
    finally:
        chat.close()


@pytest.fixture
def terminal(programs: Programs) -> InTerminal:
    """The chat in a terminal."""

    @contextmanager
    def run(*arguments: str, **variables: str) -> Iterator[Terminal]:
        file, inner = pty.openpty()
        process = programs.start_in_terminal(
            ["-m", "clients.chat", *arguments], environment(TERM="xterm", **variables), inner
        )
        os.close(inner)
        chat = Terminal(file, lambda: process.send_signal(signal.SIGKILL), lambda: process.wait(SECONDS).returncode)
        try:
            yield chat
        finally:
            chat.close()

    return run


@pytest.fixture
def piped(programs: Programs) -> Piped:
    """The chat with a pipe instead of a terminal."""

    def run(given: str | bytes, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return programs.run(["-m", "clients.chat", *arguments], environment(**variables), given, SECONDS)

    return run


def output_of(
    command: list[str], text: str, folder: Path = REPOSITORY, **variables: str
) -> subprocess.CompletedProcess[str]:
    """A command with a pipe instead of a terminal."""
    return subprocess.run(
        command, cwd=folder, input=text, capture_output=True, env=environment(**variables), text=True, check=False, timeout=SECONDS,
    )  # fmt: skip


def test_a_conversation_in_the_terminal(terminal: InTerminal) -> None:
    with (
        serving(FakeOpenAIServer(token_seconds=0.01)) as server,
        terminal("--endpoint", server.endpoint, "--max-tokens", "9", VLLM_API_KEY=KEY) as chat,
    ):
        chat.shows(f"{MODEL} at {server.endpoint}/v1")
        chat.shows("> ")
        chat.type("Hello!\n")
        first = expected("Hello!", max_tokens=9)
        chat.shows(first)
        assert re.search(
            r"9 tokens, [\d.]+ tokens/s, first token after [\d.]+ s", chat.shows(" s, cut off at 9 tokens")
        )
        chat.type("More\n")
        chat.shows("first token after")
        assert [message["content"] for message in server.bodies[1]["messages"]] == ["Hello!", first, "More"]
        chat.type("/system Be brief.\n")
        chat.shows("The system prompt is set")
        chat.type("Again\n")
        chat.shows("first token after")
        assert [m["role"] for m in server.bodies[2]["messages"]] == ["system", "user"]
        chat.type("/reset\n/model\n")
        chat.shows(f"* {MODEL}")
        chat.type("/model no/such\n")
        chat.shows(f"no/such is not served here; set one of: {MODEL}")
        chat.type("/sytem x\n")
        chat.shows("/sytem is not a command; /help lists them")
        chat.shows("> ")
        chat.type("\x04")
        assert chat.ends() == 0
    assert len(server.bodies) == 3


def test_ctrl_c_stops_the_answer_and_not_the_chat(terminal: InTerminal) -> None:
    with (
        serving(FakeOpenAIServer(token_seconds=0.05)) as server,
        terminal("--endpoint", server.endpoint, VLLM_API_KEY=KEY) as chat,
    ):
        chat.shows("> ")
        chat.type("\x03")
        chat.type("\n")
        chat.shows("> ")
        chat.type("Hello!\n")
        chat.shows(expected("Hello!", max_tokens=4))
        chat.type("\x03")
        chat.shows("stopped")
        chat.type("/quit\n")
        assert chat.ends() == 0


def test_ctrl_c_between_an_answer_and_the_prompt_does_not_end_the_chat(monkeypatch: pytest.MonkeyPatch) -> None:
    class Interrupted:
        model, base_url, stand_in = MODEL, "http://127.0.0.1/v1", False
        asked: ClassVar[list[str]] = []

        def ask(self, question: str) -> None:
            self.asked.append(question)
            raise KeyboardInterrupt

        def command(self, line: str) -> bool:
            raise KeyboardInterrupt

    lines = iter(["one", "/model", "two", "/quit"])
    monkeypatch.setattr(chat_program, "_read_line", lambda: next(lines))
    assert chat_program._converse(cast(chat_program.Chat, Interrupted())) == 0
    assert Interrupted.asked == ["one", "two"]


def test_an_error_is_one_line_and_the_chat_goes_on(terminal: InTerminal) -> None:
    with (
        serving(FakeOpenAIServer(cold_requests=1)) as server,
        terminal("--endpoint", server.endpoint, "--max-tokens", "9", VLLM_API_KEY=KEY) as chat,
    ):
        chat.shows("> ")
        chat.type("One\n")
        assert "Traceback" not in chat.shows("no replica is ready")
        chat.type("Two\n")
        chat.shows(expected("Two", max_tokens=9))
        assert [message["content"] for message in server.bodies[-1]["messages"]] == ["Two"], "a failed question is kept"
        chat.type("/quit\n")
        assert chat.ends() == 0


@pytest.mark.parametrize(
    ("arrivals", "rate"),
    [
        ([0, 1, 2, 3], "1.0 tokens/s"),
        ([0, 0, 0, 0], None),
        ([0, 0.0005, 0.001, 0.0015], None),
        ([0, 0, 0, 1], "1.0 tokens/s"),
        ([0, 0, 1, 1], "2.0 tokens/s"),
    ],
)
def test_tokens_that_arrived_at_once_have_no_speed(
    arrivals: list[float], rate: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr("clients.answer.time.monotonic", lambda: now[0])
    answer = Answer()
    for seconds in arrivals:
        now[0] = 100.0 + seconds
        delta = SimpleNamespace(content="word", reasoning=None)
        choice = SimpleNamespace(finish_reason=None, delta=delta)
        assert list(answer.read(SimpleNamespace(usage=None, choices=[choice]))) == [("word", False)]
    told = answer.figures(64)
    assert ("tokens/s" not in told) if rate is None else (rate in told)


def test_a_pipe_is_one_question_and_stdout_the_answer_alone(piped: Piped) -> None:
    with serving(FakeOpenAIServer(token_seconds=0.01)) as server:
        given = ("--endpoint", server.endpoint, "--max-tokens", "9")
        done = piped("/system Be brief.\nLine one\nline two\n", *given, VLLM_API_KEY=KEY)
        wrong = piped("hi\n", *given, VLLM_API_KEY="sk-wrong")
    assert (done.returncode, done.stdout) == (0, "".join(answer_tokens(server.bodies[0])) + "\n"), done.stderr
    assert server.bodies[0]["messages"][1]["content"] == "Line one\nline two"
    assert "tokens/s" in done.stderr
    assert "\x1b" not in done.stdout + done.stderr
    assert [m["role"] for m in server.bodies[0]["messages"]] == ["system", "user"]
    assert (wrong.returncode, wrong.stdout, wrong.stderr.count("\n")) == (1, "", 1)
    assert "rejected the API key; set VLLM_API_KEY" in wrong.stderr


def test_text_in_a_pipe_is_utf_8_whatever_the_locale_or_what_its_mark_names(piped: Piped) -> None:
    with serving(FakeOpenAIServer()) as server:
        given = ("--endpoint", server.endpoint, "--max-tokens", "9")
        for data in ("\ufeff/system Be brief.\r\nein café\r\n".encode(), "ein café\n".encode("utf-16")):
            done = piped(data, *given, VLLM_API_KEY=KEY)
            assert done.returncode == 0, done.stderr
        variables: dict[str, str]
        for variables in (
            {"PYTHONIOENCODING": "ascii"},
            {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
        ):
            done = output_of(
                [sys.executable, "-m", "clients.chat", *given], "ein café\n", REPOSITORY, VLLM_API_KEY=KEY, **variables
            )
            assert done.returncode == 0, done.stderr
        asked = [[message["content"] for message in body["messages"]] for body in server.bodies]
        wrong = piped("café".encode("latin-1"), "--endpoint", server.endpoint, VLLM_API_KEY=KEY)
        assert len(server.bodies) == 4, "a damaged question is not asked"
    assert asked == [["Be brief.", "ein café"], ["ein café"], ["ein café"], ["ein café"]]
    assert (wrong.returncode, wrong.stdout) == (1, "")
    assert "not valid UTF-8 (byte 0xe9 at position 3). Convert it first, for example with: iconv" in wrong.stderr


def test_a_question_in_a_pipe_keeps_its_indentation_and_special_line_separators(piped: Piped) -> None:
    text = "    def f():\n        pass\x0c\u2028# end"
    with serving(FakeOpenAIServer()) as server:
        piped(text + "\n\n", "--endpoint", server.endpoint, "--max-tokens", "9", VLLM_API_KEY=KEY)
        piped("/etc/hosts: what is it?", "--endpoint", server.endpoint, "--max-tokens", "9", VLLM_API_KEY=KEY)
    assert [b["messages"][0]["content"] for b in server.bodies] == [text, "/etc/hosts: what is it?"]


@pytest.mark.parametrize(
    ("text", "code", "said"),
    [
        ("", 1, "there is no question on stdin"),
        (" \n\n", 1, "there is no question on stdin"),
        ("/model\n", 0, f"* {MODEL}"),
        ("/quit\nnot asked\n", 0, ""),
    ],
)
def test_a_pipe_without_a_question_asks_nothing_and_says_so(text: str, code: int, said: str, piped: Piped) -> None:
    with serving(FakeOpenAIServer()) as server:
        done = piped(text, "--endpoint", server.endpoint, VLLM_API_KEY=KEY)
    assert (done.returncode, done.stdout, server.bodies) == (code, "", [])
    assert said in done.stderr


@pytest.mark.parametrize(("redirection", "code"), [("<&-", 1), (">&-", 0), ("2>&-", 0)])
def test_a_closed_stream_is_not_a_traceback(redirection: str, code: int) -> None:
    with serving(FakeOpenAIServer()) as server:
        command = f'exec "$0" -m clients.chat --max-tokens 9 --endpoint "$1" {redirection}'
        done = output_of(["sh", "-c", command, sys.executable, server.endpoint], "hi\n", VLLM_API_KEY=KEY)
    assert (done.returncode, "Traceback" in done.stderr) == (code, False), done.stderr


def test_in_a_terminal_a_pasted_text_is_one_question_and_a_path_is_not_a_command(terminal: InTerminal) -> None:
    with (
        serving(FakeOpenAIServer()) as server,
        terminal("--endpoint", server.endpoint, "--max-tokens", "9", VLLM_API_KEY=KEY) as chat,
    ):
        chat.shows("> ")
        chat.type("\x1b[200~one\ntwo\n/api/chat\x1b[201~\n")
        chat.shows("first token after")
        chat.type("/usr/bin/env, what is it?\n")
        chat.shows("first token after")
        chat.shows("> ")
        chat.type("\x03")
        chat.type("\n")  # a Ctrl-C that arrives before the prompt waits for input takes effect with the next line
        chat.shows("Ctrl-D or /quit ends.")
        chat.type("/quit\n")
        assert chat.ends() == 0
    assert [body["messages"][-1]["content"] for body in server.bodies] == [
        "one\ntwo\n/api/chat",
        "/usr/bin/env, what is it?",
    ]


def test_answers_can_be_saved_while_the_prompt_stays_on_the_terminal(tmp_path: Path) -> None:
    saved = tmp_path / "answers"
    with serving(FakeOpenAIServer()) as server:
        command = f'exec "$0" -m clients.chat --max-tokens 9 --endpoint "$1" > {saved}'
        with terminal_of(["sh", "-c", command, sys.executable, server.endpoint], VLLM_API_KEY=KEY) as chat:
            chat.shows("> ")
            chat.type("hi\n")
            chat.shows("first token after")
            chat.type("/quit\n")
            assert chat.ends() == 0
    assert saved.read_text() == expected("hi", max_tokens=9) + "\n"


def test_an_error_cannot_move_the_cursor(capsys: pytest.CaptureFixture[str]) -> None:
    chat_program._report("model \x1b]0;title\x07\x9b2J is not served")
    chat_program._say("\x1b[2Jname")
    assert capsys.readouterr().err == "error: model ]0;title2J is not served\n[2Jname\n"


def test_what_is_not_there_is_one_line_that_says_how_to_start_it(piped: Piped) -> None:
    done = piped("hi\n", "--endpoint", f"http://127.0.0.1:{free_port()}")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "start it with make local, or name another: make chat STACK=dev, or ENDPOINT=URL" in done.stderr


def test_while_a_cold_engine_wakes_the_terminal_says_so(tmp_path: Path, terminal: InTerminal) -> None:
    replicas = tmp_path / "replicas"
    with serving(FakeOpenAIServer(api_key=None)) as server:
        replicas.write_text(f"{server.endpoint}\n")
        with gateway(replicas) as endpoint, terminal("--endpoint", endpoint, "--max-tokens", "9") as chat:
            chat.shows("> ")
            replicas.write_text("")
            cold_within(endpoint)
            chat.type("Hello!\n")
            assert re.search(r"waking the engine, \d+ s", COLORS.sub("", chat.shows("waking the engine, 2 s")))
            replicas.write_text(f"{server.endpoint}\n")
            chat.shows(expected("Hello!", max_tokens=9))
            chat.shows("> ")
            chat.type("\x04")
            assert chat.ends() == 0


def cold_within(endpoint: str) -> None:
    deadline = time.monotonic() + SECONDS
    while httpx2.get(f"{endpoint}/info").json()["replicas"]["ready"]:
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A clone with the environment of make local, as far as make chat needs it."""
    for name in ("clients", "infra", "smoke_tests", "image", "local"):
        (tmp_path / name).symlink_to(REPOSITORY / name)
    shutil.copy(REPOSITORY / "Makefile", tmp_path)
    (tmp_path / "clients").unlink()
    shutil.copytree(REPOSITORY / "clients", tmp_path / "clients")
    python = tmp_path / ".venv-local" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    (tmp_path / ".venv-local" / "made-from").touch()
    return tmp_path


def started_by_make_local(clone: Path, endpoint: str) -> None:
    (clone / ".local").mkdir()
    (clone / ".local" / "endpoint").write_text(f"{endpoint}\n")
    (clone / ".local" / "api-key").write_text(f"{KEY}\n")


def test_make_chat_finds_what_make_local_started(clone: Path) -> None:
    with serving(FakeOpenAIServer()) as server:
        started_by_make_local(clone, server.endpoint)
        done = output_of(["make", "chat", "MAX_TOKENS=9"], "hi\n", clone)
        assert (done.returncode, done.stdout) == (0, expected("hi", max_tokens=9) + "\n"), done.stderr
        with terminal_of(["make", "chat"], clone) as chat:
            chat.shows("> ")
            chat.type("/quit\n")
            assert chat.ends() == 0
    assert KEY not in done.stderr + chat.screen


def test_make_chat_asks_a_deployed_stack(clone: Path) -> None:
    with serving(FakeOpenAIServer()) as server:
        pulumi = clone / "bin" / "pulumi"
        pulumi.parent.mkdir()
        pulumi.write_text(
            f'#!/bin/sh\necho \'{{"endpoint": "{server.endpoint}", "apiKeySecretName": "keys", "namespace": "dev"}}\'\n'
        )
        kubectl = clone / "bin" / "kubectl"
        kubectl.write_text(f'#!/bin/sh\nprintf \'{{"default": "{KEY}"}}\' | base64\n')
        for program in (pulumi, kubectl):
            program.chmod(0o755)
        path = f"{pulumi.parent}:{os.environ['PATH']}"
        done = output_of(["make", "chat", "STACK=dev", "MAX_TOKENS=9"], "hi\n", clone, PATH=path)
    assert (done.returncode, done.stdout) == (0, expected("hi", max_tokens=9) + "\n"), done.stderr
    assert server.bodies[0]["model"] == MODEL
