"""Variables of RunPod's and other images: translated, or named in one line."""

import pytest

from image.engine.arguments import EngineError, settle, values

MODEL = {"MODEL_NAME": "acme/m"}
# Documented by RunPod's vLLM image, and what each means.
TRANSLATED = {
    "GPU_MEMORY_UTILIZATION": ("0.85", ["--gpu-memory-utilization", "0.85"]), "REASONING_PARSER": ("qwen3", ["--reasoning-parser", "qwen3"]),
    "TOOL_CALL_PARSER": ("hermes", ["--tool-call-parser", "hermes"]), "ENABLE_AUTO_TOOL_CHOICE": ("true", ["--enable-auto-tool-choice"]),
    "QUANTIZATION": ("awq", ["--quantization", "awq"]), "KV_CACHE_DTYPE": ("fp8", ["--kv-cache-dtype", "fp8"]),
    "OPENAI_SERVED_MODEL_NAME_OVERRIDE": ("chat", ["--served-model-name", "chat"]), "DTYPE": ("half", ["--dtype", "half"]),
    "MODEL_REVISION": ("v2", ["--revision", "v2"]), "TOKENIZER_NAME": ("acme/t", ["--tokenizer", "acme/t"]),
    "TRUST_REMOTE_CODE": ("1", ["--trust-remote-code"]), "ENFORCE_EAGER": ("True", ["--enforce-eager"]),
    "ENABLE_PREFIX_CACHING": ("false", ["--no-enable-prefix-caching"]), "MAX_NUM_BATCHED_TOKENS": ("8192", ["--max-num-batched-tokens", "8192"]),
    "PIPELINE_PARALLEL_SIZE": ("2", ["--pipeline-parallel-size", "2"]), "CUSTOM_CHAT_TEMPLATE": ("{{ x }}", ["--chat-template", "{{ x }}"]),
    "MAX_LORAS": ("2", ["--max-loras", "2"]), "LORA_MODULES": ('[{"name": "a", "path": "x/y"}]', ["--lora-modules", '{"name": "a", "path": "x/y"}']),
    "TASK": ("embed", ["--runner", "pooling", "--convert", "embed"]), "LIMIT_MM_PER_PROMPT": ('{"image": 1}', ["--limit-mm-per-prompt", '{"image": 1}']),
    "SPECULATIVE_CONFIG": ('{"model": "acme/d"}', ["--speculative-config", '{"model": "acme/d"}']), "SEED": ("3", ["--seed", "3"]),
    "VLLM_EXTRA_ARGS": ("--seed 4 --max_logprobs=5", ["--seed", "4", "--max-logprobs", "5"]),
}  # fmt: skip


@pytest.mark.parametrize("name", TRANSLATED)
def test_a_documented_variable_sets_its_argument(name: str) -> None:
    value, words = TRANSLATED[name]
    launch = settle([], MODEL | {name: value})
    found = list(launch.arguments[1:-4])  # without host and port
    assert found == words
    assert name not in launch.environment


def test_an_argument_of_the_command_line_takes_precedence_in_any_spelling() -> None:
    environment = MODEL | {"QUANTIZATION": "awq", "ENABLE_PREFIX_CACHING": "true", "VLLM_EXTRA_ARGS": "--seed 4"}
    launch = settle(["acme/x", "-q", "fp8", "--no_enable_prefix_caching", "--see", "5"], environment)
    assert launch.arguments[0] == "acme/x"
    assert [values(launch.arguments, flag) for flag in ("--quantization", "--seed")] == [["fp8"], ["5"]]
    assert "--enable-prefix-caching" not in launch.arguments


def test_variables_without_effect_are_named_in_one_line() -> None:
    environment = MODEL | {
        "MAX_CONCURRENCY": "30", "RAW_OPENAI_OUTPUT": "1", "SPECULATIVE_MODEL": "acme/d", "VLLM_ATTENTION_BACKEND": "FLASHINFER",
        "VLLM_TENSOR_PARALLEL_SIZE": "2", "VLLM_NO_USAGE_STAT": "1", "VLLM_LOGGING_LEVEL": "DEBUG", "PATH": "/bin", "VLLM_SERVICE_HOST": "10.0.0.1",
    }  # fmt: skip
    (line,) = settle([], environment).notes
    assert line.startswith("environment: these variables have no effect here: ")
    for part in ("MAX_CONCURRENCY (set GATEWAY_CONCURRENCY_PER_REPLICA)", "RAW_OPENAI_OUTPUT", "SPECULATIVE_MODEL (set SPECULATIVE_CONFIG)",
                 "VLLM_ATTENTION_BACKEND (set ATTENTION_BACKEND)", "VLLM_TENSOR_PARALLEL_SIZE (set TENSOR_PARALLEL_SIZE)",
                 "VLLM_NO_USAGE_STAT (set VLLM_NO_USAGE_STATS)"):  # fmt: skip
        assert part in line
    assert not [name for name in ("LOGGING_LEVEL", "PATH", "SERVICE_HOST") if name in line]


def test_what_kubernetes_sets_for_a_service_named_vllm_is_no_port() -> None:
    """Kubernetes sets VLLM_PORT=tcp://... in every pod of a namespace with such a Service."""
    launch = settle([], MODEL | {"VLLM_PORT": "tcp://10.0.0.1:8000", "VLLM_PORT_8000_TCP": "tcp://10.0.0.1:8000"})
    assert launch.port == 8000
    assert "VLLM_PORT" not in launch.environment
    assert launch.notes == ()


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"ENFORCE_EAGER": "maybe"}, "ENFORCE_EAGER: found 'maybe'; set true or false"),
        ({"DTYPE": "bf16"}, "DTYPE: found 'bf16'; vLLM expects one of"),
        ({"TASK": "chat"}, "TASK: found 'chat'; set one of"),
        ({"CPU_OFFLOAD_GB": "-4"}, "CPU_OFFLOAD_GB: found '-4'; vLLM expects at least 0"),
        ({"SPECULATIVE_CONFIG": "{x}"}, "SPECULATIVE_CONFIG: found '{x}'; vLLM expects JSON"),
        ({"VLLM_EXTRA_ARGS": "--chat-template 'x"}, "VLLM_EXTRA_ARGS: no closing quotation"),
        ({"VLLM_EXTRA_ARGS": "--seed x"}, "--seed: found 'x'; vLLM expects a whole number"),
        ({"VLLM_CONFIG_FILE": "/nowhere/a.yaml"}, "--config: /nowhere/a.yaml cannot be read"),
        ({"VLLM_MODEL_REVISION": "v1", "MODEL_REVISION": "v2"}, "MODEL_REVISION: found v2, but VLLM_MODEL_REVISION is v1"),
        (
            {"SERVED_MODEL_NAME": "a", "OPENAI_SERVED_MODEL_NAME_OVERRIDE": "b"},
            "OPENAI_SERVED_MODEL_NAME_OVERRIDE: found b, but SERVED_MODEL_NAME is a; set one of them",
        ),
        ({"MODEL": "acme/other"}, "MODEL_NAME: found acme/m, but MODEL is acme/other; set one of them"),
    ],
)  # fmt: skip
def test_a_bad_value_is_one_line(environment: dict[str, str], message: str) -> None:
    with pytest.raises(EngineError) as raised:
        settle([], MODEL | environment)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)
