"""The compile cache with real files: corrupt, mismatched, stale, half written, two concurrent writers, a dying writer."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

import pytest

from image.engine import compile_cache, watcher
from image.engine.compile_cache import UNFINISHED_HOURS, UNUSED_DAYS, CompileCache, contents, publish, restore
from image.engine.identity import compiled_for, folder_state, has_bytecode, machine, software
from image.engine.watcher import Watch

ROOT = Path(__file__).parents[3]
DEPENDS_ON = {"packages": "1", "model": "a/b", "gpus": "A10G", "arguments": "x"}


def kept(tmp_path: Path, replica: str = "one", **changed: str) -> CompileCache:
    """Files of one replica: the store is shared, the local folder is its own."""
    return CompileCache("compiled", tmp_path / "store", tmp_path / replica / "compiled", DEPENDS_ON | changed)


def compile_into(one: CompileCache, text: str = "kernel") -> None:
    (one.local / "triton").mkdir(parents=True, exist_ok=True)
    (one.local / "triton/kernel.so").write_text(text * 1000)
    (one.local / "triton/kernel.so").chmod(0o755)
    (one.local / "graph.py").write_text(text)


def keep(tmp_path: Path, text: str = "kernel") -> Path:
    """An archive of a first start."""
    first = kept(tmp_path)
    restore(first)
    compile_into(first, text)
    assert publish(first, {}) is not None
    (archive,) = first.folder.glob("*.tar")
    return archive


def test_the_next_start_finds_what_the_first_one_compiled(tmp_path: Path) -> None:
    keep(tmp_path)
    other = kept(tmp_path, "two")
    restored = restore(other)
    assert restored.files == contents(other.local) == {"graph.py": 6, "triton/kernel.so": 6000}
    assert (other.local / "triton/kernel.so").read_text() == "kernel" * 1000
    assert os.access(other.local / "triton/kernel.so", os.X_OK)
    assert publish(other, restored.files) is None, "nothing new"


@pytest.mark.parametrize("damage", ["shorter", "one bit", "empty", "longer"])
def test_a_torn_archive_is_thrown_away_and_never_loaded(tmp_path: Path, damage: str) -> None:
    archive = keep(tmp_path)
    content = bytearray(archive.read_bytes())
    content[len(content) // 2] ^= damage == "one bit"
    archive.write_bytes(bytes({"shorter": content[:-600], "empty": b"", "longer": content + b"x"}.get(damage, content)))
    other = kept(tmp_path, "two")
    restored = restore(other)
    assert (restored.files, contents(other.local)) == ({}, {})
    assert "deleted: it is corrupt" in restored.notes[0]
    assert not archive.exists()
    compile_into(other)
    assert publish(other, {}) is not None
    assert restore(kept(tmp_path, "three")).files, "and the next start has one again"


def test_an_older_whole_archive_is_used_where_the_newest_is_torn(tmp_path: Path) -> None:
    older = keep(tmp_path)
    more = kept(tmp_path, "two")
    known = restore(more).files
    os.utime(older, (time.time() - 100,) * 2)
    (more.local / "extra").write_text("x")
    assert publish(more, known)
    (newest,) = set(more.folder.glob("*.tar")) - {older}
    newest.write_bytes(b"torn")
    assert set(restore(kept(tmp_path, "three")).files) == {"graph.py", "triton/kernel.so"}


@pytest.mark.parametrize("what", sorted(DEPENDS_ON))
def test_what_another_engine_model_gpu_or_argument_made_is_never_seen(tmp_path: Path, what: str) -> None:
    archive = keep(tmp_path)
    other = kept(tmp_path, "two", **{what: "another"})
    assert restore(other).files == {}
    # Even if it is copied to that key.
    other.folder.mkdir(parents=True)
    (other.folder / archive.name).write_bytes(archive.read_bytes())
    restored = restore(other)
    assert restored.files == {}
    assert "belongs to another engine, model, GPU or arguments" in restored.notes[0]
    assert not list(other.folder.glob("*.tar"))
    assert archive.exists()


def test_what_a_former_process_left_behind_in_the_container_is_not_used(tmp_path: Path) -> None:
    keep(tmp_path)
    again = kept(tmp_path)  # the same container, started again after a kill while it compiled
    (again.local / "triton/kernel.so").write_text("torn")
    restore(again)
    assert (again.local / "triton/kernel.so").read_text() == "kernel" * 1000


def test_a_writer_that_is_killed_leaves_nothing_that_is_ever_read(tmp_path: Path) -> None:
    one = kept(tmp_path)
    restore(one)
    for number in range(64):
        (one.local / str(number)).write_bytes(os.urandom(1 << 20))
    script = (
        "import sys; from pathlib import Path; from image.engine.compile_cache import CompileCache, publish\n"
        f"publish(CompileCache('compiled', Path({str(one.store)!r}), Path({str(one.local)!r}), {DEPENDS_ON!r}), {{}})"
    )
    writer = subprocess.Popen([sys.executable, "-c", script], cwd=ROOT)
    try:
        while not [p for p in one.folder.glob("*.part") if p.stat().st_size > 2 << 20]:
            assert writer.poll() is None, "it was done before it could be killed"
            time.sleep(0.001)
    finally:
        writer.send_signal(signal.SIGKILL)
        writer.wait()
    assert not list(one.folder.glob("*.tar"))
    assert list(one.folder.glob("*.part"))
    other = kept(tmp_path, "two")
    assert restore(other).files == {}
    compile_into(other)
    assert publish(other, {})
    (part,) = one.folder.glob("*.part")
    assert part.exists(), "perhaps somebody is writing it"
    os.utime(part, (time.time() - 3600 * (UNFINISHED_HOURS + 1),) * 2)
    (other.local / "more").write_text("x")
    publish(other, {})
    assert not part.exists()


def test_two_replicas_that_keep_at_once_both_leave_a_whole_archive(tmp_path: Path) -> None:
    replicas = [kept(tmp_path, name) for name in ("one", "two")]
    for number, replica in enumerate(replicas):
        restore(replica)
        compile_into(replica, f"{number}")
    together = threading.Barrier(2)
    told: list[str | None] = []

    def run(replica: CompileCache) -> None:
        together.wait(10)
        told.append(publish(replica, {}))

    threads = [threading.Thread(target=run, args=(replica,)) for replica in replicas]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len([line for line in told if line]) == 2
    restored = restore(kept(tmp_path, "three"))
    assert set(restored.files) == {"graph.py", "triton/kernel.so"}
    assert not [note for note in restored.notes if "thrown" in note]


def test_files_that_change_while_they_are_read_are_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = kept(tmp_path)
    restore(one)
    compile_into(one)
    pack = compile_cache._pack

    def pack_and_change(one: CompileCache, names: Mapping[str, int], file: BinaryIO) -> str:
        digest = pack(one, names, file)
        (one.local / "graph.py").write_text("half of a longer text")
        return digest

    monkeypatch.setattr(compile_cache, "_pack", pack_and_change)
    with pytest.raises(BlockingIOError):
        publish(one, {})
    assert not list(one.folder.iterdir())


def test_files_in_the_making_are_left_out(tmp_path: Path) -> None:
    one = kept(tmp_path)
    restore(one)
    compile_into(one)
    for name in ("a.lock", "b.tmp", "c.part"):
        (one.local / name).touch()
    publish(one, {})
    assert set(restore(kept(tmp_path, "two")).files) == {"graph.py", "triton/kernel.so"}


def test_what_is_not_used_for_a_month_goes(tmp_path: Path) -> None:
    archive = keep(tmp_path)
    long_ago = time.time() - 86400 * (UNUSED_DAYS + 1)
    os.utime(archive, (long_ago, long_ago))
    other = kept(tmp_path, "two", model="c/d")
    restore(other)
    compile_into(other)
    publish(other, {})
    assert not archive.parent.exists()


def test_an_archive_in_use_stays(tmp_path: Path) -> None:
    archive = keep(tmp_path)
    os.utime(archive, (time.time() - 86400 * 29,) * 2)
    restore(kept(tmp_path, "two"))
    assert time.time() - archive.stat().st_mtime < 60


def test_a_store_that_cannot_be_read_starts_empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = keep(tmp_path)
    archive.unlink()
    archive.mkdir()
    restored = restore(kept(tmp_path, "two"))
    assert restored.files == {}
    assert "cannot be read" in restored.notes[0]


def test_the_key_changes_with_everything_that_compiled_code_depends_on(tmp_path: Path) -> None:
    site = tmp_path / "site"
    record = site / "vllm-0.33.0.dist-info/RECORD"
    record.parent.mkdir(parents=True)
    record.write_text("vllm/__init__.py,sha256=a,1\n")
    cpu = tmp_path / "cpuinfo"
    cpu.write_text("model name\t: X\nflags\t\t: avx2\n")

    def key(**changed: object) -> str:
        values: dict[str, object] = {
            "image": "vllm:1", "gpus": ["A10G, 22.5, 580, 8.6"], "model": "c1", "arguments": ["m", "--seed", "1"],
            "environment": {"VLLM_USE_X": "1", "PATH": "/bin", "VLLM_API_KEY": "a", "VLLM_HOST_IP": "10.0.0.1"},
        }  # fmt: skip
        values |= changed
        depends_on = compiled_for(
            software({"ENGINE_IMAGE": str(values["image"])}, [str(site)]),
            machine(list(values["gpus"]), cpu),  # type: ignore[call-overload]
            str(values["model"]),
            list(values["arguments"]),  # type: ignore[call-overload]
            dict(values["environment"]),  # type: ignore[call-overload]
        )
        assert "sk-1" not in json.dumps(depends_on)
        return CompileCache("compiled", tmp_path, tmp_path, depends_on).key

    keys = {
        key(), key(image="vllm:2"), key(gpus=["L4, 22.5, 580, 8.9"]), key(gpus=["A10G, 22.5, 590, 8.6"]), key(gpus=[]),
        key(gpus=["A10G, 22.5, 580, 8.6"] * 2), key(model="c2"), key(arguments=["m", "--seed", "2"]),
        key(arguments=["m", "--api-key", "sk-1"]), key(environment={"VLLM_USE_X": "2"}),
    }  # fmt: skip
    assert len(keys) == 10
    same = {"VLLM_USE_X": "1", "PATH": "/other", "VLLM_API_KEY": "b", "VLLM_HOST_IP": "10.0.0.2"}
    assert key(environment=same) == key()
    assert key(arguments=["m", "--port", "8000", "--seed", "1", "--host=0.0.0.0"]) == key()
    before = key()
    record.write_text("vllm/__init__.py,sha256=b,1\n")
    assert key() != before, "the same version, other bytes"
    before = key()
    cpu.write_text("model name\t: Y\nflags\t\t: avx2 avx512f\n")
    assert key() != before


def test_a_folder_of_weights_is_known_by_its_files(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    before = folder_state(tmp_path)
    assert folder_state(tmp_path) == before
    (tmp_path / "model.safetensors").write_bytes(b"1")
    assert folder_state(tmp_path) != before


def test_an_image_with_bytecode_is_told_from_one_without(tmp_path: Path) -> None:
    package = tmp_path / "vllm"
    package.mkdir()
    assert not has_bytecode([str(tmp_path)])
    (package / "__init__.py").touch()
    assert not has_bytecode([str(tmp_path)])
    (package / "__pycache__").mkdir()
    (package / f"__pycache__/__init__.{sys.implementation.cache_tag}.pyc").touch()
    assert has_bytecode([str(tmp_path)])


def test_the_watcher_keeps_what_was_compiled_once_the_engine_answers_and_once_more_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = kept(tmp_path)
    restore(one)
    engine = subprocess.Popen(
        [sys.executable, "-m", "http.server", "--bind", "127.0.0.1", "0"],
        cwd=one.local, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env={"PYTHONUNBUFFERED": "1"},
    )  # fmt: skip
    try:
        assert engine.stdout is not None
        port = engine.stdout.readline().split("port ")[1].split()[0]
        (one.local / "health").mkdir()  # http.server answers 200 for a folder
        compile_into(one)
        told: list[str] = []
        marker = tmp_path / "store/warm/key"

        wait = watcher._ended

        def ended(parent: int, seconds: float) -> bool:
            if seconds != 0.5:
                return wait(parent, seconds)
            (one.local / "later.so").write_text("late")  # a request has one more kernel compiled meanwhile
            return False

        monkeypatch.setattr(watcher, "_ended", ended)
        watch = Watch(f"http://127.0.0.1:{port}/health/", [(one, {})], marker, time.monotonic(), 0.01, 0.5)
        parent = os.pidfd_open(engine.pid)
        watcher.run(watch, parent, told.append)
        os.close(parent)
        assert told[0].startswith("ready after")
        assert "compiled: cached 2 files" in told[1]
        assert "compiled: cached 3 files" in told[2]
        assert marker.exists()
        assert set(restore(kept(tmp_path, "two")).files) == {"graph.py", "triton/kernel.so", "later.so"}
    finally:
        engine.kill()
        engine.communicate()


def test_the_watcher_ends_with_the_engine_and_keeps_nothing_of_a_failed_start(tmp_path: Path) -> None:
    one = kept(tmp_path)
    restore(one)
    compile_into(one)
    engine = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    parent = os.pidfd_open(engine.pid)
    watch = Watch("http://127.0.0.1:9/health", [(one, {})], None, time.monotonic())
    thread = threading.Thread(target=watcher.run, args=(watch, parent, print))
    thread.start()
    engine.kill()
    engine.communicate()
    thread.join(10)
    os.close(parent)
    assert not thread.is_alive()
    assert not one.folder.exists()
