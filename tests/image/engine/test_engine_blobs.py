"""Downloads of one file: interrupted, corrupt, by several writers at once."""

import hashlib
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from fakes.fake_hub import FakeHub
from image.engine.arguments import EngineError
from image.engine.blobs import fetch_blob
from image.engine.hub import Hub, HubFile, Listing
from image.engine.patience import HubUnreachableError
from image.engine.progress import Progress
from tests.image.engine.conftest import FIRST, MODEL, have, right

ROOT = Path(__file__).parents[3]


def test_a_broken_connection_is_gone_on_with_where_it_broke(tmp_path: Path, hub: FakeHub) -> None:
    hub.models[MODEL].cuts[FIRST] = 300_000
    assert right(have(tmp_path, hub), hub.models[MODEL])
    assert [one.start for one in hub.served if one.name == FIRST] == [0, 300_000]


def test_a_killed_fetch_is_gone_on_with_and_its_lock_blocks_nobody(tmp_path: Path, hub: FakeHub) -> None:
    hub.models[MODEL].stalled[FIRST] = threading.Event()
    fetch = subprocess.Popen(
        [sys.executable, "-m", "image.engine.fetch", MODEL],
        cwd=ROOT,
        env={"PATH": "/bin", "HF_HOME": str(tmp_path), "HF_ENDPOINT": hub.address},
        stdout=subprocess.DEVNULL,
    )
    blobs, name = tmp_path / "hub/models--acme--tiny/blobs", hashlib.sha256(hub.models[MODEL].files[FIRST]).hexdigest()

    def came() -> int:
        return sum(part.stat().st_size for part in blobs.glob(f"{name}.*.part"))

    while fetch.poll() is None and came() < 500_000:
        hub.sending.wait(0.01)
    fetch.send_signal(signal.SIGKILL)
    fetch.wait()
    hub.models[MODEL].stalled.pop(FIRST).set()
    there = came()
    assert right(have(tmp_path, hub), hub.models[MODEL])
    assert [one.start for one in hub.served if one.name == FIRST] == [0, there]
    assert not list(blobs.glob("*.part"))


def test_wrong_bytes_never_get_their_name(tmp_path: Path, hub: FakeHub) -> None:
    hub.models[MODEL].damaged[FIRST] = 1
    assert right(have(tmp_path, hub), hub.models[MODEL])
    assert hub.names().count(FIRST) == 2
    other = tmp_path / "other"
    hub.models[MODEL].damaged[FIRST] = 2
    with pytest.raises(EngineError, match=rf"{FIRST} .* arrived twice with a hash that differs from the Hub's"):
        have(other, hub)
    assert not list(other.glob("hub/*/snapshots/*/*"))
    assert hub.models[MODEL].files[FIRST] not in [p.read_bytes() for p in other.glob("hub/*/blobs/*")]


def test_a_hub_that_keeps_failing_is_given_up_and_what_came_is_kept(
    tmp_path: Path, hub: FakeHub, no_waiting: list[float]
) -> None:
    broken = Hub({"HF_ENDPOINT": "http://127.0.0.1:9"})
    file = HubFile("x", 10, "0" * 64)
    (tmp_path / (file.hash + ".part")).write_bytes(b"abc")
    with pytest.raises(HubUnreachableError, match="cannot be reached"):
        fetch_blob(broken, Listing(MODEL, "c", (file,)), file, tmp_path / file.hash, Progress("x", 10, print))
    assert (tmp_path / (file.hash + ".part")).read_bytes() == b"abc"


def test_a_connection_that_keeps_breaking_is_given_up(tmp_path: Path, hub: FakeHub, no_waiting: list[float]) -> None:
    hub.models[MODEL].breaking.add(FIRST)
    with pytest.raises(
        HubUnreachableError, match=rf"{FIRST} of acme/tiny: the connection keeps failing .* start again"
    ):
        have(tmp_path, hub)
    hub.models[MODEL].breaking.clear()
    hub.served.clear()
    assert right(have(tmp_path, hub), hub.models[MODEL])
    assert "config.json" not in hub.names(), "what came is kept"


@pytest.mark.parametrize("other", ["appends", "overwrites", "finishes_first", "deletes"])
def test_a_second_writer_never_changes_a_file_or_ends_the_first(
    tmp_path: Path, hub: FakeHub, monkeypatch: pytest.MonkeyPatch, other: str
) -> None:
    listing = Hub({"HF_ENDPOINT": hub.address}).listing(MODEL, "main")
    file = next(file for file in listing.files if file.name == FIRST)
    blob, synced = tmp_path / file.hash, os.fsync
    met: list[Any] = []

    def meanwhile(descriptor: int) -> None:
        synced(descriptor)
        if not met:
            met.append(True)
            (part,) = tmp_path.glob(f"{file.hash}.*.part")
            match other:
                case "appends":
                    part.write_bytes(part.read_bytes() + b"more")
                case "overwrites":  # the size does not show it
                    part.write_bytes(bytes(file.size))
                case "deletes":
                    part.unlink()
                case _:
                    part.rename(blob)

    monkeypatch.setattr(os, "fsync", meanwhile)
    fetch_blob(Hub({"HF_ENDPOINT": hub.address}), listing, file, blob, Progress(MODEL, 0, print))
    assert blob.read_bytes() == hub.models[MODEL].files[FIRST]
    assert list(tmp_path.iterdir()) == [blob]


def test_the_file_of_a_writer_that_may_be_alive_is_copied_and_never_written(tmp_path: Path, hub: FakeHub) -> None:
    content = hub.models[MODEL].files[FIRST]
    blobs = tmp_path / "hub/models--acme--tiny/blobs"
    blobs.mkdir(parents=True)
    alive = blobs / f"{hashlib.sha256(content).hexdigest()}.{'a' * 32}.part"
    alive.write_bytes(content[:700_000])
    with alive.open("ab") as other:
        assert right(have(tmp_path, hub), hub.models[MODEL])
        other.write(b"wrong bytes of a writer that woke up")
    assert right(have(tmp_path, hub), hub.models[MODEL])
    assert [one.start for one in hub.served if one.name == FIRST] == [700_000]


def test_a_good_file_is_not_replaced_by_what_a_corrupt_part_would_make_of_it(tmp_path: Path, hub: FakeHub) -> None:
    content = hub.models[MODEL].files[FIRST]
    blobs = tmp_path / "hub/models--acme--tiny/blobs"
    blobs.mkdir(parents=True)
    digest = hashlib.sha256(content).hexdigest()
    (blobs / f"{digest}.part").write_bytes(bytes(500_000))  # zeros, as after a power failure
    assert right(have(tmp_path, hub), hub.models[MODEL])
    before = (blobs / digest).stat()
    (blobs / f"{digest}.part").write_bytes(bytes(500_000))
    assert right(have(tmp_path, hub, ask=True), hub.models[MODEL])
    assert (blobs / digest).stat() == before
