"""Checks the URLs of images, videos, audio and files in a request, which the engine fetches from inside the network.

Without the check, a client with a key could make the engine request private hosts or the cloud's metadata service (SSRF).
Hosts that are not public are rejected. A public name may still resolve to a private address; vLLM's
--allowed-media-domains prevents that, too.
"""

from __future__ import annotations

import ipaddress
import re
import unicodedata
from collections.abc import Collection
from typing import Any

import idna

from image.gateway import errors

# The top-level fields whose content parts vLLM reads, on all forwarded paths: chat, responses, Anthropic's messages,
# embeddings and pooling, score, rerank. URLs in tools, schemas and metadata are not fetched. In `input`, parts may appear
# without an enclosing message.
_ROOTS = (
    "messages",
    "input",
    "system",
    "previous_input_messages",
    "documents",
    "query",
    "queries",
    "items",
    "data",
    "data_1",
    "data_2",
    "text_1",
    "text_2",
)
_BARE_PARTS = "input"
# The fields of a message, tool result or document that contain parts; URLs in other fields are not fetched.
_CONTENTS = ("content", "output", "source")
# The fields of a part that contain a URL, either directly or as `url` in an object. vLLM reads them regardless of the
# part's `type`. `source` is Anthropic's.
_FIELDS = (
    "image_url",
    "video_url",
    "audio_url",
    "file_url",
    "input_image",
    "input_video",
    "input_audio",
    "file",
    "source",
)
_URL_FIELDS = ("url", "file_url")
# For a quick check: most nodes have none of them.
_ANY_FIELD, _ANY_CONTENT = frozenset(_FIELDS), frozenset(_CONTENTS)
_SHOWN = 80

_DATA = "data:"
# Stricter than the parsers behind it: no user, no escapes, and nothing in the host that two parsers could read differently.
# After the host, anything but spaces and control characters.
_ADDRESS = re.compile(
    r"https?://(?P<host>\[[0-9a-f:.]{2,45}\]|[^\x00-\x20\x7f-\xa0/?#\[\]@\\:%]{1,253})(?::(?P<port>\d{1,5}))?"
    r"(?:[/?#][^\x00-\x20\x7f-\x9f\ud800-\udfff]*)?",
    re.IGNORECASE,
)
_LABELS = re.compile(r"(?=.{1,253}$)(?:[a-z0-9_-]{1,63}\.)+(?:[a-z]{2,63}|xn--[a-z0-9-]{0,58}[a-z0-9])")
# Names that exist only in private networks, or that resolve to a cloud's metadata service.
_PRIVATE_SUFFIXES = (
    ".internal",
    ".intranet",
    ".private",
    ".local",
    ".localhost",
    ".localdomain",
    ".lan",
    ".home",
    ".corp",
    ".arpa",
    ".svc",
    ".consul",
    ".docker",
)
_METADATA_NAMES = ("metadata.goog",)
_GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
# Checking one URL takes up to 50 us, and no model accepts this many.
_MOST_ADDRESSES = 1000


def check(document: dict[str, Any], hosts: Collection[str]) -> None:
    """Reject a body with a URL whose host is neither public nor in `hosts`, or with too many URLs; raises the 400."""
    left = _MOST_ADDRESSES
    waiting: list[tuple[Any, bool]] = [(document[root], root == _BARE_PARTS) for root in _ROOTS if root in document]
    while waiting:
        node, is_part = waiting.pop()
        if isinstance(node, list):
            waiting += [(item, is_part) for item in node]
        elif isinstance(node, dict):
            if is_part and not _ANY_FIELD.isdisjoint(node):
                left -= _check_part(node, hosts)
                if left < 0:
                    raise errors.bad_body(
                        f"The body contains more than {_MOST_ADDRESSES} addresses.", reason="media_address"
                    )
            if not _ANY_CONTENT.isdisjoint(node):
                waiting += [(node[name], True) for name in _CONTENTS if name in node]


def _check_part(part: dict[str, Any], hosts: Collection[str]) -> int:
    """The number of URLs in a part, data: URLs excluded; raises the 400 for a URL that is not allowed."""
    found = 0
    for name in _FIELDS:
        value = part.get(name)
        if isinstance(value, dict):
            addresses = [value.get(field) for field in _URL_FIELDS]
        else:
            addresses = [value] if name.endswith("_url") else []
        for address in addresses:
            if not isinstance(address, str) or address[: len(_DATA)].lower() == _DATA:
                continue
            found += 1
            if not _is_allowed(address, hosts):
                raise errors.bad_body(
                    f"{address[:_SHOWN]!r} is not an http(s) address of a public host; send the content as a data: URL.",
                    reason="media_address",
                    param=name,
                )
    return found


def may_hold_addresses(body: bytes) -> bool:
    """Whether a body can contain a URL at all. Most cannot, and need not be searched."""
    return b"url" in body or b"\\u" in body


def _is_allowed(address: str, hosts: Collection[str]) -> bool:
    match = _ADDRESS.fullmatch(address)
    if match is None or int(match["port"] or 0) > 65535:
        return False
    host = match["host"].lower()
    if host in hosts:
        return True
    try:
        literal = ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return _is_public_name(host, hosts)
    return _is_public_literal(literal)


def _is_public_literal(literal: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    if isinstance(literal, ipaddress.IPv6Address):
        if literal.ipv4_mapped or literal in _NAT64:
            literal = ipaddress.IPv4Address(int(literal) & 0xFFFFFFFF)
        elif literal.sixtofour:
            literal = literal.sixtofour
        elif literal not in _GLOBAL_UNICAST:
            return False
    return literal.is_global and not literal.is_multicast


def _is_public_name(host: str, hosts: Collection[str]) -> bool:
    name = host.removesuffix(".")
    if not name.isascii():
        # Reject a name that changes under another normalization: different parsers would read it differently.
        name = unicodedata.normalize("NFC", name)
        try:
            name = idna.encode(name, strict=True).decode()
        except (idna.IDNAError, UnicodeError):
            return False
    if name in hosts:
        return True
    # Some parsers read any name that ends in a number as an IPv4 address; no top-level domain ends in one.
    if _LABELS.fullmatch(name) is None:
        return False
    return not name.endswith(_PRIVATE_SUFFIXES) and not f".{name}".endswith(tuple(f".{n}" for n in _METADATA_NAMES))
