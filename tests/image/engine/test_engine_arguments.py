"""The environment variables of other images, translated to vLLM's arguments."""

import json

import pytest

from image.engine.arguments import EngineError, settle
from image.engine.start import shown

# What the RunPod image documents as its default configuration.
RUNPOD = {
    "MODEL_NAME": "Qwen/Qwen2-VL-7B-Instruct", "MAX_MODEL_LEN": "32768", "GPU_MEMORY_UTIL": "0.95", "TENSOR_PARALLEL_SIZE": "1",
    "MAX_NUM_SEQS": "12", "MAX_BATCHED_TOKENS": "10240", "IMAGE_LIMIT": "5", "VIDEO_LIMIT": "1",
}  # fmt: skip


def value(arguments: tuple[str, ...], flag: str) -> str:
    return arguments[arguments.index(flag) + 1]


def test_the_runpod_names_are_taken_as_they_are() -> None:
    launch = settle([], RUNPOD)
    assert launch.arguments[0] == "Qwen/Qwen2-VL-7B-Instruct"
    flags = "--max-model-len --gpu-memory-utilization --tensor-parallel-size --max-num-seqs --max-num-batched-tokens"
    assert [value(launch.arguments, flag) for flag in flags.split()] == ["32768", "0.95", "1", "12", "10240"]
    assert json.loads(value(launch.arguments, "--limit-mm-per-prompt")) == {"image": 5, "video": 1}
    assert not set(RUNPOD) & set(launch.environment)


def test_the_modal_names_are_taken_too() -> None:
    modal = {
        "VLLM_MODEL_NAME": "Qwen/Qwen3-0.6B", "VLLM_MODEL_REVISION": "abc", "VLLM_N_GPU": "2", "VLLM_FAST_BOOT": "true",
        "VLLM_PORT": "9000", "VLLM_SCALEDOWN_MINUTES": "10", "VLLM_TIMEOUT_MINUTES": "20", "VLLM_NO_USAGE_STATS": "1",
    }  # fmt: skip
    launch = settle([], modal)
    assert launch.arguments[0] == "Qwen/Qwen3-0.6B"
    assert value(launch.arguments, "--revision") == "abc"
    assert (launch.gpus, launch.port) == (2, 9000)
    assert "--enforce-eager" not in launch.arguments
    assert [note.split()[0] for note in launch.notes] == [
        "VLLM_FAST_BOOT:",
        "VLLM_SCALEDOWN_MINUTES",
        "VLLM_TIMEOUT_MINUTES",
    ]
    # vLLM reads VLLM_PORT itself, for something else.
    assert dict(launch.environment) == {"VLLM_NO_USAGE_STATS": "1"}
    assert "--enforce-eager" in settle([], modal | {"VLLM_FAST_BOOT": "eager"}).arguments


def test_the_command_line_wins() -> None:
    launch = settle(["acme/model", "--max-model-len=1024", "--port", "8123"], RUNPOD | {"VLLM_PORT": "9000"})
    assert launch.arguments[0] == "acme/model"
    assert "32768" not in launch.arguments
    assert launch.port == 8123


def test_what_the_ecs_service_passes_is_left_as_it_is() -> None:
    command = [
        "Qwen/Qwen3-32B-FP8",
        "--host",
        "0.0.0.0",
        "--port",
        "8000",
        "--served-model-name",
        "x",
        "--tensor-parallel-size",
        "4",
    ]
    launch = settle(command, {"HF_HOME": "/weights"})
    assert list(launch.arguments) == command
    assert launch.gpus == 4


def test_the_main_branch_and_empty_values_say_nothing() -> None:
    launch = settle([], {"MODEL_NAME": "a/b", "VLLM_MODEL_REVISION": "main", "MAX_MODEL_LEN": "", "IMAGE_LIMIT": " "})
    assert launch.arguments == ("a/b", "--host", "0.0.0.0", "--port", "8000")


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({}, "MODEL_NAME: not set"),
        ({"MODEL_NAME": "a/b", "VLLM_MODEL_NAME": "c/d"}, "set one of them"),
        ({"MODEL_NAME": "a/b", "MAX_MODEL_LEN": "32k"}, "MAX_MODEL_LEN: found '32k'; set a whole number above 0"),
        ({"MODEL_NAME": "a/b", "GPU_MEMORY_UTIL": "95"}, "GPU_MEMORY_UTIL: found '95'; set a fraction between 0 and 1"),
        ({"MODEL_NAME": "a/b", "MAX_NUM_SEQS": "0"}, "MAX_NUM_SEQS: found '0'"),
        ({"MODEL_NAME": "a/b", "IMAGE_LIMIT": "some"}, "IMAGE_LIMIT: found 'some'"),
        ({"MODEL_NAME": "a/b", "VLLM_FAST_BOOT": "maybe"}, "VLLM_FAST_BOOT: found 'maybe'; set true, false or eager"),
        ({"MODEL_NAME": "a/b", "VLLM_N_GPU": "2", "TENSOR_PARALLEL_SIZE": "4"}, "set one of them"),
    ],
)
def test_each_bad_value_is_one_line(environment: dict[str, str], message: str) -> None:
    with pytest.raises(EngineError) as raised:
        settle([], environment)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_no_secret_stands_in_the_log() -> None:
    assert shown(["m", "--api-key", "sk-1", "--hf-token=hf-2", "--seed", "1"]) == [
        "m",
        "--api-key",
        "***",
        "--hf-token=***",
        "--seed",
        "1",
    ]


def test_no_key_of_several_stands_in_the_log() -> None:
    told = shown(["m", "--api-key", "sk-1", "sk-2", "--seed", "1", "--api-key=sk-3", "sk-4"])
    assert told == ["m", "--api-key", "***", "***", "--seed", "1", "--api-key=***", "***"]
