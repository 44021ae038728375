"""Copies of weights on the local disk."""

import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fakes.fake_hub import FakeHub
from image.engine import staging
from image.engine.weights import Repository, Weights
from tests.image.engine.conftest import FIRST, MODEL, SECOND, have, right

ROOT = Path(__file__).parents[3]


def test_two_engines_that_stage_at_once_both_load_every_file(tmp_path: Path, hub: FakeHub, monkeypatch: Any) -> None:
    weights, disk = have(tmp_path / "home", hub), tmp_path / "disk"
    nested: list[Any] = []
    disk.mkdir()
    copy = staging._copy

    def in_the_middle(source: Path, target: Path, expected: str | None) -> None:
        copy(source, target, expected)
        if source.name == FIRST and not nested:
            nested.append(True)
            assert right(replace(weights, folder=staging.stage(weights, disk, 0.0, print)), hub.models[MODEL])

    monkeypatch.setattr(staging, "_copy", in_the_middle)
    found = staging.stage(weights, disk, 0.0, print)
    assert nested
    assert found.parent == disk
    assert right(replace(weights, folder=found), hub.models[MODEL])
    assert list(disk.iterdir()) == [found]


@pytest.mark.parametrize("fault", ["lost", "torn", "older"])
def test_a_staged_copy_that_lost_files_is_staged_again(tmp_path: Path, hub: FakeHub, fault: str) -> None:
    weights, disk = have(tmp_path / "home", hub), tmp_path / "disk"
    disk.mkdir()
    found = staging.stage(weights, disk, 0.0, print)
    match fault:
        case "lost":
            (found / SECOND).unlink()
        case "torn":
            os.truncate(found / SECOND, 10)
        case _:
            for path in found.iterdir():
                path.unlink()
    again = staging.stage(weights, disk, 0.0, print)
    assert right(replace(weights, folder=again), hub.models[MODEL])


def test_wrong_bytes_are_not_staged_and_a_dead_engines_copy_is_deleted_at_once(tmp_path: Path, hub: FakeHub) -> None:
    weights, disk = have(tmp_path / "home", hub), tmp_path / "disk"
    disk.mkdir()
    dead = disk / f"acme--tiny--{weights.commit}.{'a' * 32}.part"
    dead.mkdir()
    dead.with_name(f"{dead.name}-owner").touch()
    told: list[str] = []
    blob = (weights.folder / SECOND).resolve()
    content = blob.read_bytes()
    blob.write_bytes(bytes(len(content)))
    assert staging.stage(weights, disk, 0.0, told.append) == weights.folder
    assert "does not have its hash" in told[-1]
    assert list(disk.iterdir()) == []
    blob.write_bytes(content)
    assert right(replace(weights, folder=staging.stage(weights, disk, 0.0, print)), hub.models[MODEL])


def test_copies_of_an_earlier_model_make_room_unless_an_engine_uses_them(
    tmp_path: Path, hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rollout to another model or commit: the copy of the one before is deleted, what belongs to others is not."""
    disk = tmp_path / "disk"
    unused, used, killed, foreign = (
        disk / name
        for name in (
            f"acme--old--{'a' * 40}",
            f"acme--used--{'b' * 40}",
            f"acme--x--{'c' * 40}.{'d' * 32}.part",
            "logs",
        )
    )
    for folder in (unused, used, killed, foreign):
        folder.mkdir(parents=True)
    killed.with_name(f"{killed.name}-owner").touch()
    assert staging._in_use(used)
    weights, told = have(tmp_path / "home", hub), list[str]()
    usage, free = shutil.disk_usage(disk), [0, 10**12]
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=free.pop(0)))
    found = staging.stage(weights, disk, 0.0, told.append)
    assert right(replace(weights, folder=found), hub.models[MODEL])
    assert set(disk.iterdir()) == {found, used, foreign}
    assert f"staging: deleted {unused.name}, which no engine uses, from the local disk" in told


def test_weights_go_to_the_local_disk_where_they_do_not_fit_in_memory(tmp_path: Path) -> None:
    folder, disk = tmp_path / "snapshot", tmp_path / "disk"
    folder.mkdir()
    (folder / "a.safetensors").write_bytes(b"x" * 4096)
    weights = Weights(Repository("acme/tiny"), "c1", folder, 4096)
    told: list[str] = []
    assert staging.stage(weights, disk, 0.0, told.append) == folder, "no local disk"
    disk.mkdir()
    assert staging.stage(weights, disk, 1.0, told.append) == folder, "memory holds them"
    assert told == []
    target = staging.stage(weights, disk, 0.0, told.append)
    assert (target / "a.safetensors").read_bytes() == b"x" * 4096
    assert staging.stage(weights, disk, 0.0, told.append) == target
    assert told[-1] == "staging: acme/tiny is already on the local disk"
    (disk / "acme--tiny--c2.part").mkdir()  # of a start that was killed
    assert staging.stage(replace(weights, commit="c2"), disk, 0.0, told.append).name == "acme--tiny--c2"
