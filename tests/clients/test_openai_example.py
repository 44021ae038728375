"""The example people copy: run as they run it, against a server on loopback."""

import argparse
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from clients import openai_example
from tests.forked_programs import Programs
from tests.smoke_tests.fake_openai_server import KEY, MODEL, FakeOpenAIServer, answer_tokens, serving

REPOSITORY = Path(__file__).resolve().parents[2]


Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run_example(programs: Programs) -> Run:
    def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return programs.run(["clients/openai_example.py", *arguments], {"PATH": os.environ["PATH"], **variables})

    return run


def expected_answer(prompt: str, max_tokens: int) -> str:
    return "".join(answer_tokens({"messages": [{"role": "user", "content": prompt}], "max_tokens": max_tokens}))


@pytest.mark.parametrize("stream", [[], ["--stream"]], ids=["whole", "stream"])
def test_answers_from_the_environment_alone(stream: list[str], run_example: Run) -> None:
    with serving(FakeOpenAIServer()) as server:
        done = run_example(
            "Hello!",
            "--max-tokens",
            "9",
            "--temperature",
            "0",
            *stream,
            VLLM_BASE_URL=server.endpoint,
            VLLM_API_KEY=KEY,
        )
    assert done.returncode == 0, done.stderr
    assert done.stdout == expected_answer("Hello!", 9) + "\n"
    assert server.bodies[0]["model"] == MODEL


def test_options_win_over_the_environment(run_example: Run) -> None:
    with serving(FakeOpenAIServer(api_key=None)) as server:
        done = run_example(
            "--endpoint", f"{server.endpoint}/v1", "--model", MODEL, VLLM_BASE_URL="http://x.invalid", VLLM_MODEL="x"
        )
    assert done.returncode == 0, done.stderr
    assert server.bodies[0]["model"] == MODEL
    assert "200 out" in done.stderr


def test_errors_are_one_line_and_say_what_to_set(run_example: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        nobody = f"http://127.0.0.1:{closed.getsockname()[1]}"
    with serving(FakeOpenAIServer()) as server, serving(FakeOpenAIServer("answers_200_with_an_error")) as broken:
        here = {"VLLM_BASE_URL": server.endpoint}
        cases = [
            (run_example(**here, VLLM_API_KEY="sk-wrong"), "set VLLM_API_KEY"),
            (run_example(**here, VLLM_API_KEY=KEY, VLLM_MODEL="no/such"), "no such model: no/such"),
            (run_example("--endpoint", broken.endpoint, VLLM_API_KEY=KEY), "look at its log"),
        ]
    for done, line in cases:
        assert done.returncode == 1, line
        assert line in done.stderr
        assert done.stderr.count("\n") == 1, done.stderr
        assert "sk-wrong" not in done.stderr
    # The SDK tries a dead address three times, with pauses between.
    unreachable = run_example("--endpoint", nobody)
    assert unreachable.returncode == 1
    assert f"no connection to {nobody}/v1" in unreachable.stderr
    assert unreachable.stderr.count("\n") == 1


def test_after_make_local_nothing_needs_to_be_set(tmp_path: Path, programs: Programs) -> None:
    (tmp_path / "clients").mkdir()
    (tmp_path / ".local").mkdir()
    program = tmp_path / "clients" / "openai_example.py"
    program.write_text((REPOSITORY / "clients" / "openai_example.py").read_text())
    (tmp_path / ".local" / "api-key").write_text(f"{KEY}\n")
    # The shell's own key and proxy are for elsewhere.
    shell = {"PATH": os.environ["PATH"], "OPENAI_API_KEY": "sk-of-openai", "HTTP_PROXY": "http://127.0.0.1:9"}
    with serving(FakeOpenAIServer()) as server:
        (tmp_path / ".local" / "endpoint").write_text(f"{server.endpoint}\n")
        done = programs.run([str(program), "Hi", "--max-tokens", "9"], shell)
    assert done.returncode == 0, done.stderr
    assert KEY not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("url", "variables", "key"),
    [
        ("http://127.0.0.1:8000/v1", {}, "sk-local"),
        ("http://127.0.0.1:8000/v1", {"OPENAI_API_KEY": "sk-of-openai"}, "sk-local"),
        ("http://127.0.0.1:8000/v1", {"VLLM_API_KEY": "sk-mine", "OPENAI_API_KEY": "sk-of-openai"}, "sk-mine"),
        ("https://llm.example.com/v1", {}, "none"),
        ("https://127.evil.example/v1", {}, "none"),
        ("https://llm.example.com/v1", {"OPENAI_API_KEY": "sk-theirs"}, "sk-theirs"),
    ],
)
def test_the_key_of_make_local_is_sent_to_this_machine_only(
    url: str, variables: dict[str, str], key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "api-key").write_text("sk-local\n")
    monkeypatch.setattr(openai_example, "LOCAL", tmp_path)
    for name in ("VLLM_API_KEY", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert openai_example.api_key(url) == key


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("field", ["reasoning", "reasoning_content"])
@pytest.mark.parametrize(
    ("content", "end", "code", "told"),
    [
        (None, "length", False, "max_tokens (9) was reached during the reasoning, before the answer; set a larger --max-tokens"),
        ("Blue.", "stop", True, ""),
        ("Bl", "length", True, "[cut off at 9 tokens; for more, set --max-tokens]"),
        (None, "stop", False, "error: the answer is empty (finish_reason stop)"),
    ],
)  # fmt: skip
def test_a_reasoning_model_never_answers_none(
    stream: bool, field: str, content: str | None, end: str, code: bool, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    message = SimpleNamespace(content=content, refusal=None, **{field: "Let me think"})
    part = SimpleNamespace(message=message, delta=message, finish_reason=end)
    answer = SimpleNamespace(choices=[part], usage=None)
    client: Any = SimpleNamespace(
        chat=SimpleNamespace(completions=SimpleNamespace(create=lambda **_: [answer] if stream else answer))
    )
    options = argparse.Namespace(prompt="Why?", max_tokens=9, temperature=0.0)
    ask = openai_example._print_stream if stream else openai_example._print_answer
    assert ask(client, "m", options) is code
    printed = capsys.readouterr()
    assert printed.out == (f"{content}\n" if content else "")
    assert "[reasoning] Let me think" in printed.err
    assert told in printed.err


def test_a_reader_that_has_enough_and_a_terminal_without_unicode_are_no_tracebacks() -> None:
    with serving(FakeOpenAIServer(api_key=None)) as server:
        command = f'"$0" clients/openai_example.py --stream --max-tokens 20000 --endpoint {server.endpoint} | head -c 5'
        done = subprocess.run(
            ["sh", "-c", command, sys.executable],
            cwd=REPOSITORY, env={"PATH": os.environ["PATH"]}, capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
        shown = subprocess.run(
            [sys.executable, "clients/openai_example.py", "--endpoint", server.endpoint, "--model", "modèle"], cwd=REPOSITORY,
            env={"PATH": os.environ["PATH"], "PYTHONIOENCODING": "ascii"}, capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
    assert (len(done.stdout), done.stderr) == (5, "")
    assert "Traceback" not in shown.stderr


@pytest.mark.parametrize(("user", "header"), [("me", "Basic bWU6"), ("me:pw", "Basic bWU6cHc="), ("", "Bearer k")])
def test_a_user_without_a_password_is_sent_with_the_colon_that_basic_needs(user: str, header: str) -> None:
    with openai_example.connect("http://127.0.0.1:1/v1", "k", user=user) as client:
        sent = {**client.auth_headers, **client.default_headers}
    assert sent["Authorization"] == header
