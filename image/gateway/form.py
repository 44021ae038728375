"""Parses the fields of a multipart form as the engine does. Files are skipped."""

from __future__ import annotations

import re
from collections.abc import Collection

from image.gateway import errors

_BOUNDARY = re.compile(rb'; *boundary=(?:"([^"]{1,70})"|([^\s;"]{1,70})(?=[\s;]|$))', re.IGNORECASE)
_LONGEST_PART_HEAD_BYTES = 8192
_MOST_PARTS = 1000  # the limit of vLLM's own parser
# Browsers and curl quote every value, .NET only if necessary.
_PARAMETER = re.compile(rb';[ \t]*([!#$%&\'*+.^_`|~0-9A-Za-z-]+)[ \t]*=[ \t]*(?:"((?:[^"\\]|\\.)*)"|([^;"\s]*))')
_QUOTED_PAIR = re.compile(rb"\\(.)")


def fields(body: bytes, content_type: bytes, wanted: Collection[bytes]) -> dict[bytes, str]:
    """The fields with these names; raises the 400 if the form is malformed or ambiguous."""
    boundaries = _BOUNDARY.findall(content_type)
    if len(boundaries) != 1:
        raise errors.bad_body("The Content-Type must have one boundary of at most 70 characters.")
    quoted, token = boundaries[0]
    delimiter = b"\r\n--" + (quoted or token)
    body = b"\r\n" + body.lstrip(b"\r\n")  # some clients start with an empty line, which the engine skips, too
    found: dict[bytes, str] = {}
    at = body.find(delimiter)
    if at != 0:
        raise errors.bad_body("The body does not begin with the form's boundary.")
    for _ in range(_MOST_PARTS):
        at += len(delimiter)
        if body[at : at + 2] == b"--":
            return found
        end = body.find(delimiter, at)
        head_end = body.find(b"\r\n\r\n", at, at + _LONGEST_PART_HEAD_BYTES)
        if end < 0 or not 0 <= head_end < end:
            raise errors.bad_body("The form is truncated or malformed.")
        name = _name(body[at:head_end])
        if name in wanted:
            if name in found:
                raise errors.bad_body(f"The form has the field {name.decode()!r} twice.")
            found[name] = body[head_end + 4 : end].decode("utf-8", "replace")
        at = end
    raise errors.bad_body(f"The form has more than {_MOST_PARTS} parts.", status=413, reason="body_too_large")


def _name(head: bytes) -> bytes:
    """The name of a part, from its headers; b"" if it has none."""
    names = []
    for line in head.split(b"\r\n"):
        header, _, value = line.partition(b":")
        if header.strip().lower() == b"content-disposition":
            names += [name for parameter, name in _parameters(value) if parameter == b"name"]
    if len(names) > 1:
        raise errors.bad_body("A part of the form has several names.")
    return names[0] if names else b""


def _parameters(value: bytes) -> list[tuple[bytes, bytes]]:
    """The parameters of a header's value, parsed in order, because a quoted value may look like another parameter."""
    found = []
    at = value.find(b";")
    while at >= 0:
        match = _PARAMETER.match(value, at)
        if match is not None:
            found.append((match[1].lower(), match[3] if match[2] is None else _QUOTED_PAIR.sub(rb"\1", match[2])))
            at = match.end()
        else:
            at += 1
        at = value.find(b";", at)
    return found
