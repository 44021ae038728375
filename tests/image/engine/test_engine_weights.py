"""Weights from a fake Hub in real files: interrupted, corrupt, gated, truncated, concurrent, disk full."""

import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from fakes.fake_hub import FakeHub, FakeModel
from image.engine.arguments import EngineError
from image.engine.hub import Hub
from image.engine.models import repositories
from image.engine.patience import HubUnreachableError
from image.engine.progress import Progress
from image.engine.weights import Repository, Weights
from tests.image.engine.conftest import FIRST, MODEL, SECOND, have, right

ROOT = Path(__file__).parents[3]


def test_what_vllm_needs_is_fetched_once_in_the_hubs_own_layout(tmp_path: Path, hub: FakeHub) -> None:
    weights = have(tmp_path, hub)
    model = hub.models[MODEL]
    assert right(weights, model)
    assert sorted(hub.names()) == ["config.json", FIRST, SECOND]
    root = tmp_path / "hub/models--acme--tiny"
    assert weights.folder == root / "snapshots" / model.commit
    assert (root / "refs/main").read_text() == model.commit
    assert not (weights.folder / FIRST).readlink().is_absolute()
    hub.broken = True  # whole: the hub is not even asked
    again = have(tmp_path, hub)
    assert again.folder == weights.folder
    assert len(hub.served) == 3


def test_two_fetchers_at_once_fetch_once(tmp_path: Path, hub: FakeHub) -> None:
    event = hub.models[MODEL].stalled[SECOND] = threading.Event()
    told: list[str] = []
    found: list[Weights] = []
    first = threading.Thread(target=lambda: found.append(have(tmp_path, hub)))
    first.start()
    assert hub.sending.wait(10)
    waiting = threading.Event()

    class Told(list[str]):
        def append(self, line: str) -> None:
            told.append(line)
            waiting.set()

    second = threading.Thread(target=lambda: found.append(have(tmp_path, hub, Told())))
    second.start()
    assert waiting.wait(10)
    event.set()
    first.join(20)
    second.join(20)
    assert f"(process {os.getpid()}) is downloading it; waiting" in told[0]
    assert sorted(hub.names()) == ["config.json", FIRST, SECOND]


@pytest.mark.parametrize("damage", ["shorter", "other bytes", "gone", "not linked"])
def test_a_torn_file_alone_is_fetched_again(tmp_path: Path, hub: FakeHub, damage: str) -> None:
    weights = have(tmp_path, hub)
    blob = (weights.folder / FIRST).resolve()
    match damage:
        case "shorter":
            os.truncate(blob, 1000)
        case "other bytes":
            blob.write_bytes(bytes(len(blob.read_bytes())))
        case "gone":
            blob.unlink()
        case _:
            (weights.folder / FIRST).unlink()
    hub.served.clear()
    assert right(have(tmp_path, hub), hub.models[MODEL])
    assert hub.names() == ([] if damage == "not linked" else [FIRST])


def test_what_is_whole_is_checked_and_not_fetched_again(tmp_path: Path, hub: FakeHub) -> None:
    weights = have(tmp_path, hub)
    copy = tmp_path / "copy"
    shutil.copytree(tmp_path / "hub", copy / "hub", symlinks=True)
    for blob in (copy / "hub/models--acme--tiny/blobs").iterdir():
        os.utime(blob)  # another volume, other times
    hub.served.clear()
    hub.broken = True
    assert have(copy, hub).commit == weights.commit
    hub.broken = False
    shutil.rmtree(copy / "hub/models--acme--tiny/whole")  # as the hub's own client leaves it
    told: list[str] = []
    assert right(have(copy, hub, told), hub.models[MODEL])
    assert hub.names() == []


def test_a_branch_is_pinned_by_the_first_download_and_an_update_is_a_setting(tmp_path: Path, hub: FakeHub) -> None:
    old = have(tmp_path, hub)
    hub.models[MODEL].files["config.json"] = b'{"model_type": "tiny", "newer": true}'
    newer = hub.models[MODEL].commit
    hub.served.clear()
    assert have(tmp_path, hub).commit == old.commit
    told: list[str] = []
    assert have(tmp_path, hub, told, ask=True).commit == old.commit, "nor does a deploy change it by itself"
    assert (
        told[-1]
        == f"weights: main of {MODEL} is now {newer}; this deployment keeps {old.commit}: to update, set modelRevision"
    )
    new = have(tmp_path, hub, repository=Repository(MODEL, newer))
    assert (new.commit, hub.names()) == (newer, ["config.json"]), "only what changed is downloaded"
    assert have(tmp_path, hub).commit == old.commit
    hub.broken = True
    assert have(tmp_path, hub, told, ask=True).commit == old.commit
    assert f"continuing with the downloaded commit {old.commit[:12]}" in told[-1]


@pytest.mark.parametrize("moment", ["after the look", "after a kill", "torn"])
def test_two_replicas_never_serve_two_commits_of_a_branch(
    tmp_path: Path, hub: FakeHub, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    first = hub.models[MODEL]
    hub.older[MODEL] = {first.commit: FakeModel(dict(first.files))}
    old = first.commit
    if moment == "after the look":  # two replicas without a lock: the branch moves between their looks
        listing = Hub.listing

        def moved(self: Hub, *arguments: Any, **options: Any) -> Any:
            found = listing(self, *arguments, **options)
            if "config.json" in first.files and first.commit == old:
                first.files["config.json"] = b'{"newer": true}'
                assert have(tmp_path, hub).commit == first.commit
            return found

        monkeypatch.setattr("image.engine.hub.Hub.listing", moved)
        monkeypatch.setattr("fcntl.flock", lambda *_: None)
        assert have(tmp_path, hub).commit == first.commit != old
        return
    if moment == "torn":
        (have(tmp_path, hub).folder / FIRST).resolve().unlink()
    else:
        first.breaking.add(FIRST)
        monkeypatch.setattr("image.engine.patience.TRIES_WITHOUT_PROGRESS", 1)
        monkeypatch.setattr(Progress, "pause", lambda self, seconds: None)
        with pytest.raises(EngineError):
            have(tmp_path, hub)
        first.breaking.clear()
    first.files["config.json"] = b'{"newer": true}'
    assert have(tmp_path, hub).commit == old
    hub.older.clear()  # the branch was rewritten, and the old commit is gone
    shutil.rmtree(tmp_path / "hub/models--acme--tiny/snapshots")
    assert have(tmp_path, hub).commit == first.commit


def test_a_pinned_commit_needs_no_reference(tmp_path: Path, hub: FakeHub) -> None:
    pinned = Repository(MODEL, hub.models[MODEL].commit)
    assert right(have(tmp_path, hub, repository=pinned), hub.models[MODEL])
    assert not list(tmp_path.glob("hub/*/refs/*"))
    hub.broken = True
    assert right(have(tmp_path, hub, repository=pinned), hub.models[MODEL])


def test_a_gated_model_names_the_setting(tmp_path: Path, hub: FakeHub) -> None:
    hub.models[MODEL].gated = True
    with pytest.raises(
        EngineError,
        match=r"acme/tiny is gated, and no token is set; accept its terms at .*acme/tiny, then set hfToken \(pulumi config set --secret hfToken",
    ):
        have(tmp_path, hub)
    with pytest.raises(EngineError, match=r"is gated, and the token in hfToken has no access") as raised:
        have(tmp_path, hub, token="hf_stranger")
    assert "hf_stranger" not in str(raised.value)
    hub.models[MODEL].readers.add("hf_friend")
    assert right(have(tmp_path, hub, token="hf_friend"), hub.models[MODEL])


def test_a_token_goes_to_the_hub_and_no_further(tmp_path: Path, hub: FakeHub) -> None:
    have(tmp_path, hub, token="hf_1")
    tokens = {(one.host.partition(":")[0], one.token) for one in hub.served}
    assert tokens == {("127.0.0.1", "hf_1"), ("localhost", "")}


@pytest.mark.parametrize(
    ("repository", "message"),
    [
        (
            Repository("acme/none"),
            "acme/none was not found on the Hub, or it is private and no token is set; check model, or set hfToken",
        ),
        (Repository(MODEL, "v2"), "acme/tiny has no revision v2; set modelRevision to an existing one"),
    ],
)
def test_what_the_hub_does_not_have_is_said(tmp_path: Path, hub: FakeHub, repository: Repository, message: str) -> None:
    with pytest.raises(EngineError) as raised:
        have(tmp_path, hub, repository=repository)
    assert message in str(raised.value)


def test_room_is_checked_before_anything_is_fetched(
    tmp_path: Path, hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 512 << 20}))
    with pytest.raises(
        EngineError, match=r"acme/tiny needs 0\.0 GiB more, and .* has 0\.5 GiB free; free at least 1\.0 GiB"
    ):
        have(tmp_path, hub)
    assert hub.names() == []


def test_a_disk_that_fills_up_meanwhile_is_one_line(
    tmp_path: Path, hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("image.engine.blobs.os.fsync", full)
    with pytest.raises(EngineError, match=r"weights: .* is full; free space or mount a larger volume"):
        have(tmp_path, hub)


def test_a_model_too_large_for_the_gpus_is_refused_before_it_is_fetched(tmp_path: Path, hub: FakeHub) -> None:
    def refuse(size_bytes: int) -> None:
        raise EngineError(f"GPU memory: {size_bytes}")

    size = sum(len(hub.models[MODEL].files[name]) for name in ("config.json", FIRST, SECOND))
    with pytest.raises(EngineError, match=f"GPU memory: {size}"):
        have(tmp_path, hub, admit=refuse)
    assert hub.names() == []


def test_a_hub_that_is_broken_or_none_is_said(tmp_path: Path, hub: FakeHub, no_waiting: list[float]) -> None:
    hub.broken = True
    with pytest.raises(HubUnreachableError, match=r"http://127.* answered 503 for acme/tiny; try again later"):
        have(tmp_path, hub)


def test_the_deploys_step_takes_the_engines_own_arguments(tmp_path: Path, hub: FakeHub) -> None:
    command = [sys.executable, "-m", "image.engine.fetch", MODEL, "--max-model-len", "64", "--port", "8000"]
    environment = {"PATH": "/bin", "HF_HOME": str(tmp_path), "HF_ENDPOINT": hub.address}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 0, done.stderr
    assert "acme/tiny: complete and verified" in done.stdout
    hub.models[MODEL].gated = True
    hub.models[MODEL].files["config.json"] = b"{}"
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 0, "complete weights are used"
    assert f"main of acme/tiny is now {hub.models[MODEL].commit}; this deployment keeps" in done.stdout
    environment["HF_HOME"] = str(tmp_path / "other")
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 2
    assert done.stderr.startswith("engine: error: weights: acme/tiny is gated")
    assert len(done.stderr.splitlines()) == 1


def test_weights_beside_an_adapter_and_heads_of_their_own_are_fetched(tmp_path: Path, hub: FakeHub) -> None:
    files = {"config.json": b"{}", "pytorch_model.bin": b"w", "adapter/adapter_model.safetensors": b"a"}
    hub.models["acme/old"] = FakeModel(files)
    hub.models["acme/heads"] = FakeModel(
        {"model.safetensors": b"w", "pytorch_model.bin": b"o", "sparse_linear.pt": b"s"}
    )
    old = have(tmp_path, hub, repository=Repository("acme/old"))
    assert all((old.folder / name).read_bytes() == content for name, content in files.items())
    heads = have(tmp_path, hub, repository=Repository("acme/heads"))
    assert sorted(path.name for path in heads.folder.iterdir()) == ["model.safetensors", "sparse_linear.pt"]


NO_WEIGHTS = {
    "a quantization": ({"config.json": b"{}", "m-Q4_K_M.gguf": b"w"}, "only GGUF files"),
    "an adapter": ({"config.json": b"{}", "adapter/adapter_model.safetensors": b"a"}, "only the weights of a LoRA adapter"),
    "another program": ({"config.json": b"{}", "original/consolidated.00.pth": b"w", "onnx/model.onnx": b"w"}, "no weights"),
    "training state": ({"config.json": b"{}", "optimizer.pt": b"w", "tf_model.h5": b"w"}, "no weights"),
    "nothing": ({"config.json": b"{}", "tokenizer.json": b"{}"}, "no weights"),
}  # fmt: skip


@pytest.mark.parametrize("what", NO_WEIGHTS)
def test_a_repository_without_a_models_weights_is_an_error(tmp_path: Path, hub: FakeHub, what: str) -> None:
    files, message = NO_WEIGHTS[what]
    hub.models["acme/none"] = FakeModel(files)
    with pytest.raises(EngineError, match=rf"weights: acme/none has {message}"):
        have(tmp_path, hub, repository=Repository("acme/none"))
    assert hub.names() == []


def test_a_tokenizer_needs_no_weights_and_an_adapter_only_its_own(tmp_path: Path, hub: FakeHub) -> None:
    hub.models["acme/words"] = FakeModel({"tokenizer.json": b"{}"})
    hub.models["acme/lora"] = FakeModel({"adapter_config.json": b"{}", "adapter_model.safetensors": b"a"})
    for one in repositories(["/model", "--tokenizer", "acme/words", "--lora-modules", "a=acme/lora"]):
        assert have(tmp_path, hub, repository=one).size_bytes > 0


def test_a_file_that_was_uploaded_incompletely_is_not_complete(tmp_path: Path, hub: FakeHub) -> None:
    header = json.dumps({"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}).encode()
    files = hub.models[MODEL].files
    files[FIRST] = len(header).to_bytes(8, "little") + header + bytes(15)
    with pytest.raises(
        EngineError, match=rf"{FIRST} of acme/tiny at \w+ was uploaded incompletely: it has 8\d of 8\d bytes"
    ):
        have(tmp_path, hub)
    files[FIRST] += b"0"
    hub.models[MODEL].stalled.clear()
    assert have(tmp_path / "whole", hub).size_bytes > 0


def test_a_repository_that_lacks_a_shard_of_its_index_is_not_complete(tmp_path: Path, hub: FakeHub) -> None:
    index = json.dumps({"weight_map": {"a": FIRST, "b": SECOND, "c": "model-extra.safetensors"}}).encode()
    hub.models[MODEL].files["model.safetensors.index.json"] = index
    with pytest.raises(EngineError, match=r"acme/tiny at \w+ lacks model-extra.safetensors, which it lists itself"):
        have(tmp_path, hub)
    assert not list(tmp_path.rglob("whole/*.json"))
