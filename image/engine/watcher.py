"""Keeps what a start compiled, once vLLM answers: a small process beside it, so that vLLM stays the container's own."""

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
SETTLED_SECONDS = 10.0  # without a new file: kernels are still compiled for the first requests
LONGEST_SETTLING_SECONDS = 120.0
LATER_SECONDS = 600.0  # by then requests of all kinds have had their kernels compiled, too
RETRIES = 5
# A proxy that the environment names is for the way to the hub; asked for 127.0.0.1, it would look on its own machine.
_direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@dataclass(frozen=True)
class Watch:
    """What is watched and kept.

    Attributes:
        health: address that answers 200 once the engine serves.
        kept: what is kept, each with what it was restored with.
        marker: file to touch once all of it is kept, or None.
        began: time.monotonic() when the container started.
        settled_seconds: for how long nothing may change before it is kept.
        later_seconds: after which it is looked at once more.
    """

    health: str
    kept: Sequence[tuple[CompileCache, Mapping[str, int]]]
    marker: Path | None
    began: float
    settled_seconds: float = SETTLED_SECONDS
    later_seconds: float = LATER_SECONDS


def start(watch: Watch, tell: Callable[[str], None], *, engine: int | None = None) -> None:
    """Fork a process that watches the engine; it is nobody's child to wait for.

    Args:
        watch: what.
        tell: takes lines for the log.
        engine: its process; None: the one that calls this, which is about to become it by exec.
    """
    parent = os.pidfd_open(engine or os.getpid())
    child = os.fork()
    if child:
        os.close(parent)
        os.waitpid(child, 0)
        return
    try:
        if os.fork() == 0:
            os.setsid()  # a Ctrl-C in a terminal is for vLLM
            os.nice(10)
            run(watch, parent, tell)
    except Exception as error:  # the boundary of a process whose end nobody looks at
        tell(f"kept files: not kept ({type(error).__name__}: {error}); the next start compiles again")
    finally:
        os._exit(0)


def run(watch: Watch, parent: int, tell: Callable[[str], None]) -> None:
    """Wait until the engine serves and nothing new is compiled, then keep it.

    Args:
        watch: what.
        parent: pidfd of the engine; when it ends this ends, too.
        tell: takes lines for the log.
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
                tell(line)
        except BlockingIOError:
            continue
        except OSError as error:
            tell(
                f"{kept.kind}: cannot be kept at {kept.store} ({error.strerror or error}); the next start compiles again"
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
    """Whether the process ended; waits for that so long."""
    poll = select.poll()
    poll.register(parent, select.POLLIN)
    return bool(poll.poll(seconds * 1000))
