"""Talk to the endpoint with OpenAI's own SDK.

export VLLM_BASE_URL=http://127.0.0.1:8080 VLLM_API_KEY=...
python clients/openai_example.py --stream "Why is the sky blue?"
"""

import argparse
import os
import sys

import openai
from openai import OpenAI

# Longer than the gateway allows for a request, cold start included. A client that gives up before has its answer thrown
# away half-made; the SDK's own 600 s may be too short.
TIMEOUT_SECONDS = 3660.0


def main(arguments: list[str] | None = None) -> int:
    """Ask one question and print the answer; return 0, or 1 after one line that says what went wrong."""
    options = _parser().parse_args(arguments)
    base_url = f"{options.endpoint.rstrip('/').removesuffix('/v1')}/v1"
    # The SDK insists on a key even where the endpoint asks for none.
    key = os.environ.get("VLLM_API_KEY") or "none"
    try:
        with OpenAI(base_url=base_url, api_key=key, timeout=TIMEOUT_SECONDS) as client:
            model = options.model or _first_model(client)
            if options.stream:
                _print_stream(client, model, options)
            else:
                _print_answer(client, model, options)
    except openai.OpenAIError as error:
        print(f"error: {_explain(error, base_url)}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Ask a vLLM endpoint one question. The key comes from VLLM_API_KEY.")
    parser.add_argument("prompt", nargs="?", default="Explain quantum computing in simple terms.")
    parser.add_argument("--stream", action="store_true", help="print the answer while it is made")
    parser.add_argument(
        "--endpoint",
        metavar="URL",
        default=os.environ.get("VLLM_BASE_URL") or "http://127.0.0.1:8080",
        help="base URL, with or without /v1 (default: $VLLM_BASE_URL, else http://127.0.0.1:8080)",
    )
    parser.add_argument(
        "--model",
        default=os.environ.get("VLLM_MODEL", ""),
        help="default: $VLLM_MODEL, else the first the endpoint lists",
    )
    parser.add_argument("--max-tokens", type=int, default=200)
    parser.add_argument("--temperature", type=float, default=0.7)
    return parser


def _first_model(client: OpenAI) -> str:
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


def _explain(error: openai.OpenAIError, base_url: str) -> str:
    if isinstance(error, openai.APITimeoutError):
        return f"{base_url} did not answer within {TIMEOUT_SECONDS:.0f} s"
    if isinstance(error, openai.APIConnectionError):
        return f"no connection to {base_url} ({error.__cause__ or error}); set VLLM_BASE_URL or --endpoint"
    if isinstance(error, openai.AuthenticationError):
        return f"{base_url} refused the API key; set VLLM_API_KEY"
    if isinstance(error, openai.APIError):
        message = error.body.get("message") if isinstance(error.body, dict) else None
        return f"{base_url}: {message or error.message}"
    return f"{base_url}: {error}"


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
