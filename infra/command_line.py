"""What every program here does alike: how it ends, and how it checks numbers.

`run` ends a program the way shells expect: one line instead of a traceback, 130 after Ctrl-C, 143 after SIGTERM, and 141
without a word if the reader of its output left, as in `| head`.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import math
import os
import signal
import sys
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, NoReturn, TextIO, cast

from infra.errors import UserError
from infra.interrupts import imported
from infra.web_address import redact, use_no_proxy_for_this_machine

READER_LEFT_EXIT_CODE = 128 + signal.SIGPIPE
LARGEST_COUNT = 10**9
_state: dict[str, Any] = {"keep_going": False, "signal": signal.SIGINT}


class Terminated(KeyboardInterrupt):
    """SIGTERM: ends a program as Ctrl-C does, so that whatever keeps partial results keeps them for both."""


class ReaderLeft(SystemExit):
    """The reader of standard output closed the pipe."""


def run(main: Callable[[], int]) -> NoReturn:
    """Run a program's main function and exit with its code."""
    sys.exit(exit_code(main))


def exit_code(main: Callable[[], int]) -> int:
    """Run a program's main function; returns what to exit with."""
    imported()
    use_no_proxy_for_this_machine()
    for name in ("stdout", "stderr"):
        setattr(sys, name, _Stream(getattr(sys, name) or open(os.devnull, "w"), is_output=name == "stdout"))  # noqa: PTH123, SIM115
    argparse.ArgumentParser.error = _usage_error  # type: ignore[assignment, method-assign]
    with contextlib.suppress(ValueError):  # not in the main thread
        signal.signal(signal.SIGTERM, _terminate)
    try:
        try:
            code = main()
        finally:
            sys.stdout.flush()
    except KeyboardInterrupt as error:
        with contextlib.suppress(ValueError):
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        print(f"\r{error or 'interrupted'}" if sys.stderr.isatty() else str(error) or "interrupted", file=sys.stderr)
        return interrupted_exit_code()
    except ReaderLeft:
        return READER_LEFT_EXIT_CODE
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        what = f"{error.filename}: " if error.filename else ""
        print(f"error: {what}{error.strerror or error}", file=sys.stderr)
        return 1
    return code


def _usage_error(parser: argparse.ArgumentParser, message: str) -> NoReturn:
    """One line instead of the usage, which is a screen long for some programs."""
    more = "" if os.environ.get("STARTED_BY_MAKE") else "; see --help"
    parser.exit(2, f"error: {message}{more}\n")


def interrupted_exit_code() -> int:
    """128 plus the signal that ended the program: 130 after Ctrl-C, 143 after SIGTERM."""
    return 128 + int(_state["signal"])


def note_signal(number: int) -> None:
    """Remember which signal ended the program, for a program that handles signals itself."""
    _state["signal"] = number


def _terminate(number: int, frame: FrameType | None) -> None:
    del frame
    note_signal(number)
    raise Terminated("terminated")


@contextlib.contextmanager
def without_reader(go_on: bool = True) -> Iterator[None]:
    """While the block runs, and if `go_on`, a reader that leaves does not end the program: its results go to a file."""
    before, _state["keep_going"] = _state["keep_going"], _state["keep_going"] or go_on
    try:
        yield
    finally:
        _state["keep_going"] = before


class _Stream:
    """Standard output or standard error: hides secrets, never fails on a character, and notices that its reader left."""

    def __init__(self, stream: TextIO, *, is_output: bool) -> None:
        self._stream, self._is_output = stream, is_output
        with contextlib.suppress(AttributeError, ValueError):
            cast(Any, stream).reconfigure(errors="backslashreplace")

    def write(self, text: str) -> int:
        with self._failures():
            self._stream.write(redact(text))
        return len(text)

    def flush(self) -> None:
        with self._failures():
            self._stream.flush()

    @contextlib.contextmanager
    def _failures(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            with contextlib.suppress(
                OSError, ValueError
            ):  # nothing fails again, and Python has nothing to flush at its end
                os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())
            if not self._is_output or (error.errno == errno.EPIPE and _state["keep_going"]):
                return
            if error.errno == errno.EPIPE:
                raise ReaderLeft(READER_LEFT_EXIT_CODE) from None
            raise OSError(error.errno, f"cannot write to standard output: {error.strerror}") from None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def count(text: str) -> int:
    """The type of an option: a whole number, at least 1."""
    return _whole(text, 1)


def count_or_zero(text: str) -> int:
    """The type of an option: a whole number, at least 0."""
    return _whole(text, 0)


def _whole(text: str, least: int) -> int:
    try:
        value = int(text)
    except ValueError:
        value = least - 1
    if not least <= value <= LARGEST_COUNT:
        raise argparse.ArgumentTypeError(f"{text!r} must be a whole number from {least} to {LARGEST_COUNT}")
    return value


def positive(text: str) -> float:
    """The type of an option: a finite number above 0."""
    value = _number(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} must be a number above 0")
    return value


def zero_or_more(text: str) -> float:
    """The type of an option: a finite number, at least 0."""
    value = _number(text)
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} must be a number, at least 0")
    return value


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
