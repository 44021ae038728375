"""`python -m image.gateway.openapi`: the gateway's API as an OpenAPI document.

Only the fields that the gateway reads are described; the engine defines the others, which are passed through.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

from image.gateway import __version__
from image.gateway.routes import ANTHROPIC_PREFIX, UPSTREAM, BodyKind, Route

_ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "integer", "null"]},
            },
        }
    },
}
_ANTHROPIC_ERROR = {
    "type": "object",
    "required": ["type", "error", "request_id"],
    "properties": {
        "type": {"const": "error"},
        "error": {
            "type": "object",
            "required": ["type", "message"],
            "properties": {"type": {"type": "string"}, "message": {"type": "string"}},
        },
        "request_id": {"type": ["string", "null"]},
    },
}
_REFUSALS = {
    400: "The body is not valid for this path, or the request is not valid HTTP.",
    401: "The API key is missing, invalid or expired, or there are several.",
    404: "The path or the model does not exist.",
    405: "The method is not allowed.",
    408: "The request did not arrive in time.",
    413: "The body is too large.",
    415: "The media type is not supported.",
    429: "The queue is full, or the key's rate limit is reached; see Retry-After.",
    431: "The headers are too large.",
}
_FAILURES = {
    502: "The engine failed while it processed the request.",
    503: "No replica can answer now; see Retry-After.",
    504: "The engine did not finish in time.",
}


def document() -> dict[str, Any]:
    """The OpenAPI 3.1 document."""
    paths: dict[str, Any] = {route.path: {"post": _operation(route)} for route in UPSTREAM.values()}
    paths |= {
        "/health": {"get": _own("Alive.", "status")},
        "/health/ready": {"get": _own("Not draining.", "status", {503: "Draining."})},
        "/info": {"get": _own("The deployment and its state.", "model")},
        "/v1/models": {
            "get": _guarded(
                _own(
                    "The model's names and adapters, whether or not the engine is running.",
                    "data",
                    {401: _REFUSALS[401]},
                )
            )
        },
    }
    return {
        "openapi": "3.1.0",
        "info": {"title": "vLLM endpoint gateway", "version": __version__},
        "components": {
            "schemas": {"Error": _ERROR, "AnthropicError": _ANTHROPIC_ERROR},
            "securitySchemes": {
                "key": {"type": "http", "scheme": "bearer"},
                "anthropicKey": {"type": "apiKey", "in": "header", "name": "x-api-key"},
                "azureKey": {"type": "apiKey", "in": "header", "name": "api-key"},
            },
        },
        "paths": paths,
    }


def _operation(route: Route) -> dict[str, Any]:
    fields: dict[str, Any] = {"model": {"type": "string"}}
    if route.streams:
        fields["stream"] = {"type": "boolean"}
    fields |= {name: {"type": "integer", "minimum": 1} for name in route.max_tokens}
    if route.body is BodyKind.FORM:
        fields["file"] = {"type": "string", "format": "binary"}
    content: dict[str, Any] = {"application/json": {"schema": {}}}
    if route.streams:
        content["text/event-stream"] = {"schema": {}}
    return _guarded(
        {
            "requestBody": {
                "required": True,
                "content": {route.body.value: {"schema": {"type": "object", "properties": fields}}},
            },
            "responses": {
                "200": {"description": "The engine's response, unchanged.", "content": content},
                **_errors(
                    _REFUSALS | _FAILURES, "AnthropicError" if route.path.startswith(ANTHROPIC_PREFIX) else "Error"
                ),
            },
        }
    )


def _own(description: str, field: str, errors: dict[int, str] | None = None) -> dict[str, Any]:
    schema = {"type": "object", "required": [field]}
    more = {str(status): {"description": text} for status, text in (errors or {}).items()}
    answer = {"description": description, "content": {"application/json": {"schema": schema}}}
    return {"responses": {"200": answer, **_errors({400: _REFUSALS[400], 431: _REFUSALS[431]}), **more}}


def _guarded(operation: dict[str, Any]) -> dict[str, Any]:
    return operation | {"security": [{"key": []}, {"anthropicKey": []}, {"azureKey": []}]}


def _errors(statuses: dict[int, str], schema: str = "Error") -> dict[str, Any]:
    content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}}
    return {str(status): {"description": text, "content": content} for status, text in statuses.items()}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        prog="python -m image.gateway.openapi", description="Print the gateway's OpenAPI document as JSON."
    )
    parser.parse_args()
    print(json.dumps(document(), indent=2))
