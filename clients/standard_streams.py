"""stdin, stdout and stderr of the clients, whatever the shell made of them: closed, not UTF-8, or a Windows file."""

from __future__ import annotations

import codecs
import contextlib
import os
import sys
from pathlib import Path
from typing import TextIO

# UTF-32 first: its little-endian mark begins with that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"),
)  # fmt: skip


class NotTextError(Exception):
    """stdin is not text in an encoding that is recognized. The message says what to do."""


def open_streams() -> None:
    """Replace closed streams by the null device, and never fail on a character that the terminal cannot show."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # the shell closed it, as with <&-
            setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))  # noqa: SIM115 - until the process ends
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError):
            stream.reconfigure(errors="replace")  # type: ignore[union-attr]


def question_from(stream: TextIO) -> str:
    """All text of a pipe: UTF-8 whatever the locale, or what its byte order mark names; lines end with a line feed.

    Raises:
        NotTextError: it is neither.
    """
    if not hasattr(stream, "buffer"):
        return stream.read()
    data = stream.buffer.read()
    encoding = next((name for mark, name in _MARKS if data.startswith(mark)), "utf-8")
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        found = f"byte 0x{data[error.start]:02x} at position {error.start}"
        raise NotTextError(
            f"the text on stdin is not valid {encoding.removesuffix('-sig').upper()} ({found}). "
            "Convert it first, for example with: iconv -f ISO-8859-1 -t UTF-8"
        ) from None
    return text.replace("\r\n", "\n").replace("\r", "\n")
