"""The GPUs that the driver reports, and which of them vLLM will use."""

from pathlib import Path

import pytest

from image.engine.arguments import EngineError
from image.engine.gpus import Gpu, by_index, check_gpus, torch_cuda, visible_gpus

FIRST = "NVIDIA A10G, 23028, 580.95.05, 8.6, 22000, 0, GPU-aaaa1111-0000"
SECOND = "NVIDIA A10G, 23028, 580.95.05, 8.6, 3, 1, GPU-bbbb2222-0000"
WARNINGS = (
    "WARNING: infoROM is corrupted at gpu 0000:00:1E.0",
    "Warning: persistence mode is disabled on device 0000:00:1E.0, see the man page, section 4, for details, please",
    "",
)


def driver(folder: Path, *lines: str) -> dict[str, str]:
    text = "\n".join(lines)
    (folder / "nvidia-smi").write_text(f"#!/bin/sh\nprintf '%s\\n' '{text}'\n")
    (folder / "nvidia-smi").chmod(0o755)
    return {"PATH": str(folder)}


@pytest.mark.parametrize(
    ("devices", "indices"),
    [(None, [0, 1]), ("1", [1]), ("1,0", [1, 0]), ("GPU-bbbb2222-0000", [1]), ("GPU-bbbb", [1]), ("1, 0", [1, 0]),
     ("1,-1,0", [1]), ("0,7", [0]), ("GPU-bbbb,GPU-aaaa", [1, 0])],
)  # fmt: skip
def test_the_gpus_that_cuda_sees_are_checked(tmp_path: Path, devices: str | None, indices: list[int]) -> None:
    environment = driver(tmp_path, FIRST, *WARNINGS, SECOND, WARNINGS[0])
    found = visible_gpus(environment | ({} if devices is None else {"CUDA_VISIBLE_DEVICES": devices}))
    assert [gpu.index for gpu in found] == indices
    if indices[0] == 1:
        check_gpus(found, 1, 0.92, {})  # GPU 0 is full
    else:
        with pytest.raises(EngineError, match=r"GPU memory: 21.5 of 22.5 GiB"):
            check_gpus(found, 1, 0.92, {})


@pytest.mark.parametrize("devices", ["", "-1", "7", "GPU-cccc", "GPU-", "none"])
def test_a_selection_of_no_gpu_names_the_variable(tmp_path: Path, devices: str) -> None:
    with pytest.raises(
        EngineError, match=rf"CUDA_VISIBLE_DEVICES: found '{devices}', .* \(GPU-aaaa1111-0000, GPU-bbbb2222"
    ):
        visible_gpus(driver(tmp_path, FIRST, SECOND) | {"CUDA_VISIBLE_DEVICES": devices})


@pytest.mark.parametrize(
    ("devices", "told"),
    [("GPU-bbbb,GPU-aaaa", "1,0"), ("GPU-bbbb2222-0000", "1"), ("1,0", None), ("MIG-1", None), (None, None)],
)
def test_vllm_is_given_indices_because_it_fails_on_uuids(tmp_path: Path, devices: str | None, told: str | None) -> None:
    environment = driver(tmp_path, FIRST, SECOND) | ({} if devices is None else {"CUDA_VISIBLE_DEVICES": devices})
    found = by_index(visible_gpus(environment), environment)
    assert found.get("CUDA_VISIBLE_DEVICES") == told
    assert found.get("CUDA_DEVICE_ORDER") == (told and "PCI_BUS_ID")


def test_a_part_of_a_gpu_is_not_measured_by_the_whole(tmp_path: Path) -> None:
    (found,) = visible_gpus(driver(tmp_path, FIRST) | {"CUDA_VISIBLE_DEVICES": "MIG-1234"})
    assert (found.name, found.memory_gib, found.driver) == ("MIG-1234", None, "580.95.05")
    check_gpus([found], 1, 0.92, {})


def test_a_gpu_that_does_not_report_its_memory_is_a_gpu(tmp_path: Path) -> None:
    (found,) = visible_gpus(driver(tmp_path, "NVIDIA GB10, [N/A], 580.95.05, 12.1, [N/A], 0, GPU-1"))
    assert (found.name, found.memory_gib) == ("NVIDIA GB10", None)


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
