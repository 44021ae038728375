"""The plan's arguments on this machine: which are dropped or changed, and that each change is reported."""

from dataclasses import replace
from pathlib import Path

import pytest

from infra.planning import make_plan
from infra.planning.plan import ServingPlan
from infra.stack_files import load_stack
from local.arguments import EngineCommand, engine_command
from local.gateway import environment
from local.machine import Machine

CPU = Machine("Linux", "x86_64", 8, frozenset({"avx2"}), memory_gib=32, shared_memory_gib=4)
GPU = replace(CPU, gpu_names=("NVIDIA H100", "NVIDIA H100"), gpu_memory_gib=80.0)
COMPILER = Path("/usr/bin/g++")


def plan(**overrides: object) -> ServingPlan:
    return make_plan(load_stack("dev", overrides))


def translated(
    plan: ServingPlan, machine: Machine = CPU, stand_in: bool = True, compiler: Path | None = COMPILER
) -> EngineCommand:
    return engine_command(plan, machine, Path("/models/m"), stand_in, 8123, compiler)


def test_dev_on_a_cpu_keeps_what_fits_and_tells_what_does_not() -> None:
    command = translated(plan())
    assert command.arguments == (
        "--host", "127.0.0.1", "--port", "8123", "--model", "/models/m",
        "--served-model-name", "Qwen/Qwen3-4B-Instruct-2507", "--max-model-len", "16384",
        "--enable-prompt-tokens-details", "--enable-auto-tool-choice", "--tool-call-parser", "hermes", "--enforce-eager", "--shutdown-timeout", "30",
    )  # fmt: skip
    assert command.notes == (
        "dropped --gpu-memory-utilization 0.92: there is no GPU",
        f"dropped --compilation-config {plan().engine.args[-3]}: it configures CUDA graphs",
        "added --enforce-eager: a model this small starts faster and runs no slower without compilation",
        "changed --shutdown-timeout 30 (was 600): a local shutdown waits no longer",
    )
    assert command.environment["VLLM_CPU_KVCACHE_SPACE"] == "1"
    assert not {"VLLM_ENABLE_STARTUP_PLAN", "VLLM_WORKER_MULTIPROC_METHOD"} & set(command.environment)


def test_what_needs_a_gpu_is_dropped_on_a_cpu_in_either_spelling() -> None:
    wanted = plan(gpu="h100", gpuCount=2, kvCacheDtype="fp8", speculative="ngram:3", quantization="fp8",
                  engineArgs=["--compilation_config.mode=3", "--max-logprobs=7", "--disable-log-stats"])  # fmt: skip
    command = translated(wanted, stand_in=False)
    dropped = [note.split(":")[0] for note in command.notes if note.startswith("dropped")]
    assert [words.split()[1].split("=")[0] for words in dropped] == [
        "--gpu-memory-utilization", "--tensor-parallel-size", "--quantization", "--kv-cache-dtype", "--speculative-config",
        "--compilation-config",
    ]  # fmt: skip
    assert command.arguments[command.arguments.index("--max-logprobs") + 1] == "7"
    assert "--disable-log-stats" in command.arguments


def test_a_real_model_on_a_cpu_compiles_and_gets_the_length_its_cache_holds() -> None:
    command = translated(plan(maxModelLen=65536), replace(CPU, memory_gib=20), stand_in=False)
    assert command.compiles
    # (20 GiB less 7.5 of weights) x 0.4 is 5 GiB; 147,456 bytes a token.
    assert command.environment["VLLM_CPU_KVCACHE_SPACE"] == "5"
    assert "changed --max-model-len 35840 (was 65536): 5 GiB of KV cache have room for no more tokens" in command.notes


def test_an_encoder_has_no_cache_that_limits_its_length_on_a_cpu() -> None:
    found = plan(model="BAAI/bge-m3", maxModelLen=0)
    for stand_in in (False, True):
        assert "--max-model-len" not in translated(found, stand_in=stand_in).arguments


def test_without_a_compiler_a_real_model_runs_eagerly_and_that_is_told() -> None:
    command = translated(plan(), stand_in=False, compiler=None)
    assert not command.compiles
    assert "added --enforce-eager: there is no C++ compiler to compile with; g++ would make it faster" in command.notes


def test_on_gpus_the_plan_stays_but_for_the_gpus_that_are_not_there() -> None:
    command = translated(plan(gpu="h100", gpuCount=8, modelRevision="abc"), GPU, stand_in=False, compiler=None)
    assert "changed --tensor-parallel-size 2 (was 8): there are 2 GPUs" in command.notes
    assert "dropped --revision abc: the files are already downloaded" in command.notes
    assert "--gpu-memory-utilization" in command.arguments
    assert "--compilation-config" in command.arguments
    assert "VLLM_CPU_KVCACHE_SPACE" not in command.environment
    assert command.environment["VLLM_WORKER_MULTIPROC_METHOD"] == "fork"


def test_copies_of_the_model_are_as_many_as_the_gpus_allow() -> None:
    planned = plan(gpu="h100", gpuCount=8, dataParallelSize=8)
    assert "changed --data-parallel-size 2 (was 8): there are 2 GPUs" in translated(planned, GPU, stand_in=False).notes
    assert "--data-parallel-size" not in translated(planned, CPU, stand_in=False).arguments


def test_a_stand_in_has_no_adapters() -> None:
    command = translated(plan(loraAdapters=["sql=acme/sql", "law=acme/law"]))
    assert not {"--enable-lora", "--lora-modules", "sql=acme/sql"} & set(command.arguments)
    assert "dropped --lora-modules sql=acme/sql law=acme/law: the stand-in has no adapters" in command.notes


def test_nothing_is_written_outside_the_clone_and_no_key_or_token_reaches_the_engine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("VLLM_API_KEY", "HF_TOKEN", "VLLM_PORT"):
        monkeypatch.setenv(name, "from the shell")
    environment = translated(plan()).environment
    assert "from the shell" not in environment.values()
    caches = ("HF_HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "VLLM_CACHE_ROOT", "VLLM_CONFIG_ROOT",
              "TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR")  # fmt: skip
    root = Path(__file__).parents[2]
    assert all(Path(environment[name]).is_relative_to(root / ".local") for name in caches)
    assert environment["VLLM_NO_USAGE_STATS"] == environment["DO_NOT_TRACK"] == "1"


def test_the_gateway_of_a_stand_in_lists_no_adapters() -> None:
    planned = plan(loraAdapters=["sql=acme/sql"])
    for stand_in, names in ((True, None), (False, "sql")):
        told = environment(planned, 8000, 9090, "http://127.0.0.1:1", {"stand_in": stand_in})
        assert told.get("GATEWAY_ADAPTERS") == names
