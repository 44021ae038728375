"""Weights from a fake Hub in real files: interrupted, corrupt, gated, truncated, concurrent, disk full."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fakes.fake_hub import FakeHub, FakeModel
from image.engine import staging
from image.engine.arguments import EngineError
from image.engine.blobs import Progress, fetch_blob
from image.engine.hub import Hub, HubFile, HubUnreachableError, Listing
from image.engine.models import localized, repositories
from image.engine.weights import Repository, Weights, ensure
from tests.image.engine.conftest import MODEL

ROOT = Path(__file__).parents[3]
TINY = Repository(MODEL)
FIRST, SECOND = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"


def have(
    home: Path, hub: FakeHub, told: list[str] | None = None, repository: Repository = TINY, **more: Any
) -> Weights:
    token = more.pop("token", "")
    tell = (told if told is not None else []).append
    return ensure(repository, home, Hub({"HF_ENDPOINT": hub.address, "HF_TOKEN": token}), tell, **more)


def right(weights: Weights, model: FakeModel) -> bool:
    wanted = [name for name in model.files if name in ("config.json", FIRST, SECOND)]
    return all((weights.folder / name).read_bytes() == model.files[name] for name in wanted)


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
    name = hashlib.sha256(hub.models[MODEL].files[FIRST]).hexdigest() + ".part"
    part = tmp_path / "hub/models--acme--tiny/blobs" / name
    while fetch.poll() is None and not (part.exists() and part.stat().st_size >= 500_000):
        hub.sending.wait(0.01)
    fetch.send_signal(signal.SIGKILL)
    fetch.wait()
    hub.models[MODEL].stalled.pop(FIRST).set()
    came = part.stat().st_size
    assert right(have(tmp_path, hub), hub.models[MODEL])
    assert [one.start for one in hub.served if one.name == FIRST] == [0, came]


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


def test_a_new_commit_brings_only_what_changed_and_a_deploy_asks_for_it(tmp_path: Path, hub: FakeHub) -> None:
    old = have(tmp_path, hub)
    hub.models[MODEL].files["config.json"] = b'{"model_type": "tiny", "newer": true}'
    hub.served.clear()
    assert have(tmp_path, hub).commit == old.commit, "a start keeps the commit that it has"
    new = have(tmp_path, hub, ask=True)
    assert (new.commit, hub.names()) == (hub.models[MODEL].commit, ["config.json"])
    assert have(tmp_path, hub).commit == new.commit
    hub.broken = True
    told: list[str] = []
    assert have(tmp_path, hub, told, ask=True).commit == new.commit
    assert "continuing with the downloaded commit" in told[-1]


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


def test_a_hub_that_keeps_failing_is_given_up_and_what_came_is_kept(
    tmp_path: Path, hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Progress, "pause", lambda self, seconds: None)
    broken = Hub({"HF_ENDPOINT": "http://127.0.0.1:9"})
    file = HubFile("x", 10, "0" * 64)
    (tmp_path / (file.hash + ".part")).write_bytes(b"abc")
    with pytest.raises(HubUnreachableError, match="cannot be reached"):
        fetch_blob(broken, Listing(MODEL, "c", (file,)), file, tmp_path / file.hash, Progress("x", 10, print))
    assert (tmp_path / (file.hash + ".part")).read_bytes() == b"abc"


def test_a_connection_that_keeps_breaking_is_given_up(
    tmp_path: Path, hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Progress, "pause", lambda self, seconds: None)
    hub.models[MODEL].breaking.add(FIRST)
    with pytest.raises(
        HubUnreachableError, match=rf"{FIRST} of acme/tiny: the connection keeps failing .* start again"
    ):
        have(tmp_path, hub)
    hub.models[MODEL].breaking.clear()
    hub.served.clear()
    assert right(have(tmp_path, hub), hub.models[MODEL])
    assert "config.json" not in hub.names(), "what came is kept"


def test_a_hub_that_is_broken_or_none_is_said(tmp_path: Path, hub: FakeHub) -> None:
    hub.broken = True
    with pytest.raises(HubUnreachableError, match=r"http://127.* answered 503 for acme/tiny; try again later"):
        have(tmp_path, hub)


def test_every_model_that_the_arguments_name_is_found_and_put_in_place() -> None:
    draft = json.dumps({"model": "acme/draft", "num_speculative_tokens": 4})
    adapter = json.dumps({"name": "b", "path": "acme/lora-b"})
    arguments = [
        MODEL,
        "--revision",
        "v1",
        "--speculative-config",
        draft,
        "--lora-modules",
        "a=acme/lora-a",
        adapter,
        "--seed",
        "1",
    ]
    models = repositories(arguments)
    assert models == [
        Repository(MODEL, "v1"),
        Repository("acme/draft"),
        Repository("acme/lora-a"),
        Repository("acme/lora-b"),
    ]
    told = localized(arguments, {model: Path("/w") / model.name for model in models})
    assert told[:3] == [
        "/w/acme/tiny",
        "--speculative-config",
        json.dumps({"model": "/w/acme/draft", "num_speculative_tokens": 4}),
    ]
    assert told[3:] == [
        "--lora-modules", "a=/w/acme/lora-a", json.dumps({"name": "b", "path": "/w/acme/lora-b"}), "--seed", "1",
        "--served-model-name", MODEL,
    ]  # fmt: skip


def test_folders_and_object_stores_are_vllms_own_business(tmp_path: Path) -> None:
    for name in (str(tmp_path), "gs://bucket/model", "acme/model:Q4_K_M"):
        assert repositories([name]) == []
        assert localized([name, "--revision", "x"], {}) == [name, "--revision", "x"]


def test_the_deploys_step_takes_the_engines_own_arguments(tmp_path: Path, hub: FakeHub) -> None:
    command = [sys.executable, "-m", "image.engine.fetch", MODEL, "--max-model-len", "64", "--port", "8000"]
    environment = {"PATH": "/bin", "HF_HOME": str(tmp_path), "HF_ENDPOINT": hub.address}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 0, done.stderr
    assert "acme/tiny: complete and verified" in done.stdout
    hub.models[MODEL].gated = True
    hub.models[MODEL].files["config.json"] = b"{}"
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


def test_of_two_layouts_one_is_fetched_and_counted_at_each_start(tmp_path: Path, hub: FakeHub) -> None:
    files = {"config.json": b"{}", "params.json": b"{}", "consolidated.safetensors": b"m" * 5, "model-00001-of-00001.safetensors": b"h" * 7}  # fmt: skip
    hub.models["mistralai/both"] = FakeModel(files)
    (main,) = repositories(["mistralai/both", "--load-format", "mistral"])
    sizes: list[int] = []
    for _ in range(2):  # the first start fetches it, the second finds it
        found = ensure(main, tmp_path, Hub({"HF_ENDPOINT": hub.address}), lambda _: None, admit=sizes.append)
        assert sorted(path.name for path in found.folder.iterdir()) == [
            "config.json",
            "consolidated.safetensors",
            "params.json",
        ]
    assert sizes == [9, 9]
    (shards,) = repositories(["mistralai/both", "--load-format=safetensors"])
    found = ensure(shards, tmp_path, Hub({"HF_ENDPOINT": hub.address}), lambda _: None)
    assert ((found.folder / "model-00001-of-00001.safetensors").read_bytes(), found.size_bytes) == (b"h" * 7, 11)


def test_a_repository_with_gguf_files_alone_is_not_complete_without_weights(tmp_path: Path, hub: FakeHub) -> None:
    hub.models["acme/gguf"] = FakeModel({"config.json": b"{}", "m-Q4_K_M.gguf": b"w"})
    with pytest.raises(EngineError, match="only GGUF files"):
        have(tmp_path, hub, repository=Repository("acme/gguf"))


def test_two_engines_that_stage_at_once_both_load_every_file(tmp_path: Path, hub: FakeHub, monkeypatch: Any) -> None:
    weights, disk = have(tmp_path / "home", hub), tmp_path / "disk"
    nested: list[Any] = []
    disk.mkdir()
    copy = staging._copy

    def in_the_middle(source: Path, target: Path) -> None:
        copy(source, target)
        if source.name == FIRST and not nested:
            nested.append(True)
            assert right(replace(weights, folder=staging.stage(weights, disk, 0.0, print)), hub.models[MODEL])

    monkeypatch.setattr(staging, "_copy", in_the_middle)
    found = staging.stage(weights, disk, 0.0, print)
    assert nested
    assert found.parent == disk
    assert right(replace(weights, folder=found), hub.models[MODEL])
    assert list(disk.iterdir()) == [found]


@pytest.mark.parametrize("other", ["appends", "finishes_first"])
def test_a_second_writer_never_makes_a_file_longer_or_ends_the_first(
    tmp_path: Path, hub: FakeHub, monkeypatch: pytest.MonkeyPatch, other: str
) -> None:
    listing = Hub({"HF_ENDPOINT": hub.address}).listing(MODEL, "main")
    file = next(file for file in listing.files if file.name == FIRST)
    blob, synced = tmp_path / file.hash, os.fsync
    met: list[Any] = []

    def meanwhile(descriptor: int) -> None:
        synced(descriptor)
        part = tmp_path / (file.hash + ".part")
        if not met and other == "appends":
            with part.open("ab") as second:
                second.write(b"more")
        elif not met:
            part.rename(blob)
        met.append(True)

    monkeypatch.setattr(os, "fsync", meanwhile)
    fetch_blob(Hub({"HF_ENDPOINT": hub.address}), listing, file, blob, Progress(MODEL, 0, print))
    assert blob.read_bytes() == hub.models[MODEL].files[FIRST]
