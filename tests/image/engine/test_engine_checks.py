"""What the container rejects before it loads a model, each run as a real process with a fake driver and vLLM."""

import errno
import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from fakes.fake_hub import FakeHub
from image.engine.arguments import EngineError, settle
from image.engine.checks import check_machine
from image.engine.gpus import Gpu
from image.engine.memory import available_gib
from image.engine.prepare import fetch
from local.preflight import free_port
from tests.image.engine.conftest import MODEL

ROOT = Path(__file__).parents[3]
GPU = Gpu("A10G", 22.5, "580.95.05", 8.6, 0.0)
Engine = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def engine(tmp_path: Path, hub: FakeHub) -> Engine:
    """Runs the entrypoint, with a driver that prints ``gpus``, a torch for CUDA 13, and a vLLM that prints its arguments."""
    module = tmp_path / "site/vllm/entrypoints/openai/api_server.py"
    module.parent.mkdir(parents=True)
    for folder in module.parents[:3]:
        (folder / "__init__.py").touch()
    module.write_text("import os, sys\nprint('VLLM', sys.argv[1:], os.environ.get('MODEL_NAME'))\n")
    torch = tmp_path / "site/torch"
    torch.mkdir()
    (torch / "__init__.py").touch()
    (torch / "version.py").write_text("cuda: Optional[str] = '13.0'\n")

    def run(
        *argv: str, gpus: str | None = "NVIDIA A10G, 23028, 580.95.05, 8.6, 0", code: int = 0, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        driver = tmp_path / "bin"
        driver.mkdir(exist_ok=True)
        if gpus is not None:
            (driver / "nvidia-smi").write_text(f"#!/bin/sh\nprintf '%s\\n' '{gpus}'\nexit {code}\n")
            (driver / "nvidia-smi").chmod(0o755)
        values = {
            "PATH": str(driver) + os.pathsep + "/bin",
            "PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path / 'site'}",
            "MODEL_NAME": MODEL,
            "PORT": str(free_port()),
            "HF_HOME": str(tmp_path / "weights"),
            "HF_ENDPOINT": hub.address,
            "TMPDIR": str(tmp_path),
        }
        return subprocess.run(
            [sys.executable, "-m", "image.engine", *argv],
            env=values | environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
        )

    return run


def test_when_all_is_well_it_becomes_vllm(engine: Engine, hub: FakeHub, tmp_path: Path) -> None:
    done = engine(MAX_NUM_SEQS="12", ENGINE_CACHE=str(tmp_path / "cache"))
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "weights/hub/models--acme--tiny/snapshots" / hub.models[MODEL].commit
    assert "device: 1 x NVIDIA A10G, 22.5 GiB, driver 580.95.05" in done.stdout
    assert f"VLLM ['--model', '{folder}', '--max-num-seqs', '12'," in done.stdout
    assert "'--served-model-name', 'acme/tiny'" in done.stdout
    assert "compile cache: bytecode: nothing cached yet" in done.stdout
    assert "compile cache: compiled: nothing cached yet" in done.stdout
    assert re.search(
        r'^engine: ledger: {"checks": [\d.]+, "weights": [\d.]+, "compile cache": [\d.]+}$', done.stdout, re.M
    )
    assert done.stdout.rstrip().endswith("None"), "vLLM saw a name that is not its own"


@pytest.mark.parametrize(
    ("options", "environment", "message"),
    [
        ({"gpus": None}, {}, "GPU: nvidia-smi shows none in this container; start it with --gpus all"),
        (
            {"gpus": "Failed to initialize NVML: Driver/library version mismatch", "code": 18},
            {},
            "GPU: nvidia-smi failed: Failed to initialize NVML",
        ),
        (
            {},
            {"TENSOR_PARALLEL_SIZE": "2"},
            "TENSOR_PARALLEL_SIZE: found 2, but this container has 1 GPU; set at most 1",
        ),
        (
            {"gpus": "NVIDIA A10G, 23028, 550.54.15, 8.6, 0"},
            {},
            "driver: found NVIDIA 550.54.15, and this image's CUDA 13 needs 580 or newer; update the host's driver",
        ),
        (
            {"gpus": "Tesla V100, 16384, 580.95.05, 7.0, 0"},
            {},
            "GPU: Tesla V100 has compute capability 7.0, and this image's CUDA 13 needs 7.5; use a newer GPU",
        ),
        (
            {"gpus": "NVIDIA A10G, 23028, 580.95.05, 8.6, 9000"},
            {},
            "GPU memory: 8.8 of 22.5 GiB of NVIDIA A10G are already in use; stop the processes that use it, or set GPU_MEMORY_UTIL to at most 0.59",
        ),
        (
            {"gpus": "Tiny, 1, 580.95.05, 8.6, 0"},
            {},
            "GPU memory: 0.0 GiB of weights on 1 GPU are 0.0 GiB each, of 0.0 usable; set TENSOR_PARALLEL_SIZE",
        ),
        (
            {},
            {"MODEL_NAME": "acme/none"},
            "weights: acme/none was not found on the Hub, or it is private and no token is set",
        ),
        ({}, {"HF_ENDPOINT": "hub"}, "HF_ENDPOINT: found 'hub'; set an http or https URL"),
        (
            {},
            {"HF_ENDPOINT": "http://127.0.0.1:9", "ENGINE_START_LIMIT_SECONDS": "0"},
            "weights: http://127.0.0.1:9 cannot be reached",
        ),
        (
            {},
            {"HF_HOME": "/proc/nowhere"},
            "weights: /proc/nowhere/hub cannot be used (No such file or directory); mount a",
        ),
        (
            {},
            {"CUDA_VISIBLE_DEVICES": "1"},
            "CUDA_VISIBLE_DEVICES: found '1', which selects none of this container's GPUs (0); unset it",
        ),
        ({}, {"PORT": "70000"}, "PORT: found 70000; set 1 to 65535"),
        ({}, {"MODEL_NAME": ""}, "MODEL_NAME: not set"),
    ],
)
def test_each_refusal_is_one_line_and_exit_code_2(
    engine: Engine, options: dict[str, str], environment: dict[str, str], message: str
) -> None:
    done = engine(**options, **environment)
    assert done.returncode == 2
    assert f"engine: error: {message}" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_the_weights_of_a_plan_are_not_counted_again_from_their_files(engine: Engine) -> None:
    """32-bit files are twice as large as their loaded weights, and weightsGib may say less."""
    done = engine(gpus="Tiny, 1, 580.95.05, 8.6, 0", ENGINE_PLAN_KEY="0123456789abcdef")
    assert "GiB of weights on" not in done.stderr


def test_a_busy_port_is_named(engine: Engine) -> None:
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        port = str(busy.getsockname()[1])
        done = engine(PORT=port)
    assert done.returncode == 2
    assert f"PORT: {port} cannot be bound (Address already in use)" in done.stderr


def test_offline_nobody_is_asked_and_what_is_here_is_used(engine: Engine, hub: FakeHub) -> None:
    elsewhere = engine(HF_HUB_OFFLINE="1")
    assert elsewhere.returncode == 0, elsewhere.stderr
    assert f"VLLM ['--model', '{MODEL}'," in elsewhere.stdout, "a cache that another client filled is vLLM's to find"
    assert hub.names() == []
    assert engine().returncode == 0
    assert (
        f"snapshots/{hub.models[MODEL].commit}'" in engine(HF_HUB_OFFLINE="1", HF_ENDPOINT="http://127.0.0.1:9").stdout
    )


def test_another_hubs_models_are_not_looked_for_here(engine: Engine, hub: FakeHub) -> None:
    assert engine(VLLM_USE_MODELSCOPE="True").returncode == 0
    assert hub.names() == []


def test_a_machine_without_a_gpu_may_say_so(engine: Engine) -> None:
    assert engine(gpus=None, ENGINE_DEVICE="cpu").returncode == 0


def test_small_shared_memory_is_refused_for_several_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("image.engine.checks.visible_gpus", lambda environment: [GPU] * 4)
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"total": 64 << 20, "free": 64 << 20}))
    with pytest.raises(EngineError, match=r"shared memory: found 0.06 GiB .* set --shm-size 4g"):
        check_machine(
            settle(["a/b", "--tensor-parallel-size", "4", "--port", str(free_port())], {}), shared_memory=tmp_path
        )


def test_too_little_memory_is_refused() -> None:
    launch = settle(["a/b", "--port", str(free_port())], {"ENGINE_DEVICE": "cpu"})
    with pytest.raises(
        EngineError, match=r"memory: this container may use 2\.0 GiB, and vLLM's processes need 4; raise"
    ):
        check_machine(launch, memory_gib=2.0)


def test_the_containers_memory_is_its_limit_or_the_machines(tmp_path: Path) -> None:
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal:       33554432 kB\n")
    assert available_gib(tmp_path, meminfo) == 32.0
    (tmp_path / "memory.max").write_text("max\n")
    assert available_gib(tmp_path, meminfo) == 32.0
    (tmp_path / "memory.max").write_text(f"{15 << 30}\n")
    assert available_gib(tmp_path, meminfo) == 15.0


@pytest.mark.parametrize("fault", ["full", "read-only", "of another user"])
def test_complete_weights_start_whatever_the_disk_is_like(
    hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    environment = {"HF_HOME": str(tmp_path), "ENGINE_DEVICE": "cpu", "ENGINE_CACHE": str(tmp_path / "cache")}
    launch = settle([MODEL, "--port", str(free_port())], environment | {"HF_ENDPOINT": hub.address})
    assert fetch(launch, None, print)
    hub.broken = True
    told: list[str] = []
    if fault == "full":
        monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"total": 1 << 40, "free": 1 << 28}))
    else:
        number = {"read-only": errno.EROFS, "of another user": errno.EACCES}[fault]

        def fail(*_: object, **__: object) -> None:
            raise OSError(number, os.strerror(number))

        for name in ("write_bytes", "write_text", "symlink_to", "rename", "replace", "touch"):
            monkeypatch.setattr(Path, name, fail)
    found = check_machine(launch, memory_gib=8.0)
    assert len(found.lines) == 4
    for ask in (False, True):
        assert [one.repository.name for one in fetch(launch, found, told.append, ask=ask)] == [MODEL]


def test_a_compile_cache_that_cannot_be_used_is_only_a_line(engine: Engine) -> None:
    done = engine(ENGINE_CACHE="/proc/nowhere")
    assert done.returncode == 0, done.stderr
    assert "ENGINE_CACHE: /proc/nowhere cannot be written (No such file or directory): nothing is cached" in done.stdout


@pytest.mark.skipif(os.getuid() != 0, reason="another user's folder needs root")
def test_another_users_folder_for_compiled_files_stops_no_start(engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "vllm-endpoint").mkdir()
    os.chown(tmp_path / "vllm-endpoint", 4321, 4321)
    done = engine(ENGINE_CACHE=str(tmp_path / "cache"))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / f"vllm-endpoint-{os.getuid()}/compiled").is_dir()
    os.chown(tmp_path / f"vllm-endpoint-{os.getuid()}", 4321, 4321)
    done = engine(ENGINE_CACHE=str(tmp_path / "cache"))
    assert done.returncode == 0, done.stderr
    assert "cannot be used (it belongs to another user); nothing is cached: set TMPDIR" in done.stdout
