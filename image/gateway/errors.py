"""Errors as OpenAI's API words them, so that any OpenAI client raises its right exception.

Shape: {"error": {"message", "type", "param", "code"}}; https://platform.openai.com/docs/guides/error-codes
"""

from __future__ import annotations

import json


class ApiError(Exception):
    """An answer that is an error. `reason` is its name in the log and the metrics; the message is for the client."""

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

    def body(self) -> bytes:
        """The JSON document of the answer."""
        error = {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}
        return json.dumps({"error": error}, separators=(",", ":")).encode()

    def event(self) -> bytes:
        """The same as a server-sent event, for a stream whose status is already on its way."""
        return b"data: " + self.body() + b"\n\n"


def not_found(path: str) -> ApiError:
    """No such path, or one the gateway keeps from the engine's users."""
    return ApiError(404, f"Unknown path {path!r}; see /info for those served.", reason="path", code="not_found")


def not_of_this_model(path: str) -> ApiError:
    """The path exists for models of another kind, such as those that embed."""
    return ApiError(404, f"The model here does not serve {path}.", reason="path", code="not_found")


def method_not_allowed(method: str, allowed: str) -> ApiError:
    """The path exists, but not for this method."""
    message = f"Method {method} is not allowed here; use {allowed}."
    return ApiError(405, message, reason="method", headers=((b"allow", allowed.encode()),))


def bad_key() -> ApiError:
    """No key or a wrong one. Says nothing of which."""
    message = "Incorrect or missing API key; send it as 'Authorization: Bearer KEY'."
    challenge = ((b"www-authenticate", b"Bearer"),)
    return ApiError(401, message, reason="key", code="invalid_api_key", headers=challenge)


def bad_body(message: str, *, status: int = 400, reason: str = "body", param: str | None = None) -> ApiError:
    """The body cannot be read as what the path takes."""
    return ApiError(status, message, reason=reason, param=param)


def body_too_large(limit_bytes: int) -> ApiError:
    """The body is over GATEWAY_MAX_BODY_BYTES."""
    return bad_body(f"The body is over {limit_bytes} bytes.", status=413, reason="body_too_large")


def unknown_coding() -> ApiError:
    """The body's Content-Encoding is one that is not read."""
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
    """The body names a model that is not served here."""
    message = f"The model {model[:128]!r} does not exist; see /v1/models."
    return ApiError(404, message, reason="model", code="model_not_found", param="model")


def queue_full(reason: str, retry_after_seconds: int) -> ApiError:
    """As many requests or bytes wait as may; `reason` says which."""
    message = "Too many requests are waiting; try again shortly."
    return ApiError(
        429, message, reason=reason, kind="rate_limit_error", code="queue_full", retry_after_seconds=retry_after_seconds
    )


def key_limit(reason: str, limit: str, retry_after_seconds: int) -> ApiError:
    """The key has used what it may: requests at once, or requests or tokens in a minute."""
    return ApiError(
        429,
        f"This key's limit of {limit} is reached; try again in {retry_after_seconds} s.",
        reason=f"key_{reason}",
        kind="rate_limit_error",
        code="rate_limit_exceeded",
        retry_after_seconds=retry_after_seconds,
    )


def unavailable(message: str, reason: str, retry_after_seconds: int) -> ApiError:
    """Nothing can answer now; a later try may succeed."""
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
    """A fault of the gateway's own; the log has it."""
    message = "The gateway failed; its log has the reason under this request's x-request-id."
    return ApiError(500, message, reason="internal", kind="server_error", code="internal_error")
