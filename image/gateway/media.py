"""Addresses of pictures, videos and sounds in a request: the engine fetches them, from inside the network.

Whoever has a key could so have it ask what only it reaches: its neighbours, the cloud's metadata. What is no public host is
refused. A public name may still lead to a private address; vLLM's --allowed-media-domains closes that, too.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection
from typing import Any

from image.gateway import errors

# The fields that hold an address, in chat and in responses: itself, or an object with it as `url`.
_FIELDS = frozenset(("image_url", "video_url", "audio_url", "file_url"))
_DATA = "data:"
# Stricter than any parser behind it: no user, no other spelling of a number, nothing that two parsers read in two ways.
_ADDRESS = re.compile(
    r"https?://(?P<host>[a-z0-9.-]{1,253}|\[[0-9a-f:.]{2,45}\])(:\d{1,5})?([/?#][\x21-\x7e]*)?", re.IGNORECASE
)
_PUBLIC_NAME = re.compile(r"(?=.*\.)(?:[a-z0-9-]{1,63}\.)*[a-z0-9-]{1,63}\.[a-z][a-z-]*[a-z]", re.IGNORECASE)
# Names that only a private network has.
_PRIVATE_NAMES = (".internal", ".local", ".localhost", ".localdomain", ".lan", ".home", ".corp", ".arpa", ".svc")
_SHOWN = 80


def check(document: dict[str, Any], hosts: Collection[str]) -> None:
    """Refuse a body with an address that is not of a public host or one of `hosts`; raises the 400."""
    waiting: list[Any] = [document]
    while waiting:
        node = waiting.pop()
        if isinstance(node, list):
            waiting += node
        elif isinstance(node, dict):
            for name, value in node.items():
                if name in _FIELDS:
                    address = value.get("url") if isinstance(value, dict) else value
                    if isinstance(address, str) and not _is_allowed(address, hosts):
                        raise errors.bad_body(
                            f"{address[:_SHOWN]!r} is not an http(s) address of a public host; send the content as a data: URL.",
                            reason="media_address",
                            param=name,
                        )
                if isinstance(value, dict | list):
                    waiting.append(value)


def check_sources(turns: Any, hosts: Collection[str]) -> None:
    """The same for the turns of an Anthropic conversation, whose images are `{"source": {"type": "url", "url": ...}}`,
    in a tool's result, too; raises the 400.
    """
    waiting = [turn.get("content") for turn in turns if isinstance(turn, dict)] if isinstance(turns, list) else []
    while waiting:
        blocks = waiting.pop()
        for block in blocks if isinstance(blocks, list) else ():
            if isinstance(block, dict):
                source = block.get("source")
                address = source.get("url") if isinstance(source, dict) else None
                if isinstance(address, str) and not _is_allowed(address, hosts):
                    raise errors.bad_body(
                        f"{address[:_SHOWN]!r} is not an http(s) address of a public host; send the image as base64.",
                        reason="media_address",
                        param="source",
                    )
                waiting.append(block.get("content"))


def may_hold_addresses(body: bytes) -> bool:
    """Whether a body can hold one at all; most do not, and need not be searched."""
    return b"_url" in body or b"\\u" in body


def _is_allowed(address: str, hosts: Collection[str]) -> bool:
    if address[: len(_DATA)].lower() == _DATA:
        return True
    match = _ADDRESS.fullmatch(address)
    if match is None:
        return False
    host = match["host"].lower()
    if host in hosts:
        return True
    try:
        literal = ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return _PUBLIC_NAME.fullmatch(host) is not None and not host.endswith(_PRIVATE_NAMES)
    mapped = getattr(literal, "ipv4_mapped", None) or getattr(literal, "sixtofour", None)
    return (mapped or literal).is_global
