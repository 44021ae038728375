"""The example people copy: run as they run it, against a server on loopback."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.smoke_tests.fake_openai_server import KEY, MODEL, FakeOpenAIServer, answer_tokens, serving

REPOSITORY = Path(__file__).resolve().parents[2]


def run_example(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "clients/openai_example.py", *arguments],
        cwd=REPOSITORY, env={"PATH": os.environ["PATH"]} | variables, capture_output=True, text=True, check=False,
    )  # fmt: skip


def expected_answer(prompt: str, max_tokens: int) -> str:
    return "".join(answer_tokens({"messages": [{"role": "user", "content": prompt}], "max_tokens": max_tokens}))


@pytest.mark.parametrize("stream", [[], ["--stream"]], ids=["whole", "stream"])
def test_answers_from_the_environment_alone(stream: list[str]) -> None:
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


def test_options_win_over_the_environment() -> None:
    with serving(FakeOpenAIServer(api_key=None)) as server:
        done = run_example(
            "--endpoint", f"{server.endpoint}/v1", "--model", MODEL, VLLM_BASE_URL="http://x.invalid", VLLM_MODEL="x"
        )
    assert done.returncode == 0, done.stderr
    assert server.bodies[0]["model"] == MODEL
    assert "200 out" in done.stderr


def test_errors_are_one_line_and_say_what_to_set() -> None:
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
