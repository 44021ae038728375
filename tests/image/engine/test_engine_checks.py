"""What the container rejects before it loads a model, each run as a real process with a fake driver and vLLM."""

import dataclasses
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
from image.engine.gpus import Gpu, check_gpus, torch_cuda, visible_gpus
from image.engine.memory import available_gib
from image.engine.staging import stage
from image.engine.weights import Repository, Weights
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
        ({}, {"HF_ENDPOINT": "http://127.0.0.1:9"}, "weights: http://127.0.0.1:9 cannot be reached"),
        ({}, {"ENGINE_CACHE": "/proc/nowhere"}, "ENGINE_CACHE: /proc/nowhere cannot be written"),
        ({}, {"HF_HOME": "/proc/nowhere"}, "HF_HOME: /proc/nowhere cannot be written"),
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


def test_a_driver_with_its_compatibility_library_may_be_older(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = Gpu("A10G", 22.5, "535.1", 8.6, 0.0)
    (tmp_path / "libcuda.so.1").touch()
    monkeypatch.setattr("image.engine.gpus.torch_cuda", lambda: 13)
    monkeypatch.setattr("image.engine.gpus.COMPATIBILITY_LIBRARY", tmp_path / "libcuda.so.1")
    with pytest.raises(EngineError, match="driver: found NVIDIA 535"):
        check_gpus([old], 1, 0.92, {})
    check_gpus([old], 1, 0.92, {"VLLM_ENABLE_CUDA_COMPATIBILITY": "1"})


def test_a_driver_that_hangs_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\nexec /bin/sleep 30\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setattr("image.engine.gpus.DRIVER_TIMEOUT_SECONDS", 0.05)
    with pytest.raises(
        EngineError, match=r"GPU: nvidia-smi did not answer within .*; the driver hangs: replace the instance"
    ):
        visible_gpus({"PATH": str(tmp_path)})


def test_torchs_cuda_is_read_without_importing_it(tmp_path: Path) -> None:
    assert torch_cuda(tmp_path) is None
    for text, expected in (("cuda: Optional[str] = '12.9'", 12), ("cuda: Optional[str] = None", None)):
        (tmp_path / "version.py").write_text(f"__version__ = '2.13.0'\n{text}\n")
        assert torch_cuda(tmp_path) == expected


def test_weights_go_to_the_local_disk_where_they_do_not_fit_in_memory(tmp_path: Path) -> None:
    folder, disk = tmp_path / "snapshot", tmp_path / "disk"
    folder.mkdir()
    (folder / "a.safetensors").write_bytes(b"x" * 4096)
    weights = Weights(Repository("acme/tiny"), "c1", folder, 4096)
    told: list[str] = []
    assert stage(weights, disk, 0.0, told.append) == folder, "no local disk"
    disk.mkdir()
    assert stage(weights, disk, 1.0, told.append) == folder, "memory holds them"
    assert told == []
    target = stage(weights, disk, 0.0, told.append)
    assert (target / "a.safetensors").read_bytes() == b"x" * 4096
    assert stage(weights, disk, 0.0, told.append) == target
    assert told[-1] == "staging: acme/tiny is already on the local disk"
    (disk / "acme--tiny--c2.part").mkdir()  # of a start that was killed
    assert stage(dataclasses.replace(weights, commit="c2"), disk, 0.0, told.append).name == "acme--tiny--c2"


def test_a_full_cache_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"total": 1 << 40, "free": 1 << 30}))
    launch = settle(["a/b", "--port", str(free_port())], {"ENGINE_DEVICE": "cpu", "HF_HOME": str(tmp_path)})
    with pytest.raises(EngineError, match=r"HF_HOME: .* has 1.0 GiB free; free at least 2 GiB"):
        check_machine(launch)
