"""Talk to the endpoint with OpenAI's own SDK.

After `make local` nothing needs to be set:

    .venv-local/bin/python clients/openai_example.py --stream "Why is the sky blue?"

For another endpoint, set VLLM_BASE_URL=https://llm.example.com and VLLM_API_KEY first.
"""

import argparse
import os
import re
import sys
from pathlib import Path
from urllib.parse import urlsplit

import httpx2  # comes with the SDK
import openai
from openai import OpenAI

# What `make local` writes: the address of its gateway while that runs, and the key.
LOCAL = Path(__file__).resolve().parent.parent / ".local"
DEFAULT_ENDPOINT = "http://127.0.0.1:8000"

# Longer than the gateway allows for a request, cold start included. A client that gives up before has its answer thrown
# away half-made; the SDK's own 600 s may be too short.
TIMEOUT_SECONDS = 3660.0


def main(arguments: list[str] | None = None) -> int:
    """Ask one question and print the answer; return 0, or 1 after one line that says what went wrong."""
    options = _parser().parse_args(arguments)
    for output in (sys.stdout, sys.stderr):
        if hasattr(output, "reconfigure"):  # a terminal may be unable to show every character
            output.reconfigure(errors="replace")
    base_url = base_url_of(options.endpoint or default_endpoint())
    try:
        with connect(base_url, api_key(base_url)) as client:
            model = options.model or first_model(client)
            if options.stream:
                _print_stream(client, model, options)
            else:
                _print_answer(client, model, options)
    except openai.OpenAIError as error:
        print(f"error: {explain(error, base_url)}", file=sys.stderr)
        return 1
    except httpx2.HTTPError as error:  # the SDK passes on what breaks a stream
        print(f"error: {base_url} closed the connection: {error}", file=sys.stderr)
        return 1
    return 0


def default_endpoint() -> str:
    """The endpoint that the environment names, else the one that `make local` started."""
    named = os.environ.get("VLLM_BASE_URL") or os.environ.get("OPENAI_BASE_URL")
    return named or _read("endpoint") or DEFAULT_ENDPOINT


def base_url_of(endpoint: str) -> str:
    """The address that the SDK takes, for one with or without /v1."""
    return f"{endpoint.strip().rstrip('/').removesuffix('/v1').rstrip('/')}/v1"


def api_key(base_url: str) -> str:
    """The key for this endpoint: VLLM_API_KEY, else the key of `make local` on this machine, else OPENAI_API_KEY.

    The key of `make local` is sent to this machine only, and OPENAI_API_KEY is not sent to `make local`.
    """
    local = _read("api-key") if is_local(base_url) else ""
    # The SDK insists on a key even if the endpoint requires none.
    return os.environ.get("VLLM_API_KEY") or local or os.environ.get("OPENAI_API_KEY") or "none"


def is_local(base_url: str) -> bool:
    """Whether the address is on this machine."""
    host = urlsplit(base_url).hostname or ""
    return host in ("localhost", "::1") or re.fullmatch(r"127(\.\d{1,3}){3}", host) is not None


def connect(base_url: str, key: str, max_retries: int = openai.DEFAULT_MAX_RETRIES) -> OpenAI:
    """A client of the SDK. An address on this machine is not asked through the proxy of the shell."""
    transport = openai.DefaultHttpxClient(trust_env=not is_local(base_url))
    return OpenAI(
        base_url=base_url, api_key=key, timeout=TIMEOUT_SECONDS, max_retries=max_retries, http_client=transport
    )


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
        "--max-tokens", type=int, default=200, metavar="N", help="longest answer in tokens (default 200)"
    )
    parser.add_argument(
        "--temperature", type=float, default=0.7, metavar="T", help="sampling temperature (default 0.7)"
    )
    return parser


def first_model(client: OpenAI) -> str:
    """The first model that the endpoint lists; raises OpenAIError if it lists none."""
    models = client.models.list().data
    if not models:
        raise openai.OpenAIError("the endpoint lists no model; name one with --model")
    return models[0].id


def _print_answer(client: OpenAI, model: str, options: argparse.Namespace) -> None:
    answer = client.chat.completions.create(
        model=model,
        messages=[{"role": "user", "content": options.prompt}],
        max_tokens=options.max_tokens,
        temperature=options.temperature,
    )
    if not answer.choices:
        raise openai.OpenAIError("the endpoint answered without an answer; look at its log")
    print(answer.choices[0].message.content)
    if answer.usage is not None:
        print(
            f"[{model}: {answer.usage.prompt_tokens} tokens in, {answer.usage.completion_tokens} out]", file=sys.stderr
        )


def _print_stream(client: OpenAI, model: str, options: argparse.Namespace) -> None:
    stream = client.chat.completions.create(
        model=model,
        messages=[{"role": "user", "content": options.prompt}],
        max_tokens=options.max_tokens,
        temperature=options.temperature,
        stream=True,
    )
    try:
        for chunk in stream:
            if chunk.choices:
                print(chunk.choices[0].delta.content or "", end="", flush=True)
    finally:
        print()


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


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:  # as with | head: nobody reads the rest
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
