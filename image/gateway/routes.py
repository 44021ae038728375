"""The paths that are forwarded to the engine. All other paths return 404: vLLM serves /invocations, /metrics, /load, LoRA
loading and more without a key, so this is an allowlist.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class BodyKind(Enum):
    """How a path's body is read."""

    JSON = "application/json"
    FORM = "multipart/form-data"


@dataclass(frozen=True, slots=True)
class Route:
    """A path forwarded by POST, as vLLM serves it (0.32 and 0.33)."""

    path: str
    body: BodyKind = BodyKind.JSON
    streams: bool = True
    """Whether `"stream": true` in the body makes its answer an event stream."""
    max_tokens: tuple[str, ...] = ()
    """The body's fields that limit the answer's tokens."""
    infers: bool = True
    """Whether it runs the model, so that its tokens count towards a key's limit."""


# docs/gateway.md lists the paths that are not forwarded, with reasons.
UPSTREAM = {
    route.path: route
    for route in (
        Route("/v1/chat/completions", max_tokens=("max_tokens", "max_completion_tokens")),
        Route("/v1/completions", max_tokens=("max_tokens",)),
        Route("/v1/responses", max_tokens=("max_output_tokens",)),
        Route("/v1/messages", max_tokens=("max_tokens",)),
        Route("/v1/messages/count_tokens", streams=False, infers=False),
        Route("/v1/embeddings", streams=False),
        Route("/v1/rerank", streams=False),
        Route("/v2/rerank", streams=False),
        Route("/rerank", streams=False),
        Route("/v1/score", streams=False),
        Route("/score", streams=False),
        Route("/pooling", streams=False),
        Route("/classify", streams=False),
        Route("/tokenize", streams=False, infers=False),
        Route("/detokenize", streams=False, infers=False),
        Route("/v1/audio/transcriptions", BodyKind.FORM),
        Route("/v1/audio/translations", BodyKind.FORM),
    )
}

ANTHROPIC_PREFIX = "/v1/messages"
_AZURE_PREFIX = "/openai/"
_AZURE_DEPLOYMENTS = "deployments/"
# Azure's paths under a deployment's name.
_AZURE_PATHS = (
    "/chat/completions",
    "/completions",
    "/embeddings",
    "/audio/transcriptions",
    "/audio/translations",
)


def from_azure(path: str) -> tuple[str, str | None]:
    """Translate an Azure path to OpenAI's, and return the deployment that it names. Other paths are returned unchanged.

    `/openai/v1/...` becomes `/v1/...`; `/openai/deployments/NAME/chat/completions` becomes `/v1/chat/completions` with
    NAME as the model, regardless of the body. A name may contain slashes, as Hub ids do.
    """
    if not path.startswith(_AZURE_PREFIX):
        return path, None
    rest = path[len(_AZURE_PREFIX) :]
    if rest.startswith("v1/"):
        return "/" + rest, None
    if rest.startswith(_AZURE_DEPLOYMENTS):
        for end in _AZURE_PATHS:
            name = rest[len(_AZURE_DEPLOYMENTS) : -len(end)]
            if name.strip("/") == name != "" and rest.endswith(end):
                return "/v1" + end, name
    return path, None
