"""Several processes and one folder, with and without working locks."""

import errno
import fcntl
import os
import threading
from pathlib import Path

import pytest

from fakes.fake_hub import FakeHub
from image.engine import locks
from image.engine.arguments import EngineError
from tests.image.engine.conftest import FIRST, MODEL, SECOND, have, right

NO_LOCKS = {"enolck": errno.ENOLCK, "estale": errno.ESTALE, "succeeds_without_locking": 0}


@pytest.mark.parametrize("lock", NO_LOCKS)
def test_writers_without_a_lock_leave_right_bytes(
    tmp_path: Path, hub: FakeHub, monkeypatch: pytest.MonkeyPatch, lock: str
) -> None:
    def flock(*_: object) -> None:
        if number := NO_LOCKS[lock]:
            raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    hub.models[MODEL].cuts = {FIRST: 300_000, SECOND: 700_000}
    told: list[str] = []
    found = []
    writers = [threading.Thread(target=lambda: found.append(have(tmp_path, hub, told))) for _ in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(30)
    assert len(found) == 4
    assert all(right(weights, hub.models[MODEL]) for weights in found)
    assert ("continuing without a lock" in "".join(told)) == (lock != "succeeds_without_locking")
    hub.broken = True
    assert right(have(tmp_path, hub), hub.models[MODEL])
    assert not list(tmp_path.rglob("*.part"))


@pytest.mark.parametrize(("number", "message"), [(errno.ENOSPC, "is full"), (errno.EROFS, "Read-only file system")])
def test_a_disk_that_fails_meanwhile_leaves_nothing_that_is_trusted(
    tmp_path: Path, hub: FakeHub, monkeypatch: pytest.MonkeyPatch, number: int, message: str
) -> None:
    with monkeypatch.context() as broken:

        def fail(descriptor: int) -> None:
            raise OSError(number, os.strerror(number))

        broken.setattr(os, "fsync", fail)
        with pytest.raises(EngineError, match=message):
            have(tmp_path, hub)
    assert not list(tmp_path.rglob("whole/*.json"))
    assert right(have(tmp_path, hub), hub.models[MODEL])
    assert hub.sent < 2.5 * 2**20, "what was written before the failure is verified and used"


def test_an_owner_without_progress_blocks_nobody_for_ever(
    tmp_path: Path, hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "STUCK_SECONDS", 0.0)
    monkeypatch.setattr(locks, "POLL_SECONDS", 0.001)
    folder = tmp_path / "hub/models--acme--tiny"
    folder.mkdir(parents=True)
    told: list[str] = []
    with (folder / ".lock").open("a+") as dead:
        fcntl.flock(dead, fcntl.LOCK_EX)
        assert right(have(tmp_path, hub, told), hub.models[MODEL])
    assert "its owner made no progress for 0 minutes); continuing without a lock" in "".join(told)
