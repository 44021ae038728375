"""What the container refuses before it loads anything, each run as a real process with a stand-in driver and vLLM."""

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from image.engine.arguments import EngineError, settle
from image.engine.checks import check_machine

ROOT = Path(__file__).parents[3]
Engine = Callable[..., subprocess.CompletedProcess[str]]


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    """Runs the entrypoint, with an nvidia-smi that prints ``gpus`` and a vLLM that only prints its arguments."""
    module = tmp_path / "site/vllm/entrypoints/openai/api_server.py"
    module.parent.mkdir(parents=True)
    for folder in module.parents[:3]:
        (folder / "__init__.py").touch()
    module.write_text("import os, sys\nprint('VLLM', sys.argv[1:], os.environ.get('MODEL_NAME'))\n")

    def run(
        *argv: str, gpus: str | None = "NVIDIA A10G, 23028 MiB, 580.95.05", code: int = 0, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        driver = tmp_path / "bin"
        driver.mkdir(exist_ok=True)
        if gpus is not None:
            (driver / "nvidia-smi").write_text(f"#!/bin/sh\nprintf '%s\\n' '{gpus}'\nexit {code}\n")
            (driver / "nvidia-smi").chmod(0o755)
        values = {
            "PATH": str(driver) + os.pathsep + "/bin",
            "PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path / 'site'}",
            "MODEL_NAME": "a/b",
            "PORT": free_port(),
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


def test_when_all_is_well_it_becomes_vllm(engine: Engine, tmp_path: Path) -> None:
    done = engine(HF_HOME=str(tmp_path / "weights"), MAX_NUM_SEQS="12")
    assert done.returncode == 0, done.stderr
    assert "device: 1 x NVIDIA A10G, 23028 MiB, 580.95.05" in done.stdout
    assert "VLLM ['--model', 'a/b', '--max-num-seqs', '12'," in done.stdout
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
            "TENSOR_PARALLEL_SIZE: found 2, but this container sees 1 GPU; set at most 1",
        ),
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
    assert f"PORT: {port} cannot be listened on (Address already in use)" in done.stderr


def test_a_machine_without_a_gpu_may_say_so(engine: Engine) -> None:
    assert engine(gpus=None, ENGINE_DEVICE="cpu").returncode == 0


def test_small_shared_memory_is_refused_for_several_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("image.engine.checks.visible_gpus", lambda environment: ["GPU"] * 4)
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"total": 64 << 20, "free": 64 << 20}))
    with pytest.raises(EngineError, match=r"shared memory: found 0.06 GiB .* set --shm-size 4g"):
        check_machine(settle(["a/b", "--tensor-parallel-size", "4", "--port", free_port()], {}), shared_memory=tmp_path)


def test_a_full_cache_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"total": 1 << 40, "free": 1 << 30}))
    launch = settle(["a/b", "--port", free_port()], {"ENGINE_DEVICE": "cpu", "HF_HOME": str(tmp_path)})
    with pytest.raises(EngineError, match=r"HF_HOME: .* has 1.0 GiB free; free at least 2 GiB"):
        check_machine(launch)


def test_the_image_holds_what_the_entrypoint_imports(tmp_path: Path) -> None:
    dockerfile = (ROOT / "image/engine.Dockerfile").read_text()
    assert "COPY image/engine /app/image/engine" in dockerfile
    assert "USER 1000:0" in dockerfile
    target = tmp_path / "image/engine"
    target.mkdir(parents=True)
    for file in (ROOT / "image/engine").glob("*.py"):
        (target / file.name).write_text(file.read_text())
    done = subprocess.run(
        [sys.executable, "-S", "-m", "image.engine"],
        cwd=tmp_path,
        env={"PATH": "/bin"},
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert done.stderr.startswith("engine: error: MODEL_NAME: not set"), done.stderr
