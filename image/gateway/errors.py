"""Errors in the format that the client's SDK expects, so that it raises the right exception.

OpenAI's: {"error": {"message", "type", "param", "code"}}; https://platform.openai.com/docs/guides/error-codes
Anthropic's: {"type": "error", "error": {"type", "message"}, "request_id"}; https://docs.anthropic.com/en/api/errors
"""

from __future__ import annotations

import json
from enum import Enum
from typing import Any


class Shape(Enum):
    """The API whose error format the client expects."""

    OPENAI = "openai"
    ANTHROPIC = "anthropic"


_ANTHROPIC_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}


class ApiError(Exception):
    """An error response. `reason` is its name in the log and the metrics; the message is for the client."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        reason: str,
        kind: str = "invalid_request_error",
        code: str | None = None,
        param: str | None = None,
        retry_after_seconds: int | None = None,
        headers: tuple[tuple[bytes, bytes], ...] = (),
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.reason = reason
        self.kind = kind
        self.code = code
        self.param = param
        self.headers = headers
        if retry_after_seconds is not None:
            self.headers += ((b"retry-after", b"%d" % retry_after_seconds),)

    def body(self, shape: Shape = Shape.OPENAI, request_id: str | None = None) -> bytes:
        """The JSON document of the answer; Anthropic's format includes the request id."""
        document: dict[str, Any]
        if shape is Shape.ANTHROPIC:
            kind = _ANTHROPIC_TYPES.get(self.status, "invalid_request_error" if self.status < 500 else "api_error")
            document = {"type": "error", "error": {"type": kind, "message": self.message}, "request_id": request_id}
        else:
            error = {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}
            document = {"error": error}
        return json.dumps(document, separators=(",", ":")).encode()

    def event(self, shape: Shape = Shape.OPENAI, request_id: str | None = None) -> bytes:
        """The same as a server-sent event, for a stream whose status is already sent."""
        return as_event(self.body(shape, request_id), shape)


def as_event(document: bytes, shape: Shape) -> bytes:
    """An error document as a server-sent event that the client's SDK recognizes as an error."""
    # OpenAI's SDKs look for "error" in the data, Anthropic's only at the event's name.
    name = b"event: error\n" if shape is Shape.ANTHROPIC else b""
    return name + b"data: " + document + b"\n\n"


def reshape(document: bytes, shape: Shape, status: int, request_id: str) -> bytes:
    """An engine's error in the client's format. vLLM rejects some Anthropic requests in OpenAI's format; a document in
    neither format is returned unchanged.
    """
    if shape is Shape.OPENAI:
        return document
    try:
        parsed = json.loads(document)
        if parsed.get("type") == "error":
            return document
        message = parsed["error"]["message"]
    except (ValueError, AttributeError, KeyError, TypeError):
        return document
    return ApiError(status, str(message), reason="engine").body(shape, request_id)


def not_found(path: str, meant: str = "") -> ApiError:
    """The path does not exist or is not exposed. `meant`: the path that a wrong base URL was probably meant to reach."""
    hint = f"set the client's base URL so that it asks for {meant!r}" if meant else "see /info for those served"
    return ApiError(404, f"Unknown path {path!r}; {hint}.", reason="path", code="not_found")


def not_of_this_model(path: str) -> ApiError:
    """The path exists for models of another kind, such as embedding models."""
    return ApiError(404, f"This model does not support {path}.", reason="path", code="not_found")


def method_not_allowed(method: str, allowed: str) -> ApiError:
    """The path exists, but not for this method."""
    message = f"Method {method} is not allowed here; use {allowed}."
    return ApiError(405, message, reason="method", headers=((b"allow", allowed.encode()),))


_CHALLENGE = ((b"www-authenticate", b"Bearer"),)


def bad_key() -> ApiError:
    """The key is missing or wrong. The message does not reveal which."""
    message = (
        "Incorrect or missing API key; send it as 'Authorization: Bearer KEY', 'x-api-key: KEY' or 'api-key: KEY'."
    )
    return ApiError(401, message, reason="key", code="invalid_api_key", headers=_CHALLENGE)


def conflicting_keys() -> ApiError:
    """Two headers contain valid keys of different names."""
    message = "The request contains different API keys in Authorization, x-api-key and api-key; send only one."
    return ApiError(401, message, reason="key_conflict", code="invalid_api_key", headers=_CHALLENGE)


def expired_key(when: str) -> ApiError:
    """A key that was valid until `when`."""
    message = f"This API key expired on {when}; ask the operator of this endpoint for a new one."
    return ApiError(401, message, reason="key_expired", code="expired_api_key", headers=_CHALLENGE)


def origin_not_allowed(origin: str) -> ApiError:
    """A preflight request from an origin that is not allowed."""
    message = f"Pages from {origin[:256]!r} may not use this endpoint; add the origin to allowedOrigins."
    return ApiError(403, message, reason="origin", code="origin_not_allowed")


def bad_body(message: str, *, status: int = 400, reason: str = "body", param: str | None = None) -> ApiError:
    """The path does not accept the body."""
    return ApiError(status, message, reason=reason, param=param)


def body_too_large(limit_bytes: int) -> ApiError:
    """The body is larger than GATEWAY_MAX_BODY_BYTES."""
    return bad_body(f"The body is larger than {limit_bytes} bytes.", status=413, reason="body_too_large")


def unknown_coding() -> ApiError:
    """The body's Content-Encoding is not supported."""
    return ApiError(
        415,
        "Content-Encoding must be gzip or absent.",
        reason="content_encoding",
        headers=((b"accept-encoding", b"gzip"),),
    )


def body_timeout(seconds: float) -> ApiError:
    """The body did not arrive within GATEWAY_BODY_TIMEOUT_SECONDS."""
    return bad_body(f"The body did not arrive within {seconds:g} s.", status=408, reason="body_timeout")


def unknown_model(model: str) -> ApiError:
    """The body names a model that this endpoint does not serve."""
    message = f"The model {model[:128]!r} does not exist; see /v1/models."
    return ApiError(404, message, reason="model", code="model_not_found", param="model")


def queue_full(reason: str, retry_after_seconds: int) -> ApiError:
    """The queue's limit of requests or bytes is reached; `reason` says which."""
    message = "Too many requests are waiting; try again shortly."
    return ApiError(
        429, message, reason=reason, kind="rate_limit_error", code="queue_full", retry_after_seconds=retry_after_seconds
    )


def key_limit(reason: str, limit: str, retry_after_seconds: int) -> ApiError:
    """The key reached a limit: concurrent requests, or requests or tokens per minute."""
    return ApiError(
        429,
        f"This key's limit of {limit} is reached; try again in {retry_after_seconds} s.",
        reason=f"key_{reason}",
        kind="rate_limit_error",
        code="rate_limit_exceeded",
        retry_after_seconds=retry_after_seconds,
    )


def unavailable(message: str, reason: str, retry_after_seconds: int) -> ApiError:
    """No replica can answer now; a retry may succeed."""
    return ApiError(
        503, message, reason=reason, kind="server_error", code=reason, retry_after_seconds=retry_after_seconds
    )


def upstream_failed(message: str, reason: str) -> ApiError:
    """The engine failed under this request."""
    return ApiError(502, message, reason=reason, kind="server_error", code="engine_failed")


def upstream_timeout(seconds: float) -> ApiError:
    """The engine did not finish within GATEWAY_REQUEST_TIMEOUT_SECONDS."""
    message = f"The engine did not finish its answer within {seconds:g} s."
    return ApiError(504, message, reason="request_timeout", kind="server_error", code="request_timeout")


def internal() -> ApiError:
    """An error in the gateway itself, which is logged."""
    message = "The gateway failed. Search its log for this request's x-request-id."
    return ApiError(500, message, reason="internal", kind="server_error", code="internal_error")
