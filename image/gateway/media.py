"""Addresses of pictures, videos, sounds and files in a request: the engine fetches them, from inside the network.

A client with a key could otherwise have the engine request what only the engine reaches: its neighbours, the cloud's
metadata. A host that is not public is refused. A public name may still lead to a private address; vLLM's
--allowed-media-domains closes that, too.
"""

from __future__ import annotations

import ipaddress
import re
import unicodedata
from collections.abc import Collection
from typing import Any

import idna

from image.gateway import errors

# The top-level fields whose content parts vLLM reads, on any of the paths that go through: chat, responses, Anthropic's
# messages, embeddings and pooling, score, rerank. Tools, schemas and metadata are nobody's to fetch from. In `input` the
# parts may come without a message around them.
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
# Where a message, a tool's result or a document holds parts; nothing else in one is fetched.
_CONTENTS = ("content", "output", "source")
# The fields of a part that hold an address: itself, or an object with it as `url`. vLLM reads them whatever the part's
# `type` says. `source` is Anthropic's.
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
# Most of what is looked at has none of them.
_ANY_FIELD, _ANY_CONTENT = frozenset(_FIELDS), frozenset(_CONTENTS)
_SHOWN = 80

_DATA = "data:"
# Stricter than any parser behind it: no user, no escape, nothing in the host that two parsers read in two ways. Behind the
# host, all but spaces and control characters.
_ADDRESS = re.compile(
    r"https?://(?P<host>\[[0-9a-f:.]{2,45}\]|[^\x00-\x20\x7f-\xa0/?#\[\]@\\:%]{1,253})(?::(?P<port>\d{1,5}))?"
    r"(?:[/?#][^\x00-\x20\x7f-\x9f\ud800-\udfff]*)?",
    re.IGNORECASE,
)
_LABELS = re.compile(r"(?=.{1,253}$)(?:[a-z0-9_-]{1,63}\.)+(?:[a-z]{2,63}|xn--[a-z0-9-]{0,58}[a-z0-9])")
# Names that only a private network has, or that lead to a cloud's metadata.
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
# To look at an address takes up to 50 us, and no model takes as many.
_MOST_ADDRESSES = 1000


def check(document: dict[str, Any], hosts: Collection[str]) -> None:
    """Refuse a body with an address that is not of a public host or one of `hosts`, or with too many; raises the 400."""
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
                        f"The body holds more than {_MOST_ADDRESSES} addresses.", reason="media_address"
                    )
            if not _ANY_CONTENT.isdisjoint(node):
                waiting += [(node[name], True) for name in _CONTENTS if name in node]


def _check_part(part: dict[str, Any], hosts: Collection[str]) -> int:
    """How many addresses a part holds that are no data: URLs; raises the 400 for one that is not allowed."""
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
    """Whether a body can hold one at all; most do not, and need not be searched."""
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
        # A name that another normalisation turns into another name is not valid, and its readers would disagree on it.
        name = unicodedata.normalize("NFC", name)
        try:
            name = idna.encode(name, strict=True).decode()
        except (idna.IDNAError, UnicodeError):
            return False
    if name in hosts:
        return True
    # What ends in a number is an IPv4 address to some readers, in any of its spellings; no top-level domain does.
    if _LABELS.fullmatch(name) is None:
        return False
    return not name.endswith(_PRIVATE_SUFFIXES) and not f".{name}".endswith(tuple(f".{n}" for n in _METADATA_NAMES))
