"""The chat page at `/` of a local gateway: a single file without external resources and without a key."""

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from image.gateway.exchange import Exchange

_FILE = Path(__file__).with_name("chat_page.html")


class ChatPage:
    """The page and its headers, loaded once."""

    def __init__(self) -> None:
        text = _FILE.read_text(encoding="utf-8")
        self._body = text.encode()
        policy = {
            "default-src": "'none'",
            "script-src": _hash(text, "script"),
            "style-src": _hash(text, "style"),
            "connect-src": "'self'",
            "base-uri": "'none'",
            "form-action": "'none'",
            "frame-ancestors": "'none'",
            "require-trusted-types-for": "'script'",
        }
        self._headers = (
            (b"content-security-policy", "; ".join(f"{name} {value}" for name, value in policy.items()).encode()),
            (b"referrer-policy", b"no-referrer"),
            (b"x-content-type-options", b"nosniff"),
            (b"cache-control", b"no-store"),
        )

    async def answer(self, exchange: Exchange) -> None:
        """Send the page."""
        await exchange.answer(200, self._body, b"text/html; charset=utf-8", self._headers)


def _hash(text: str, element: str) -> str:
    """The CSP source for the page's only inline element of this name, so that injected scripts and styles do not run."""
    (inside,) = re.findall(f"<{element}>(.*?)</{element}>", text, re.DOTALL)
    return f"'sha256-{base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()}'"
