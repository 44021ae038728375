"""Colored output: only on a terminal, and never with NO_COLOR (https://no-color.org). Uses the standard library only."""

from __future__ import annotations

import os
import sys
from typing import Literal, TextIO

Style = Literal["bold", "dim", "red", "green", "yellow"]
_CODES: dict[Style, str] = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33"}


def has_colors(stream: TextIO) -> bool:
    """Whether the stream is a terminal that supports colors, and NO_COLOR is not set."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def paint(text: str, style: Style, stream: TextIO | None = None) -> str:
    """The text in this style if the stream (default: stdout) supports colors, else the unchanged text."""
    if not text or not has_colors(stream or sys.stdout):
        return text
    return f"\x1b[{_CODES[style]}m{text}\x1b[0m"
