"""curl. The arguments go to every call, e.g. --http1.0."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

from driver import BASE, HELLO, serve

FLAGS = sys.argv[1:]


class StatusError(Exception):
    """An answer that is not a 200."""

    def __init__(self, status: int, body: str) -> None:
        super().__init__(body)
        self.status_code = status


def command(key: str, path: str, body: dict[str, Any] | None = None, *more: str) -> list[str]:
    posted = ["--header", "Content-Type: application/json", "--data-binary", "@-"] if body else []
    headers = ["--header", f"Authorization: Bearer {key}"] if key else []
    return ["curl", "-sS", "--no-buffer", "--max-time", "30", *FLAGS, *headers, *posted, *more, f"{BASE}{path}"]


def ask(key: str, path: str, body: dict[str, Any] | None = None, *more: str) -> str:
    """The whole body of an answer."""
    called = command(key, path, body, "--write-out", "\n%{http_code}", *more)
    done = subprocess.run(called, input=json.dumps(body or {}), capture_output=True, text=True, check=False)
    text, _, status = done.stdout.rpartition("\n")
    if done.returncode:
        raise StatusError(int(status or 0), f"curl: exit status {done.returncode}: {done.stderr.strip()} {text}")
    if status != "200":
        raise StatusError(int(status), text)
    return text


def asked(model: str, prompt: str, max_tokens: int = 20, *, stream: bool = False) -> dict[str, Any]:
    messages = [{"role": "user", "content": prompt}]
    return {"model": model, "messages": messages, "max_tokens": max_tokens, "stream": stream}


def chat(key: str, model: str, prompt: str, max_tokens: int = 20, retries: int = 0) -> str:
    retry = ["--retry", str(retries)] if retries else []
    answer = ask(key, "/v1/chat/completions", asked(model, prompt, max_tokens), *retry)
    # With --retry, curl prints what it was refused, too.
    return str(json.loads(answer[answer.rindex('{"id"') :])["choices"][0]["message"]["content"])


def lines(key: str, model: str, prompt: str) -> Iterator[str]:
    """The pieces of a stream; curl is ended when no more are wanted."""
    body = asked(model, prompt, stream=True)
    called = command(key, "/v1/chat/completions", body)
    with subprocess.Popen(called, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(body))
        process.stdin.close()
        try:
            for line in process.stdout:
                if line.startswith("data: {"):
                    event = json.loads(line[6:])
                    text = event["choices"][0]["delta"].get("content") if event.get("choices") else None
                    if text:
                        yield text
                    if "error" in event:
                        raise StatusError(0, line)
                elif line.startswith("{"):
                    raise StatusError(0, line)
        finally:
            process.terminate()


def stream(key: str, model: str, prompt: str) -> list[tuple[float, str]]:
    began = time.monotonic()
    return [(time.monotonic() - began, piece) for piece in lines(key, model, prompt)]


def leave(key: str, model: str, prompt: str) -> str:
    pieces = lines(key, model, prompt)
    first = next(pieces)
    pieces.close()  # type: ignore[attr-defined]
    return first


def models(key: str, model: str) -> list[str]:
    return [card["id"] for card in json.loads(ask(key, "/v1/models"))["data"]]


def retrieve(key: str, model: str) -> str:
    return str(json.loads(ask(key, f"/v1/models/{model.replace('/', '%2F')}"))["id"])


def raw_slash(key: str, model: str) -> str:
    return str(json.loads(ask(key, f"/v1/models/{model}"))["id"])


def lower_case_escape(key: str, model: str) -> str:
    return str(json.loads(ask(key, f"/v1/models/{model.replace('/', '%2f')}"))["id"])


def trailing_slash(key: str, model: str) -> str:
    """Redirects are followed as a POST with its body."""
    body = asked(model, "Say hello.")
    answer = ask(key, "/v1/chat/completions/", body, "--location", "--post301", "--post302", "--post303")
    return str(json.loads(answer)["choices"][0]["message"]["content"])


def no_key(key: str, model: str) -> list[str]:
    return models("", model)


def key_in(header: str) -> Any:
    def operation(key: str, model: str) -> list[str]:
        return [card["id"] for card in json.loads(ask("", "/v1/models", None, "--header", f"{header}: {key}"))["data"]]

    return operation


def chunked(key: str, model: str) -> str:
    """A body of unknown length."""
    answer = ask(key, "/v1/chat/completions", asked(model, "Say hello."), "--header", "Transfer-Encoding: chunked")
    return str(json.loads(answer)["choices"][0]["message"]["content"])


def expect_continue(key: str, model: str) -> str:
    answer = ask(key, "/v1/chat/completions", asked(model, "Say hello."), "--header", "Expect: 100-continue")
    return str(json.loads(answer)["choices"][0]["message"]["content"])


def absolute_form(key: str, model: str) -> list[str]:
    """As through a forward proxy: the request line holds a whole URL."""
    answer = ask(key, "/v1/models", None, "--proxy", BASE)
    return [card["id"] for card in json.loads(answer)["data"]]


def compressed_answer(key: str, model: str) -> str:
    """`--compressed` asks for a compressed answer and takes a plain one."""
    answer = ask(key, "/v1/chat/completions", asked(model, "Say hello."), "--compressed")
    return str(json.loads(answer)["choices"][0]["message"]["content"])


def gzip_body(key: str, model: str) -> str:
    """A compressed request."""
    import gzip

    called = command(key, "/v1/chat/completions", {"a": 1}, "--header", "Content-Encoding: gzip")
    body = gzip.compress(json.dumps(asked(model, "Say hello.")).encode())
    done = subprocess.run(called, input=body, capture_output=True, check=True)
    document = json.loads(done.stdout)
    if "error" in document:
        raise StatusError(0, done.stdout.decode())
    return str(document["choices"][0]["message"]["content"])


def embeddings(key: str, model: str) -> list[float]:
    return list(json.loads(ask(key, "/v1/embeddings", {"model": model, "input": ["a", "b"]}))["data"][1]["embedding"])


def tokenize(key: str, model: str) -> bool:
    return json.loads(ask(key, "/tokenize", {"model": model, "prompt": "Hi"}))["count"] > 0


def messages_api(key: str, model: str) -> str:
    body = {"model": model, "max_tokens": 20, "messages": HELLO}
    return str(json.loads(ask(key, "/v1/messages", body))["content"][0]["text"])


def version() -> str:
    shown = subprocess.run(["curl", "--version"], capture_output=True, text=True, check=True).stdout
    return " ".join(shown.split()[:2])


if __name__ == "__main__":
    serve(
        {
            **{
                name: value for name, value in list(globals().items()) if getattr(value, "__module__", "") == "__main__"
            },
            "x_api_key": key_in("x-api-key"),
            "api_key": key_in("api-key"),
        }
    )
