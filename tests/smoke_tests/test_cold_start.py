"""Waiting for an endpoint: through refusals that pass, not through those that stay."""

import io
import json
import socket

import pytest

from smoke_tests import cold_start
from smoke_tests.cold_start import wait_for_answer
from smoke_tests.errors import TargetError
from smoke_tests.progress import ProgressLine
from smoke_tests.target import Target
from tests.smoke_tests.fake_openai_server import KEY, MODEL, FakeOpenAIServer, serving


@pytest.fixture(autouse=True)
def _fast_polls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cold_start, "POLL_SECONDS", 0.02)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_waits_while_nothing_is_ready_and_says_so() -> None:
    terminal = Terminal()
    with serving(FakeOpenAIServer(cold_requests=5)) as server:
        answering = wait_for_answer(Target(server.endpoint, KEY, MODEL), 20, ProgressLine(stream=terminal))
        assert server.cold_requests == 0
    assert answering.target.model == MODEL
    assert answering.waited_seconds >= 5 * 0.02
    assert f"waiting for {server.endpoint}: HTTP 503" in terminal.getvalue()
    assert terminal.getvalue().endswith("\r\x1b[K"), "the progress line stays on the terminal"


def test_waits_for_a_server_that_does_not_listen_yet() -> None:
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        address = nobody.getsockname()
    with pytest.raises(TargetError, match=r"did not answer within 0.2 s \(ConnectError.*--wait-seconds"):
        wait_for_answer(Target(f"http://127.0.0.1:{address[1]}", KEY, MODEL), 0.2)


def test_the_first_listed_model_is_taken_where_none_is_named() -> None:
    with serving(FakeOpenAIServer()) as server:
        assert wait_for_answer(Target(server.endpoint, KEY), 20).target.model == MODEL
        sent = server.bodies[-1]
    assert sent["model"] == MODEL
    # Streamed and of one token: a held stream survives every hop, and waking costs next to nothing.
    assert sent["stream"] is True
    assert sent["max_tokens"] == 1


@pytest.mark.parametrize("model", ["", MODEL])
@pytest.mark.parametrize(("key", "given"), [(None, "a request without an API key"), ("sk-wrong", "the API key")])
def test_a_refused_key_ends_the_wait_at_once(model: str, key: str | None, given: str) -> None:
    with (
        serving(FakeOpenAIServer()) as server,
        pytest.raises(TargetError, match=f"rejected {given}.*VLLM_API_KEY") as refused,
    ):
        wait_for_answer(Target(server.endpoint, key, model), 20)
    assert "sk-wrong" not in str(refused.value)


@pytest.mark.parametrize("fault", ["answers_200_with_an_error", "streams_as_json", "lists_another_model"])
def test_a_wrong_answer_is_left_to_the_tests(fault: str) -> None:
    with serving(FakeOpenAIServer(fault)) as server:
        assert wait_for_answer(Target(server.endpoint, KEY, MODEL), 20).waited_seconds < 20


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (json.dumps({"error": {"message": "the engine did not start"}}), "the engine did not start"),
        (json.dumps({"error": "text"}), "text"),
        (json.dumps({"choices": []}), None),
        ("[DONE]", None),
    ],
)
def test_an_error_event_of_a_held_stream_is_no_answer(data: str, problem: str | None) -> None:
    assert cold_start._error_in(data) == problem


def test_a_log_gets_a_line_now_and_then() -> None:
    log = io.StringIO()
    line = ProgressLine(interval_seconds=0.0, stream=log)
    line.update("one")
    line.update("two")
    line.close()
    assert log.getvalue() == "one\ntwo\n"
    silent = io.StringIO()
    ProgressLine(interval_seconds=None, stream=silent).update("one")
    assert silent.getvalue() == ""
