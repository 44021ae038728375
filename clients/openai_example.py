"""Talk to the endpoint with OpenAI's own SDK.

After `make local` nothing needs to be set:

    .venv-local/bin/python clients/openai_example.py --stream "Why is the sky blue?"

For another endpoint, set VLLM_BASE_URL=https://llm.example.com and VLLM_API_KEY first.
"""

import argparse
import base64
import ipaddress
import os
import signal
import sys
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

if __name__ == "__main__":  # Ctrl-C during the imports below: no traceback
    signal.signal(signal.SIGINT, lambda *_: (os.write(2, b"interrupted\n"), os._exit(130)))

import httpx2  # comes with the SDK
import openai
from openai import OpenAI

# Files of `make local`: the address of its gateway while it runs, and the key.
LOCAL = Path(__file__).resolve().parent.parent / ".local"
DEFAULT_ENDPOINT = "http://127.0.0.1:8000"

# Longer than the gateway's limit for a request, cold start included. The gateway discards the answer of a client that
# times out earlier; the SDK's default of 600 s may be too short.
TIMEOUT_SECONDS = 3660.0


def main(arguments: list[str] | None = None) -> int:
    """Ask one question and print the answer; return 0, 1 after one line that says what failed, or 2 for a wrong option."""
    options = _parser().parse_args(arguments)
    for output in (sys.stdout, sys.stderr):
        if hasattr(output, "reconfigure"):  # a terminal may be unable to show every character
            output.reconfigure(errors="replace")
    base_url = ""
    try:
        base_url, user = split_user(base_url_of(options.endpoint or default_endpoint()))
        with connect(base_url, api_key(base_url, user), user=user) as client:
            model = options.model or first_model(client)
            answered = (_print_stream if options.stream else _print_answer)(client, model, options)
            return 0 if answered else 1
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except openai.OpenAIError as error:
        print(f"error: {explain(error, base_url)}", file=sys.stderr)
        return 1
    except httpx2.HTTPError as error:  # the SDK passes on what breaks a stream
        print(f"error: {base_url} closed the connection: {error}", file=sys.stderr)
        return 1


def default_endpoint() -> str:
    """The endpoint in the environment, else the one that `make local` started."""
    named = os.environ.get("VLLM_BASE_URL") or os.environ.get("OPENAI_BASE_URL")
    return named or _read("endpoint") or DEFAULT_ENDPOINT


def base_url_of(endpoint: str) -> str:
    """The base URL for the SDK, for an address with or without /v1."""
    return f"{endpoint.strip().rstrip('/').removesuffix('/v1').rstrip('/')}/v1"


class UsageError(ValueError):
    """An option or a variable cannot be used. The message never contains a password."""


def split_user(base_url: str) -> tuple[str, str]:
    """The address without its user name and password, and those as "user:password"; raises UsageError if it is no URL."""
    scheme, _, rest = base_url.partition("://")
    user, at, place = rest.rpartition("@")
    clean = f"{scheme}://{place}"
    try:
        parts = urlsplit(clean)
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        usable = False
    if not usable or "?" in rest or "#" in rest or any(character.isspace() for character in rest):
        shown = (clean if at else base_url).partition("?")[0]  # a query may contain a key
        raise UsageError(f"{shown!r} is not a URL; set one such as {DEFAULT_ENDPOINT}")
    return clean, unquote(user)


def api_key(base_url: str, user: str = "") -> str:
    """The key for this endpoint: VLLM_API_KEY, else the key of `make local` on this machine, else OPENAI_API_KEY.

    The key of `make local` is sent to this machine only, and OPENAI_API_KEY is not sent to `make local`. With a user name
    and password in the address, no key is used; raises UsageError if VLLM_API_KEY is set as well.
    """
    if user and os.environ.get("VLLM_API_KEY"):
        raise UsageError(
            "VLLM_API_KEY and the user name in the endpoint: a request has one Authorization header, which carries an API key "
            "or a user name and password. Set one of them"
        )
    if user:
        return "none"
    local = _read("api-key") if is_local(base_url) else ""
    # The SDK insists on a key even if the endpoint requires none.
    return os.environ.get("VLLM_API_KEY") or local or os.environ.get("OPENAI_API_KEY") or "none"


def is_local(base_url: str) -> bool:
    """Whether the address is on this machine."""
    host = (urlsplit(base_url).hostname or "").rstrip(".")
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified


def connect(base_url: str, key: str, max_retries: int = openai.DEFAULT_MAX_RETRIES, user: str = "") -> OpenAI:
    """A client of the SDK; `user` is sent as Basic authentication. An address on this machine is reached without a proxy.

    Raises UsageError if the proxy in the environment cannot be used.
    """
    try:
        transport = openai.DefaultHttpxClient(trust_env=not is_local(base_url))
    except (ImportError, ValueError, httpx2.InvalidURL) as error:
        reason = str(error).partition(" URL ")[0] if "@" in str(error) else error
        raise UsageError(
            f"cannot use the proxy in the environment: {reason}; set http_proxy=http://HOST:PORT"
        ) from None
    pair = user if ":" in user else f"{user}:"
    basic = {"Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"} if user else None
    return OpenAI(
        base_url=base_url, api_key=key, timeout=TIMEOUT_SECONDS, max_retries=max_retries, http_client=transport,
        default_headers=basic,
    )  # fmt: skip


def _read(name: str) -> str:
    try:
        return (LOCAL / name).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return ""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Ask the endpoint one question. Without options, asks the endpoint that make local started.",
        epilog="The key comes from VLLM_API_KEY, else from .local/api-key, else from OPENAI_API_KEY.",
    )
    parser.add_argument(
        "prompt", nargs="?", default="Explain quantum computing in simple terms.", help="the question to ask"
    )
    parser.add_argument("--stream", action="store_true", help="print the answer as it is generated")
    parser.add_argument(
        "--endpoint",
        metavar="URL",
        help="base URL, with or without /v1 (default: VLLM_BASE_URL, OPENAI_BASE_URL, or the endpoint of make local)",
    )
    parser.add_argument(
        "--model",
        default=os.environ.get("VLLM_MODEL", ""),
        help="model to ask (default: VLLM_MODEL, or the first model that the endpoint lists)",
    )
    parser.add_argument(
        "--max-tokens", type=_count, default=200, metavar="N", help="longest answer in tokens (default 200)"
    )
    parser.add_argument(
        "--temperature", type=_temperature, default=0.7, metavar="T", help="sampling temperature, 0 to 2 (default 0.7)"
    )
    return parser


def _count(text: str) -> int:
    if not text.isdecimal() or len(text) > 9 or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} must be a whole number, at least 1")
    return int(text)


def _temperature(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 2:
        raise argparse.ArgumentTypeError(f"{text!r} must be a number from 0 to 2")
    return value


def first_model(client: OpenAI) -> str:
    """The first model that the endpoint lists; raises OpenAIError if it lists none."""
    models = client.models.list().data
    if not models:
        raise openai.OpenAIError("the endpoint lists no model; name one with --model")
    return models[0].id


def reasoning_of(message: Any) -> str:
    """The reasoning in a message or in a piece of a stream; vLLM's field has had two names."""
    return getattr(message, "reasoning", None) or getattr(message, "reasoning_content", None) or ""


def _print_answer(client: OpenAI, model: str, options: argparse.Namespace) -> bool:
    answer = client.chat.completions.create(
        model=model,
        messages=[{"role": "user", "content": options.prompt}],
        max_tokens=options.max_tokens,
        temperature=options.temperature,
    )
    if not answer.choices:
        raise openai.OpenAIError("the endpoint answered without an answer; look at its log")
    choice = answer.choices[0]
    text, reasoning = choice.message.content or choice.message.refusal or "", reasoning_of(choice.message)
    if reasoning:
        print(f"[reasoning] {reasoning.strip()}", file=sys.stderr)
    if text:
        print(text)
    if answer.usage is not None:
        print(
            f"[{model}: {answer.usage.prompt_tokens} tokens in, {answer.usage.completion_tokens} out]", file=sys.stderr
        )
    return _report_end(bool(text), bool(reasoning), choice.finish_reason, options.max_tokens)


def _print_stream(client: OpenAI, model: str, options: argparse.Namespace) -> bool:
    stream = client.chat.completions.create(
        model=model,
        messages=[{"role": "user", "content": options.prompt}],
        max_tokens=options.max_tokens,
        temperature=options.temperature,
        stream=True,
    )
    answered, reasoned, end = False, False, None
    try:
        for chunk in stream:
            for choice in chunk.choices:
                reasoning, text = reasoning_of(choice.delta), choice.delta.content or choice.delta.refusal or ""
                if reasoning:
                    print(reasoning if reasoned else f"[reasoning] {reasoning}", end="", file=sys.stderr, flush=True)
                    reasoned = True
                if text:
                    if reasoned and not answered:
                        print(file=sys.stderr)
                    print(text, end="", flush=True)
                    answered = True
                end = choice.finish_reason or end
    finally:
        if answered:
            print()
        elif reasoned:
            print(file=sys.stderr)
    return _report_end(answered, reasoned, end, options.max_tokens)


def _report_end(answered: bool, reasoned: bool, reason: str | None, max_tokens: int) -> bool:
    """Say that an answer is incomplete, or why there is none; returns whether there is one."""
    if answered:
        if reason == "length":
            print(f"[cut off at {max_tokens} tokens; for more, set --max-tokens]", file=sys.stderr)
    elif reason == "length":
        during = "during the reasoning, before the answer" if reasoned else "before the answer"
        print(f"error: max_tokens ({max_tokens}) was reached {during}; set a larger --max-tokens", file=sys.stderr)
    else:
        print(f"error: the answer is empty (finish_reason {reason})", file=sys.stderr)
    return answered


def explain(error: openai.OpenAIError, base_url: str, another: str = "set VLLM_BASE_URL or --endpoint") -> str:
    """One line for a person: what failed, and what to set. `another`: how to name another endpoint."""
    if isinstance(error, openai.APITimeoutError):
        return f"{base_url} did not answer within {TIMEOUT_SECONDS:.0f} s"
    if isinstance(error, openai.APIConnectionError):
        start = "start it with make local, or " if is_local(base_url) else ""
        return f"no connection to {base_url} ({error.__cause__ or error}); {start}{another}"
    if isinstance(error, openai.AuthenticationError):
        return f"{base_url} rejected the API key; set VLLM_API_KEY"
    if isinstance(error, openai.APIError):
        message = error.body.get("message") if isinstance(error.body, dict) else None
        return f"{base_url}: {' '.join(str(message or error.message).split())}"
    return f"{base_url}: {error}"


def _terminate(number: int, frame: object) -> None:
    raise SystemExit(128 + number)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _terminate)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        code = main()
        sys.stdout.flush()
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        code = 130
    except BrokenPipeError:  # the reader of a pipe left, as in "| head"
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 128 + signal.SIGPIPE
    sys.exit(code)
