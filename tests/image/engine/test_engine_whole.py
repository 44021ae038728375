"""Whether the files of the cache are a complete model, without a request to the Hub."""

import errno
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from fakes.fake_hub import FakeHub, FakeModel
from image.engine.arguments import EngineError
from image.engine.hub import Hub
from image.engine.models import repositories
from image.engine.weights import ensure
from tests.image.engine.conftest import FIRST, MODEL, SECOND, have, right

FOLDER = "hub/models--acme--tiny"


def as_another_program_left_it(home: Path, hub: FakeHub) -> Path:
    """The snapshot, as the Hub's own client leaves it: without our record."""
    snapshot = have(home, hub).folder
    shutil.rmtree(home / FOLDER / "whole")
    return snapshot


def test_what_another_program_downloaded_starts_without_the_hub(tmp_path: Path, hub: FakeHub) -> None:
    as_another_program_left_it(tmp_path, hub)
    hub.broken = True
    told: list[str] = []
    assert right(have(tmp_path, hub, told), hub.models[MODEL])
    assert "answered 503" in told[-1]
    assert "continuing with the downloaded commit" in told[-1]
    hub.models.clear()
    assert have(tmp_path, hub).size_bytes > 2**20, "it is verified once"


@pytest.mark.parametrize("fault", ["torn", "other bytes", "lost", "not linked to its hash", "lost config"])
def test_what_another_program_left_incomplete_is_not_started(
    tmp_path: Path, hub: FakeHub, no_waiting: list[float], fault: str
) -> None:
    snapshot = as_another_program_left_it(tmp_path, hub)
    match fault:
        case "torn":
            os.truncate(snapshot / FIRST, 10)
        case "other bytes":
            (snapshot / FIRST).write_bytes(bytes((snapshot / FIRST).stat().st_size))
        case "lost":
            (snapshot / SECOND).unlink()
        case "lost config":
            (snapshot / "config.json").unlink()
        case _:
            content = (snapshot / FIRST).read_bytes()
            (snapshot / FIRST).unlink()
            (snapshot / FIRST).write_bytes(content)
    hub.broken = True
    with pytest.raises(EngineError, match="answered 503"):
        have(tmp_path, hub)
    hub.broken = False
    assert right(have(tmp_path, hub), hub.models[MODEL])


@pytest.mark.parametrize("number", [errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EACCES])
@pytest.mark.parametrize("hard_links", [True, False])
def test_a_file_system_without_symbolic_links_is_enough(
    tmp_path: Path, hub: FakeHub, monkeypatch: pytest.MonkeyPatch, number: int, hard_links: bool
) -> None:
    def fail(*_: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "symlink_to", fail)
    if not hard_links:
        monkeypatch.setattr(os, "link", fail)
    weights = have(tmp_path, hub)
    assert right(weights, hub.models[MODEL])
    assert not (weights.folder / FIRST).is_symlink()
    assert ((weights.folder / FIRST).stat().st_nlink == 2) == hard_links
    hub.broken = True
    assert right(have(tmp_path, hub), hub.models[MODEL])


def test_room_for_copies_is_asked_before_the_download(
    tmp_path: Path, hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(Path, "symlink_to", fail)
    monkeypatch.setattr(os, "link", fail)
    free = (1 << 30) + 3 * 2**20  # enough for the files once
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": free}))
    with pytest.raises(EngineError, match=r"acme/tiny needs 0\.0 GiB more"):
        have(tmp_path, hub)
    assert hub.names() == []


def test_of_two_layouts_one_is_fetched_and_counted_at_each_start(tmp_path: Path, hub: FakeHub) -> None:
    files = {"config.json": b"{}", "params.json": b"{}", "consolidated.safetensors": b"m" * 5, "model-00001-of-00001.safetensors": b"h" * 7}  # fmt: skip
    hub.models["mistralai/both"] = FakeModel(files)
    (main,) = repositories(["mistralai/both", "--load-format", "mistral"])
    sizes: list[int] = []
    for _ in range(2):  # the first start fetches it, the second finds it
        found = ensure(main, tmp_path / "hub", Hub({"HF_ENDPOINT": hub.address}), lambda _: None, admit=sizes.append)
        assert sorted(path.name for path in found.folder.iterdir()) == [
            "config.json",
            "consolidated.safetensors",
            "params.json",
        ]
    assert sizes == [9, 9]
    (shards,) = repositories(["mistralai/both", "--load-format=safetensors"])
    found = ensure(shards, tmp_path / "hub", Hub({"HF_ENDPOINT": hub.address}), lambda _: None)
    assert ((found.folder / "model-00001-of-00001.safetensors").read_bytes(), found.size_bytes) == (b"h" * 7, 11)
