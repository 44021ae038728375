"""The paths that go through to the engine. All others do not exist: vLLM serves /invocations, /metrics, /load,
LoRA loading and more without asking for a key, so what is let through is listed, never what is kept out.
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
    """A path that goes through, by POST, as vLLM serves it (0.32 and 0.33)."""

    path: str
    body: BodyKind = BodyKind.JSON
    streams: bool = True
    """Whether `"stream": true` in the body makes its answer an event stream."""
    max_tokens: tuple[str, ...] = ()
    """The body's fields that bound the answer's tokens."""


# Not here: GET and cancel of /v1/responses/{id}, whose answers live in one replica's memory, where no other finds them;
# /v1/images, /v1/files and /v1/batches, which vLLM does not have; /tokenize and /pooling, which are not OpenAI's.
UPSTREAM = {
    route.path: route
    for route in (
        Route("/v1/chat/completions", max_tokens=("max_tokens", "max_completion_tokens")),
        Route("/v1/completions", max_tokens=("max_tokens",)),
        Route("/v1/responses", max_tokens=("max_output_tokens",)),
        Route("/v1/embeddings", streams=False),
        Route("/v1/rerank", streams=False),
        Route("/v1/score", streams=False),
        Route("/v1/audio/transcriptions", BodyKind.FORM),
        Route("/v1/audio/translations", BodyKind.FORM),
    )
}
