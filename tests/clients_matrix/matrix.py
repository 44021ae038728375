"""The clients of the matrix: how each is started, what its errors are called, and what it cannot do."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.clients_matrix import engine

FOLDER = Path(__file__).parent
ROOT = FOLDER.parents[1]
INSTALLED = ROOT / ".clients"
SDKS = INSTALLED / "sdks" / "bin" / "python"
FRAMEWORKS = INSTALLED / "frameworks" / "bin" / "python"
NODE = INSTALLED / "sdks" / "bin" / "node"
BY_STATUS = {401: "401", 404: "404", 400: "400", 413: "413", 429: "429"}
OPENAI_ERRORS = {401: "AuthenticationError", 404: "NotFoundError", 400: "BadRequestError", 429: "RateLimitError"}
CITY = {"city": "Paris"}
NO_MODELS = "has no call for it"


def java() -> Path:
    """Debian's JDK: the machine's, or the one that `make test-clients` unpacked."""
    found = shutil.which("java") if shutil.which("javac") else None
    return Path(found) if found else next(INSTALLED.glob("jdk/usr/lib/jvm/*/bin/java"), Path("java"))


@dataclass(frozen=True)
class Client:
    """A row of the matrix."""

    name: str
    command: Callable[[str], list[str | Path]]
    """The program, for a page of this origin."""
    snippet: str
    notes: str
    errors: Mapping[int, str] = field(default_factory=lambda: OPENAI_ERRORS)
    broken: str = "APIError"
    """What a stream that breaks off raises."""
    missing: Mapping[str, str] = field(default_factory=dict)
    """Operations that the client does not have, and why."""
    leaves: tuple[str, ...] = ("leave",)
    """Ways to leave a stream in the middle."""
    checks: tuple[str, ...] = ()
    """Health checks of its own, which must not wake an engine."""
    more: Mapping[str, Any] = field(default_factory=dict)
    """Further operations and what each must return."""
    refused: tuple[str, ...] = ()
    """Further operations that must be a 401."""
    run_snippet: Callable[[], list[str | Path]] | None = None


def _python(
    name: str, python: Path, program: str, notes: str, *arguments: str, snippet: str | None = None, **more: Any
) -> Client:
    """A client in Python. Its snippet has the program's name unless it is given."""
    command: list[str | Path] = [python, FOLDER / "programs" / program, *arguments]
    return Client(name, lambda origin: command, snippet or program, notes, **more)


def _openai_python(name: str, python: Path, mode: str, notes: str) -> Client:
    refused = ("empty_key", "key_with_a_newline")
    return _python(name, python, "openai_python.py", notes, mode, more=_OPENAI_MORE, refused=refused)


def _node(name: str, program: str, notes: str, **more: Any) -> Client:
    # Node looks for packages next to the program, so it runs where they are installed.
    return Client(
        name,
        lambda origin: [NODE, INSTALLED / program],
        program,
        notes,
        run_snippet=lambda: [NODE, INSTALLED / "snippets" / program],
        **more,
    )


_OPENAI_MORE = {
    "responses": engine.TEXT,
    "responses_stream": engine.TEXT,
    "completions": engine.TEXT,
    "embeddings": list(engine.EMBEDDING),
    "usage": 11,
    "tools": engine.CITY,
    "tools_stream": engine.CITY,
    "structured": "Paris",
    "raw_response": True,
    "streaming_response": "data: [DONE]",
    "default_headers": engine.TEXT,
    "trailing_slash": engine.TEXT,
    "raw_slash": None,
    "alias": engine.TEXT,
    "key_after_a_space": engine.TEXT,
}
_AZURE_MORE = {
    name: _OPENAI_MORE[name] for name in ("completions", "embeddings", "usage", "tools", "tools_stream", "alias")
}
_SNIPPETS = FOLDER / "snippets"
_CURL_MORE = {
    "raw_slash": None,
    "lower_case_escape": None,
    "trailing_slash": engine.TEXT,
    "chunked": engine.TEXT,
    "expect_continue": engine.TEXT,
    "absolute_form": [None],
    "compressed_answer": engine.TEXT,
    "gzip_body": engine.TEXT,
    "embeddings": list(engine.EMBEDDING),
    "x_api_key": [None],
    "api_key": [None],
    "tokenize": True,
    "messages_api": engine.TEXT,
}


def _curl(version: str, name: str, notes: str, **more: Any) -> Client:
    extras = {
        key: value
        for key, value in _CURL_MORE.items()
        if version != "--http1.0" or key not in ("chunked", "expect_continue")
    }
    return _python(
        name,
        Path(sys.executable),
        "curl.py",
        notes,
        version,
        snippet="curl.sh",
        errors=dict.fromkeys(BY_STATUS, "StatusError"),
        broken="StatusError",
        more=extras,
        refused=("no_key",),
        run_snippet=lambda: ["sh", _SNIPPETS / "curl.sh"],
        **more,
    )


CLIENTS = (
    _openai_python(
        "OpenAI Python SDK 3",
        SDKS,
        "sync",
        "`timeout` is the longest silence, and each of two retries may take it again. The default of 600 s is too short for a "
        "plain request to an endpoint at zero; a stream is sent comments, which the SDK skips. `stream.close()` (or a `with` block) stops the engine; leaving the loop alone does so only at the next garbage collection. A key that ends in a space or a newline is an APIConnectionError.",
    ),
    _openai_python(
        "OpenAI Python SDK 3, AsyncOpenAI",
        SDKS,
        "async",
        "As the synchronous client.",
    ),
    _openai_python(
        "OpenAI Python SDK 2",
        FRAMEWORKS,
        "sync",
        "As version 3; LangChain, LlamaIndex and LiteLLM bring this one.",
    ),
    _python(
        "OpenAI Python SDK 3, AzureOpenAI",
        SDKS,
        "openai_python.py",
        "Sends the key as `api-key`, and the model in the path; `models.list()` is not routed.",
        "azure",
        snippet="azure_python.py",
        missing={"models": "is at a path of Azure's own", "retrieve": "is at a path of Azure's own"},
        more=_AZURE_MORE,
    ),
    _node(
        "OpenAI Node SDK",
        "openai_node.mjs",
        "Node's own `fetch` gives up after 300 s without a header or a byte, whatever `timeout` says: stream, so that comments "
        "keep a cold start alive. Leaving the loop or `AbortController` stops the engine.",
        leaves=("leave", "abort"),
        more={
            "responses": engine.TEXT,
            "responses_stream": engine.TEXT,
            "embeddings": list(engine.EMBEDDING),
            "usage": 11,
            "tools": engine.CITY,
            "tools_stream": engine.CITY,
            "raw_response": True,
        },
    ),
    _node(
        "Vercel AI SDK",
        "vercel_ai.mjs",
        "`streamText` hides errors: give it `onError`. Pass an `abortSignal` to stop early. `includeUsage: true` asks for the usage "
        "block of a stream. Node's 300 s hold here, too.",
        errors=dict.fromkeys(BY_STATUS, "AI_APICallError"),
        broken="AI_StreamProviderError",
        missing={"models": NO_MODELS, "retrieve": NO_MODELS},
        more={
            "usage": 11,
            "tools": CITY,
            "tools_stream": CITY,
            "structured": "Paris",
            "embeddings": list(engine.EMBEDDING),
        },
    ),
    _python(
        "LangChain",
        FRAMEWORKS,
        "langchain_python.py",
        "Raises subclasses of the OpenAI SDK's exceptions. `OpenAIEmbeddings` needs `check_embedding_ctx_length=False`, or it sends the tokens of "
        "OpenAI's tokenizer instead of text.",
        missing={"models": NO_MODELS, "retrieve": NO_MODELS},
        more={
            "asynchronous": engine.TEXT,
            "usage": 11,
            "tools": CITY,
            "tools_stream": CITY,
            "structured": "Paris",
            "responses": engine.TEXT,
            "batch": [engine.TEXT] * 3,
            "embeddings": list(engine.EMBEDDING),
        },
    ),
    _python(
        "LlamaIndex",
        FRAMEWORKS,
        "llama_index_python.py",
        "Use `OpenAILike`: `OpenAI` accepts only OpenAI's own model names. Without `is_chat_model=True` it asks /v1/completions. "
        "Raises the OpenAI SDK's exceptions. To stop early, drop the generator and call `gc.collect()`: leaving the loop closes nothing.",
        missing={"models": NO_MODELS, "retrieve": NO_MODELS},
        more={
            "complete": engine.TEXT,
            "asynchronous": engine.TEXT,
            "tools": CITY,
            "embeddings": list(engine.EMBEDDING),
        },
    ),
    _python(
        "LiteLLM",
        FRAMEWORKS,
        "litellm_python.py",
        "Prefix `hosted_vllm/` or `openai/`; with `anthropic/`, `api_base` is without /v1. The proxy's model health check is a paid "
        "chat call: give it a key marked for health checks ([keys.md](keys.md)), and wildcard routes `health_check_max_tokens: 16`, or it wakes the endpoint. `stream.close()` stops the engine.",
        missing={"retrieve": NO_MODELS},
        checks=("health_check",),
        more={
            "asynchronous": engine.TEXT,
            "health_check": True,
            "hosted_vllm": engine.TEXT,
            "anthropic_route": engine.TEXT,
            "usage": 11,
            "tools": engine.CITY,
            "embeddings": list(engine.EMBEDDING),
            "responses": engine.TEXT,
        },
    ),
    Client(
        "JDK HttpClient",
        lambda origin: [java(), FOLDER / "programs" / "JdkClient.java"],
        "Jdk.java",
        "Its defaults offer an upgrade to HTTP/2 on every connection; the gateway answers in HTTP/1.1. It has no retries: "
        "wait for `Retry-After`. `HttpRequest.timeout` ends with the headers.",
        errors=BY_STATUS,
        broken="IllegalStateException",
        leaves=("leave", "cancel_future"),
        more={"raw_slash": None, "keep_alive": True, "http_1_1": engine.TEXT},
        run_snippet=lambda: [java(), _SNIPPETS / "Jdk.java"],
    ),
    _curl("--http1.0", "curl --http1.0", "An answer without a known length ends with its connection."),
    _curl("--http1.1", "curl", "`--no-buffer` shows a stream as it comes; `--retry 2` waits for `Retry-After`."),
    _curl("--http2", "curl --http2", "Offers an upgrade to HTTP/2; the gateway answers in HTTP/1.1."),
    Client(
        "Browser, fetch",
        lambda origin: [sys.executable, FOLDER / "programs" / "browser.py", origin],
        "browser.html",
        "The stack's `allowedOrigins` must name the page's origin. A page can show its key to every visitor: give it a key with "
        "limits. `EventSource` cannot send a POST or a key; use `fetch`.",
        errors=dict.fromkeys(BY_STATUS, "StatusError"),
        broken="Error",
        leaves=("leave", "close_page"),
        more={"request_id": True, "x_api_key": [None]},
    ),
    _python(
        "Anthropic Python SDK",
        SDKS,
        "anthropic_python.py",
        "`base_url` is without /v1. Claude Code: `ANTHROPIC_BASE_URL` and `ANTHROPIC_AUTH_TOKEN`.",
        more={"count_tokens": True, "bearer": engine.TEXT, "tools": CITY, "tools_stream": CITY, "beta": engine.TEXT},
        refused=("empty_key",),
    ),
)
