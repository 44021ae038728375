"""Caches compiled files once vLLM is ready, in a small separate process, so that vLLM remains the container's main one."""

from __future__ import annotations

import os
import select
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from image.engine.compile_cache import CompileCache, contents, publish

POLL_SECONDS = 1.0
SETTLED_SECONDS = 10.0  # without a new file, because the first requests still compile kernels
LONGEST_SETTLING_SECONDS = 120.0
LATER_SECONDS = 600.0  # by then, kernels for all kinds of requests are compiled
RETRIES = 5
# Ignore proxies: those in the environment are for the Hub, and would resolve 127.0.0.1 to their own machine.
_direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@dataclass(frozen=True)
class Watch:
    """What to watch and cache.

    Attributes:
        health: URL that returns 200 once the engine is ready.
        kept: the caches, each with the result of its restore.
        marker: file to touch once everything is cached, or None.
        began: time.monotonic() of the container's start.
        settled_seconds: how long no file may change before caching.
        later_seconds: when to check for new files again.
    """

    health: str
    kept: Sequence[tuple[CompileCache, Mapping[str, int]]]
    marker: Path | None
    began: float
    settled_seconds: float = SETTLED_SECONDS
    later_seconds: float = LATER_SECONDS


def start(watch: Watch, tell: Callable[[str], None], *, engine: int | None = None) -> None:
    """Fork a detached process that watches the engine.

    Args:
        watch: what to watch and cache.
        tell: logs a line.
        engine: the engine's process id; None for the calling process, which becomes the engine by exec.
    """
    parent = os.pidfd_open(engine or os.getpid())
    child = os.fork()
    if child:
        os.close(parent)
        os.waitpid(child, 0)
        return
    try:
        if os.fork() == 0:
            os.setsid()  # Ctrl-C in a terminal must only reach vLLM
            os.nice(10)
            run(watch, parent, tell)
    except Exception as error:  # top level of a detached process
        tell(f"compile cache: not saved ({type(error).__name__}: {error}); the next start compiles again")
    finally:
        os._exit(0)


def run(watch: Watch, parent: int, tell: Callable[[str], None]) -> None:
    """Wait until the engine is ready and compiles nothing new, then cache its compiled files.

    Args:
        watch: what to watch and cache.
        parent: pidfd of the engine; when the engine exits, so does this process.
        tell: logs a line.
    """
    while not _answers(watch.health):
        if _ended(parent, POLL_SECONDS):
            return
    tell(f"ready after {time.monotonic() - watch.began:.1f} s")
    if not _keep_all(watch, watch.kept, parent, tell):
        return
    if watch.marker:
        watch.marker.parent.mkdir(parents=True, exist_ok=True)
        watch.marker.touch()
    now = [(kept, contents(kept.local)) for kept, _ in watch.kept]
    if not _ended(parent, watch.later_seconds):
        _keep_all(watch, now, parent, tell)


def _keep_all(
    watch: Watch, all_kept: Sequence[tuple[CompileCache, Mapping[str, int]]], parent: int, tell: Callable[[str], None]
) -> bool:
    limit = time.monotonic() + LONGEST_SETTLING_SECONDS
    done = [_keep(kept, known, watch.settled_seconds, limit, parent, tell) for kept, known in all_kept]
    return all(done)


def _keep(
    kept: CompileCache,
    known: Mapping[str, int],
    settled_seconds: float,
    limit: float,
    parent: int,
    tell: Callable[[str], None],
) -> bool:
    for _ in range(RETRIES):
        seen = contents(kept.local)
        while time.monotonic() < limit:
            if _ended(parent, settled_seconds):
                return False
            last, seen = seen, contents(kept.local)
            if seen == last:
                break
        try:
            if line := publish(kept, known):
                tell(f"compile cache: {line}")
        except BlockingIOError:
            continue
        except OSError as error:
            tell(
                f"compile cache: {kept.kind}: cannot be saved in {kept.store} ({error.strerror or error}); the next start compiles again"
            )
            return False
        return True
    return False


def _answers(address: str) -> bool:
    try:
        with _direct.open(address, timeout=5) as answer:
            return bool(answer.status == 200)
    except (OSError, urllib.error.URLError):
        return False


def _ended(parent: int, seconds: float) -> bool:
    """Whether the process exited within `seconds`."""
    poll = select.poll()
    poll.register(parent, select.POLLIN)
    return bool(poll.poll(seconds * 1000))
