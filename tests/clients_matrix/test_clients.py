"""Each client against the deployed gateway: chat, stream, models, errors, retries, cancel, cold start, and its snippet."""

from __future__ import annotations

import subprocess
from typing import Any

import pytest

from tests.clients_matrix.engine import BREAK, FOR_EVER, HELLO, PIECES, TEXT
from tests.clients_matrix.matrix import FOLDER, Client
from tests.clients_matrix.program import ClientError, Program, environment
from tests.clients_matrix.stage import HEALTH_KEY, KEY, LIMITED_KEY, LIMITED_NAME, Stage, wait_until

pytestmark = pytest.mark.timeout(120)
LARGE = "x" * 200_000 + HELLO
CANCEL_SECONDS = 1.0


def possible(client: Client, *operations: str) -> None:
    for operation in operations:
        if operation in client.missing:
            pytest.skip(client.missing[operation])


def test_chat(client: Client, program: Program, stage: Stage) -> None:
    """A whole answer; also to a body that fills many packets."""
    asked = {"key": KEY, "model": stage.model}
    assert program.ask("chat", prompt=HELLO, **asked) == TEXT
    assert program.ask("chat", prompt=LARGE, **asked) == TEXT
    assert LARGE in stage.engine.requests[-1].body.decode()


def test_stream(client: Client, program: Program, stage: Stage) -> None:
    """Every piece by itself. That the first is there before the last is made, `test_cancel` shows."""
    pieces = program.ask("stream", key=KEY, model=stage.model, prompt=HELLO)
    assert "".join(text for _, text in pieces) == TEXT
    assert len(pieces) >= len(PIECES)


def test_models(client: Client, program: Program, stage: Stage) -> None:
    """The list, and one by its name, whose slash the client may have encoded."""
    possible(client, "models")
    assert stage.model in program.ask("models", key=KEY, model=stage.model)
    if "retrieve" not in client.missing:
        assert program.ask("retrieve", key=KEY, model=stage.model) == stage.model


def test_errors(client: Client, program: Program, stage: Stage) -> None:
    """A wrong key, a model that is not here, and what the engine refuses."""
    asked = {"key": KEY, "model": stage.model, "prompt": HELLO}
    for status, more, says in (
        (401, {"key": "sk-wrong"}, "API key"),
        (401, {"key": "sk-wrong", "prompt": LARGE}, "API key"),
        (413, {"prompt": "x" * (21 << 20)}, "over"),
        (404, {"model": "no/such-model"}, "does not exist"),
        (400, {"max_tokens": 1_000_000_000}, "max_tokens is too large"),
    ):
        with pytest.raises(ClientError) as refused:
            program.ask("chat", **{**asked, **more})
        if status in client.errors:
            assert client.errors[status] in refused.value.names, (status, refused.value)
        assert refused.value.status in (status, None), refused.value
        assert says in refused.value.message, (status, refused.value)


def test_broken(client: Client, program: Program, stage: Stage) -> None:
    """A stream whose engine dies in the middle is an error, never a short answer."""
    with pytest.raises(ClientError) as broken:
        program.ask("stream", key=KEY, model=stage.model, prompt=BREAK)
    assert client.broken in broken.value.names, broken.value
    assert "engine" in broken.value.message, broken.value


def test_retry(client: Client, program: Program, stage: Stage) -> None:
    """429 is an exception of its own, and a client that retries waits for `Retry-After` and is answered."""
    asked = {"key": LIMITED_KEY, "model": stage.model, "prompt": HELLO}
    with stage.stream_of_the_limited_key():
        with pytest.raises(ClientError) as refused:
            program.ask("chat", **asked)
        assert client.errors[429] in refused.value.names, refused.value
        stage.log()
        program.send("chat", retries=2, **asked)
        wait_until(lambda: was_refused(stage), what="a refusal")
        stage.release()
        assert program.receive() == TEXT


def was_refused(stage: Stage) -> bool:
    return any(line.get("key") == LIMITED_NAME and line["status"] == 429 for line in stage.log())


def test_cancel(client: Client, program: Program, stage: Stage) -> None:
    """A client that leaves in the middle of a stream stops the engine and frees its slot; its process lives on."""
    for operation in client.leaves:
        stage.watch()
        try:
            left = program.ask(operation, key=KEY, model=stage.model, prompt=FOR_EVER)
            assert left in (PIECES[0], True)
            wait_until(stage.engine.abandoned.is_set, CANCEL_SECONDS, f"{operation}: the engine's end")
            wait_until(lambda: stage.info()["requests"]["running"] == 0, CANCEL_SECONDS, "the free slot")
            assert program.alive
        finally:
            stage.release()


def test_cold(client: Client, program: Program, stage: Stage) -> None:
    """A plain request waits for the engine's start; a stream is sent comments meanwhile, which no client shows."""
    asked = {"key": KEY, "model": stage.model, "prompt": HELLO}
    starts = stage.starts
    stage.make_cold()
    assert program.ask("chat", **asked) == TEXT
    stage.make_cold()
    assert "".join(text for _, text in program.ask("stream", **asked)) == TEXT
    assert stage.starts == starts + 2
    stage.make_cold()
    for operation in client.checks:
        assert program.ask(operation, key=HEALTH_KEY, model=stage.model)
    stage.publish()
    assert stage.starts == starts + 2


def test_more(client: Client, program: Program, stage: Stage) -> None:
    """All else that people use this client for; every problem at once."""
    if not client.more:
        pytest.skip("nothing else is tried")
    problems = []
    for operation, expected in client.more.items():
        wanted = _with_model(expected, stage.model)
        try:
            found = program.ask(operation, key=KEY, model=stage.model)
        except ClientError as error:
            problems.append(f"{operation}: {error}")
            continue
        if found != wanted and not (wanted == [stage.model] and stage.model in found):
            problems.append(f"{operation}: {found!r} instead of {wanted!r}")
    for operation in client.refused:
        try:
            found = program.ask(operation, key=KEY, model=stage.model)
            problems.append(f"{operation}: {found!r} instead of a refusal")
        except ClientError as error:
            if error.status not in (401, None):
                problems.append(f"{operation}: {error}")
    assert not problems, "; ".join(problems)


def _with_model(expected: Any, model: str) -> Any:
    if isinstance(expected, list):
        return [_with_model(part, model) for part in expected]
    return model if expected is None else expected


def test_snippet(client: Client, program: Program, stage: Stage) -> None:
    """What docs/clients.md shows works as it is shown."""
    variables = {
        "ENDPOINT": stage.base,
        "OPENAI_BASE_URL": f"{stage.base}/v1",
        "OPENAI_API_KEY": KEY,
        "ANTHROPIC_BASE_URL": stage.base,
        "ANTHROPIC_API_KEY": KEY,
        "MODEL": stage.model,
    }
    path = FOLDER / "snippets" / client.snippet
    if path.suffix == ".html":
        printed = program.ask("snippet", key=KEY, model=stage.model)
    elif path.suffix == ".py":
        printed = program.ask("run_snippet", path=str(path), variables=variables)
    else:
        assert client.run_snippet is not None
        command = [str(part) for part in client.run_snippet()]
        done = subprocess.run(
            command, env=environment(**variables), capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr[-1000:]
        printed = done.stdout
    if "data: " in printed:  # curl and the JDK show the stream as it is
        assert printed.rstrip().endswith("data: [DONE]")
        assert '"content": "Hello"' in printed
    else:
        assert printed.strip() == TEXT
