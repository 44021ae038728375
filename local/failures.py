"""Extracts the reason of a failure as one line from a log."""

from __future__ import annotations

import errno
import os
import re
import signal
from pathlib import Path

LONGEST_REASON = 300
# vLLM's lines begin "(EngineCore pid=12) ERROR 11-21 01:57:49 [core.py:133] "; a traceback's last line "ValueError: ...".
_PREFIX = re.compile(r"^(\([^)]*pid=\d+\)\s*)?((ERROR|WARNING|INFO)\s+\S+\s+\S+\s+\[[^\]]*\]\s*)?")
_EXCEPTION = re.compile(r"^(?:[\w.]*\.)?(\w*(?:Error|Exception|Interrupt|Exit)): (.+)$")
_USAGE = re.compile(r"^(?:\S+: error|gateway): (.+)$")
# Errors of vLLM that only follow from another error.
_CONSEQUENCE = re.compile(
    r"engine core initialization failed|enginecore failed|engine process|worker ?proc|cancelled|enginedead|"
    r"resource_tracker|see root cause|failed core proc|died unexpectedly",
    re.IGNORECASE,
)
_KNOWN = (
    (r"No space left on device|Disk quota exceeded", "the disk is full"),
    (r"contains the PATH separator",
     "Python creates no environments in a folder whose path contains a colon. Rename the folder, or clone elsewhere"),
    (r"Could not find a version that satisfies the requirement (\S+)", "pip finds no {} for this Python and machine"),
    (r"Temporary failure in name resolution|NewConnectionError|Max retries exceeded|Network is unreachable",
     "the package index cannot be reached. Check the network; behind a proxy, set HTTPS_PROXY"),
    (r"address already in use", "its port is in use"),
    (r"CUDA out of memory|OutOfMemoryError", "the GPU's memory is full. Stop other processes that use it, or set MODEL to a smaller model"),
    (r"Cannot allocate memory|MemoryError|std::bad_alloc", "this machine's memory is full"),
    (r"InvalidCxxCompiler|No working C\+\+ compiler|C\+\+ compiler.*not found", "there is no C++ compiler. Install g++"),
)  # fmt: skip


class LocalError(Exception):
    """`make local` cannot continue. The message is one line; ``log`` is the file with details."""

    def __init__(self, reason: str, log: Path | None = None) -> None:
        self.log = log
        super().__init__(f"{reason}{f'. The log: {log}' if log else ''}")


def one_line(error: OSError) -> str:
    """Explain an operating system's error, and what to do about it."""
    what = os.strerror(error.errno) if error.errno else str(error)
    place = f"{error.filename}: " if error.filename else ""
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR):
        return f"{place}{what}. This folder is not writable; clone the repository to a writable folder"
    return f"{place}{what}"


def reason(output: str, exit_code: int | None) -> str:
    """The line in a failed command's output that contains the reason.

    Args:
        output: the command's output.
        exit_code: its exit code, above 128 if a signal terminated it; None after a timeout.
    """
    for pattern, words in _KNOWN:
        if match := re.search(pattern, output, re.IGNORECASE):
            return words.format(*match.groups())
    causes: list[str] = []
    errors: list[str] = []
    for raw in output.splitlines():
        line = _PREFIX.sub("", raw).strip()
        if match := _EXCEPTION.match(line):
            (errors if _CONSEQUENCE.search(line) else causes).append(match[2] if match[1] == "Error" else line)
        elif match := _USAGE.match(line):
            causes.append(match[1])
        elif line.startswith("FAILED "):  # pytest's summary
            causes.append(line.removeprefix("FAILED "))
        elif line.lower().startswith("error: "):
            causes.append(line[len("error: ") :])
    if causes:
        return _short(causes[-1])
    if exit_code is None:
        return "it timed out"
    if exit_code == 128 + signal.SIGKILL:
        return "it was killed (SIGKILL), manually or by the kernel because memory ran out"
    if exit_code > 128 and exit_code - 128 in signal.valid_signals():
        return f"it was terminated by {signal.Signals(exit_code - 128).name}"
    return _short(errors[-1]) if errors else f"it exited with code {exit_code} and no output"


def _short(text: str) -> str:
    return text.rstrip(".") if len(text) <= LONGEST_REASON else f"{text[:LONGEST_REASON]}..."
