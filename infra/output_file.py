"""Files that programs write their results to: checked before a run, written at its end, and never lost in between."""

from __future__ import annotations

import argparse
import contextlib
import errno
import os
import secrets
import stat
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from infra.errors import UserError
from infra.web_address import redact

STANDARD_OUTPUT = Path("-")
# A folder that no file can be made in; the file itself may still be writable.
_CLOSED_FOLDER = (errno.EACCES, errno.EPERM, errno.EROFS)
_results: list[TextIO] = []


class OutputError(UserError):
    """A file cannot be written; the message says which, and why."""


class OutputFile(argparse.Action):
    """The action of an option that names a file to write: stores the path, once it is checked. `-` is standard output.

    Raises OutputError, which names the option.
    """

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        """Part of argparse.Action."""
        setattr(namespace, self.dest, output_path(str(values), option_string or self.dest))


def output_path(text: str, option: str) -> Path:
    """Return the path of a file to write, checked. Raises OutputError, which names the option."""
    if not text or text.endswith("/"):
        raise OutputError(
            f"{option}: found {text!r}, which does not name a file. Set a file name, or - for standard output"
        )
    path = Path(text)
    if path == STANDARD_OUTPUT and text != "-":
        path = Path.cwd() / text
    try:
        check(path)
    except OutputError as error:
        raise OutputError(f"{option}: {error}") from None
    return path


def check(path: Path) -> None:
    """Raise OutputError if the file cannot be written now. Changes nothing."""
    if is_standard_output(path):
        return
    try:
        try:
            found = path.stat()
        except FileNotFoundError:
            _check_folder(_target(path))
            return
        if stat.S_ISDIR(found.st_mode):
            raise OutputError(f"cannot write {path}: it is a folder. Name a file in it")
        if stat.S_ISREG(found.st_mode):
            os.close(os.open(path, os.O_WRONLY))
        elif not os.access(path, os.W_OK):
            raise OutputError(f"cannot write {path}: {os.strerror(errno.EACCES)}")
    except (OSError, ValueError) as error:
        raise _error(path, error) from None


def _check_folder(path: Path) -> None:
    if not path.parent.is_dir():
        raise OutputError(f"there is no folder {path.parent}; cannot write {path.name} in it")
    temporary = _temporary(path)
    try:
        os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def is_standard_output(path: Path) -> bool:
    """Whether the path is `-`, or another name of what standard output is connected to, such as /dev/stdout."""
    if path == STANDARD_OUTPUT:
        return True
    try:
        found, output = path.stat(), os.fstat(1)
    except (OSError, ValueError):
        return False
    is_null = stat.S_ISCHR(found.st_mode) and found.st_rdev == os.makedev(1, 3)
    return os.path.samestat(found, output) and not is_null


def is_same_file(one: Path, other: Path) -> bool:
    """Whether two paths name the same existing file."""
    try:
        return one.samefile(other)
    except (OSError, ValueError):
        return False


@contextlib.contextmanager
def results_to(*paths: Path | None) -> Iterator[None]:
    """While the block runs, print to stderr whatever is printed, if one of the paths is standard output."""
    if not any(path is not None and is_standard_output(path) for path in paths):
        yield
        return
    _results.append(sys.stdout)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        _results.pop()


def write(path: Path, text: str, *, precious: bool = True) -> None:
    """Write a whole file.

    A regular file is replaced in one step and keeps its mode; links are followed; a device, a pipe or a socket is written
    in place. User names and passwords in URLs are hidden.

    Args:
        path: `-` is standard output.
        text: the content.
        precious: if the file cannot be written, the text is printed on standard output instead, or saved in the folder for
            temporary files if that fails as well.

    Raises:
        OutputError: the file could not be written; the message says where the text is instead.
    """
    text = redact(text)
    try:
        if is_standard_output(path):
            output = _results[-1] if _results else sys.stdout
            output.write(text)
            output.flush()
        else:
            replace(path, text)
    except (OSError, ValueError) as error:
        instead = f". {_last_resort(path, text)}" if precious else ""
        raise OutputError(f"{_error(path, error)}{instead}") from None


def replace(path: Path, text: str, *, new_mode: int = 0o666) -> None:
    """Write a file as `write` does, without a last resort. `new_mode`: of a new file, before the umask. Raises OSError."""
    try:
        found = path.stat()
    except FileNotFoundError:
        found = None
    if found is not None and not _replaceable(path, found):
        _write_in_place(path, text)
        return
    target = _target(path)
    try:
        temporary = _temporary(target)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, new_mode)
    except OSError as error:
        if found is None or error.errno not in _CLOSED_FOLDER:
            raise
        _write_in_place(path, text)
        return
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(descriptor)
            if found is not None:
                os.fchmod(descriptor, stat.S_IMODE(found.st_mode))
        temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _replaceable(path: Path, found: os.stat_result) -> bool:
    """Whether another file may take its name. Not if the name is a descriptor's, or if others would keep the old file."""
    is_descriptor = str(path).startswith(("/dev/", "/proc/"))
    return stat.S_ISREG(found.st_mode) and not is_descriptor and found.st_nlink == 1 and found.st_uid == os.geteuid()


def _write_in_place(path: Path, text: str) -> None:
    if path.is_fifo():
        try:
            os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK))
        except OSError:
            print(f"waiting until a program reads {path}", file=sys.stderr, flush=True)
    with path.open("w", encoding="utf-8") as file:
        file.write(text)


def _target(path: Path) -> Path:
    """The path with links followed, so that a link stays a link."""
    return Path(os.path.realpath(path))


def _temporary(path: Path) -> Path:
    return path.parent / f".{os.getpid()}-{secrets.token_hex(4)}.part"


def _last_resort(path: Path, text: str) -> str:
    """Save the text somewhere; returns a sentence that says where."""
    if not is_standard_output(path) and sys.stdout is not None:
        try:
            output = _results[-1] if _results else sys.stdout
            output.write(text)
            output.flush()
        except (OSError, ValueError):
            pass
        else:
            return "The results are printed on standard output instead"
    try:
        with tempfile.NamedTemporaryFile(
            "w", prefix="results-", suffix=path.suffix, encoding="utf-8", delete=False
        ) as file:
            file.write(text)
    except OSError as error:
        return f"They could not be saved in {tempfile.gettempdir()} either: {error.strerror}"
    return f"The results are in {file.name} instead"


def _error(path: Path, error: Exception) -> OutputError:
    if isinstance(error, OutputError):
        return error
    name = "standard output" if path == STANDARD_OUTPUT else str(path)
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return OutputError(f"cannot write {name}: {reason}")
