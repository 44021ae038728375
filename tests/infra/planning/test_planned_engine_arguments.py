"""engineArgs against vLLM's own argument list: each mistake is one line that says what to set, and the rest enters the plan."""

import itertools
import json
import re
from typing import Any

import pytest

from infra.errors import PlanError, SettingsError
from infra.planning import make_plan
from infra.planning.plan import ServingPlan
from infra.settings_problems import parse_settings
from tests.infra.planning.test_every_plan import no_hub

YARN = '{"rope_parameters": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}}'
LONG = '{"max_position_embeddings": 131072, ' + YARN[1:]


def plan(**values: Any) -> ServingPlan:
    return make_plan(parse_settings(values), fetch=no_hub)


def problems(**values: Any) -> list[str]:
    with pytest.raises((PlanError, SettingsError)) as raised:
        plan(**values)
    return raised.value.problems


# Each a list of arguments, and words of the one line that reports it.
WRONG: list[tuple[list[str], str]] = [
    (["--seed 1"], 'several words in one item. Set ["--seed", "1"]'),
    (["vllm serve x"], "which follows no argument"),
    (["seed"], "which follows no argument"),
    ([""], "which is no argument"),
    (["--"], "which is no argument"),
    (["--seed"], "--seed: found no value. Set its value as the next item"),
    (["--seed", "x"], "vLLM expects a whole number"),
    (["--seed", "1", "2"], "found 2, which follows no argument"),
    (["--trust-remote-code=yes"], "found the value yes, but it takes none"),
    (["--trust-remote-code", "true"], "found true, which follows no argument"),
    (["--bogus"], "which vLLM 0.33.0 does not have. Remove it"),
    (["--otlp-trace-endpoint", "x"], "Set --otlp-traces-endpoint, or remove it"),
    (["--gpu-memory-utilisation=0.9"], "Set --gpu-memory-utilization, or remove it"),
    (["--task", "embed"], "Set --runner pooling, with --convert embed or classify instead"),
    (["--swap-space=4"], "Set --kv-offloading-size instead"),
    (["--num-scheduler-steps", "8"], "does not have. Remove it"),
    (["--guided-decoding-backend=outlines"], "--structured-outputs-config.backend"),
    (["--context-length", "8192"], "the setting maxModelLen"),
    (["--max-n", "4"], "the beginning of several arguments"),
    (["--max-model-len", "16k"], "which the setting maxModelLen sets. Remove it, and set maxModelLen: 16000"),
    (["--max_model_len=8192"], "set maxModelLen: 8192"),
    (["--max-model", "8192"], "set maxModelLen: 8192"),
    (["-tp", "2"], "set gpuCount: 2"),
    (["--tensor_parallel_size=2"], "set gpuCount: 2"),
    (["-dp=2"], "set dataParallelSize: 2"),
    (["--model", "a/b"], "set model: a/b"),
    (["--revision=x"], "set modelRevision: x"),
    (["--served-model-name", "chat"], "set servedModelName: chat"),
    (["--gpu-memory-utilization", "0.8"], "set gpuMemoryUtilization: 0.8"),
    (["--kv-cache-memory-bytes=8g"], "set gpuMemoryUtilization"),
    (["--kv-cache-dtype", "fp8"], "set kvCacheDtype: fp8"),
    (["-q", "fp8"], "set quantization: fp8"),
    (["--max-num-seqs", "4"], "set maxNumSeqs: 4"),
    (["--max-num-batched-tokens=4k"], "set maxNumBatchedTokens: 4000"),
    (["--max-model-len", "32K"], "set maxModelLen: 32768"),
    (["--max-model-len", "auto"], "Remove it, or set maxModelLen to a value that it accepts"),
    (["-q", "modelopt"], "Remove it, or set quantization to a value that it accepts"),
    (["--kv-cache-dtype=fp8_ds_mla"], "Remove it, or set kvCacheDtype to a value that it accepts"),
    (["--served-model-name", "a", "b"], "set servedModelName: a,b"),
    (["--language-model-only"], "set imageLimit: 0 and videoLimit: 0"),
    (["--tool-call-parser", "hermes"], "set toolCallParser: hermes"),
    (["--enable-auto-tool-choice"], "set toolCallParser"),
    (["--no-enable-prefix-caching"], "set enablePrefixCaching"),
    (["--disable-prefix-caching"], "set enablePrefixCaching"),
    (["--enforce-eager"], "set fastBoot: eager"),
    (["--speculative-config.model", "a/b"], "set speculative"),
    (["--spec-tokens=3"], "set speculative"),
    (["--enable-lora"], "set loraAdapters"),
    (["--limit-mm-per-prompt.image=2"], "set imageLimit and videoLimit"),
    (["--performance-mode=throughput"], "set performanceMode: throughput"),
    (["--host", "0.0.0.0"], "the gateway reaches the engine at an address that the stack sets"),
    (["--port=80"], "the engine's is the stack's"),
    (["--uds", "/x"], "the gateway reaches the engine over TCP"),
    (["--ssl-keyfile", "/x"], "TLS ends at the load balancer"),
    (["--enable-ssl-refresh"], "TLS ends at the load balancer"),
    (["--root-path=/v2"], "the gateway forwards the engine's own paths"),
    (["--allowed-origins", '["*"]'], "set allowedOrigins"),
    (["--config", "a.yaml"], "write its arguments as items"),
    (["--nnodes=2"], "a replica is one instance"),
    (["--data-parallel-rank", "1"], "a replica is one instance"),
    (["--distributed-executor-backend=ray"], "no Ray cluster"),
    (["--shutdown-timeout", "5"], "the stack's stop timeouts depend on it"),
    (["--dtype", "bf16"], "did you mean bfloat16?"),
    (["--dtype=float32"], "doubles the weights"),
    (["--max-logprobs", "-5"], "vLLM expects at least -1"),
    (["--cpu-offload-gb=-4"], "vLLM expects at least 0"),
    (["--hf-overrides", "{a}"], "vLLM expects JSON"),
    (["--compilation-config", "{"], "vLLM expects JSON"),
    (["--compilation-config.level", "3"], "the key level, which vLLM does not know"),
    (["--structured-outputs-config.backend=outline"], "did you mean outlines?"),
    (["--reasoning-parser", "qwen"], "Remove it, and set reasoningParser: qwen"),
    (["--hf-token-x"], "does not have"),
    (["--pipeline-parallel-size=3"], "does not divide gpuCount (1)"),
    (["--kv-offloading-size", "500"], "the engine may use 12 GiB for that on g5.xlarge"),
    (["--cpu-offload-gb", "40"], "the engine may use 12 GiB for that on g5.xlarge"),
    (["--ёлка"], "does not have"),
    (["--seed\n1"], "several words in one item"),
    (["--seed", "\u202e1"], "vLLM expects a whole number"),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "words"), WRONG, ids=[repr(arguments) for arguments, _ in WRONG])
def test_a_wrong_argument_is_one_line_that_says_what_to_set(arguments: list[str], words: str) -> None:
    (line,) = problems(engineArgs=arguments)
    assert words in line
    assert re.match(r"engineArgs: ", line)
    assert re.search(r"\b(Set|Remove)\b", line)
    assert line.isprintable()


@pytest.mark.parametrize(
    "arguments",
    [
        ["--seed", "-1"], ["--seed=1", "--max_logprobs", "5"], ["--chat-template", "{{ a }} -- b"], ["--logits-processors", "a.b", "c.d"],
        ["--compilation-config.mode", "3"], ["-O3"], ["-cc", '{"mode": 3}'], ["--hf-overrides", '{"architectures": ["X"]}'],
        ["--override-generation-config", '{"temperature": 0.7}'], ["--load-format", "runai_streamer"], ["--trust-remote-code"],
        ["--enable-chunked-prefill"], ["--allowed-media-domains", "images.example.com"], ["--attention-backend", "FLASHINFER"],
        ["--default-chat-template-kwargs", '{"enable_thinking": false}'], ["--middleware", "a.b", "--middleware=c.d"],
    ],
)  # fmt: skip
def test_what_vllm_accepts_and_no_setting_sets_is_passed_on(arguments: list[str]) -> None:
    plan(engineArgs=arguments)


def test_arguments_are_deployed_in_one_form() -> None:
    """What reads the plan, such as make local, sees each argument by its name."""
    args = plan(engineArgs=["--max_logprobs=5", "--compilation-config.mode=3"]).engine.args
    assert args[-4:] == ("--max-logprobs", "5", "--compilation-config", '{"mode": 3}')


def test_a_custom_image_may_have_arguments_of_another_version() -> None:
    (warning,) = [
        w for w in plan(engineArgs=["--new-in-99"], engineImage="acme/vllm:99.0.0").warnings if "engineArgs" in w
    ]
    assert "the engine starts only if engineImage's vLLM does" in warning
    assert "does not have" in problems(engineArgs=["--new-in-99"], engineImage="docker.io/vllm/vllm-openai:v0.32.0")[0]
    assert "maxModelLen" in problems(engineArgs=["--max-model-len=4"], engineImage="acme/vllm:99.0.0")[0]


def test_pipeline_parallelism_enters_the_memory_plan() -> None:
    """Half of the layers on each GPU; the KV heads are split over two GPUs instead of four."""
    values: dict[str, Any] = {"gpu": "h100", "gpuCount": 4, "model": "Qwen/Qwen3-32B-FP8"}
    tensor, pipeline = plan(**values), plan(**values, engineArgs=["-pp", "2"])
    assert pipeline.engine.args[-2:] == ("--pipeline-parallel-size", "2")
    assert pipeline.engine.tensor_parallel_size == 2
    assert pipeline.engine.args[pipeline.engine.args.index("--tensor-parallel-size") + 1] == "2"
    assert pipeline.memory.weights_gib == pytest.approx(tensor.memory.weights_gib, rel=0.1)
    assert pipeline.memory.kv_cache_tokens == pytest.approx(tensor.memory.kv_cache_tokens, rel=0.1)


def test_weights_in_the_instances_memory_leave_room_for_the_cache() -> None:
    without, offloaded = plan(gpu="a10g"), plan(gpu="a10g", engineArgs=["--cpu-offload-gb", "4"])
    assert offloaded.memory.weights_gib == pytest.approx(without.memory.weights_gib - 4, abs=0.02)
    assert offloaded.memory.kv_cache_gib == pytest.approx(without.memory.kv_cache_gib + 4, abs=0.02)
    assert any("--cpu-offload-gb 4" in warning for warning in offloaded.warnings)


def test_yarn_lengthens_the_plan_only_where_vllm_would() -> None:
    values: dict[str, Any] = {"gpu": "h100", "model": "Qwen/Qwen3-8B", "maxModelLen": 131072}
    assert plan(**values, engineArgs=["--hf-overrides", LONG]).memory.max_model_len == 131072
    (line,) = problems(**values, engineArgs=["--hf-overrides", YARN])
    assert "--hf-overrides must also set max_position_embeddings: 131072" in line
    vision: dict[str, Any] = {"gpu": "h100", "model": "Qwen/Qwen2-VL-7B-Instruct"}
    longer = plan(**vision, engineArgs=["--hf-overrides.text_config.max_position_embeddings", "65536"])
    ignored = plan(**vision, engineArgs=["--hf-overrides.max_position_embeddings", "65536"])
    assert (longer.memory.max_model_len, ignored.memory.max_model_len) == (65536, 32768)
    nested = ["--hf-overrides.max_position_embeddings", "131072", "--hf-overrides.rope_parameters.rope_type=yarn"]
    assert plan(**values, engineArgs=nested).memory.max_model_len == 131072


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"maxNumSeqs": 4000}, "maxNumSeqs: found 4000, more than the 2048 tokens per batch"),
        (
            {"loraAdapters": ["a=x/y"], "speculative": "ngram:9", "maxNumSeqs": 256},
            "vLLM needs maxNumBatchedTokens of at least maxNumSeqs x (draft tokens + 1), 2560, and 2048 are set",
        ),
        ({"engineArgs": ["--no-enable-chunked-prefill"], "maxModelLen": 4096}, "maxNumBatchedTokens: found 2048, less than"),
        ({"speculative": "{}"}, "found neither model nor method"),
        ({"speculative": '{"method": "ngram"}'}, "found no num_speculative_tokens"),
        ({"speculative": '{"method": "ngram", "num_speculative_tokens": -1}'}, "vLLM expects more than 0"),
        ({"speculative": '{"method": "ngram", "num_speculative_tokens": "x"}'}, "vLLM expects a whole number"),
        ({"speculative": '{"modle": "a/b"}'}, "did you mean model?"),
        ({"speculative": '{"method": "ngramm"}'}, "did you mean ngram"),
        ({"servedModelName": "--x"}, "begins with a hyphen"),
        ({"servedModelName": "a,-b"}, "begins with a hyphen"),
        ({"modelRevision": "--trust-remote-code"}, "modelRevision: found '--trust-remote-code'"),
        ({"toolCallParser": "hermess"}, "Set hermes"),
        ({"loraAdapters": ["a=s3://b/x"]}, "loraAdapters: found s3://b/x, but only model can be in S3. Set a Hub id"),
        ({"engineArgs": ["--tokenizer", "s3://b/x"]}, "engineArgs: found s3://b/x, but only model can be in S3"),
        (
            {"speculative": '{"model": "s3://b/x", "method": "eagle", "num_speculative_tokens": 2}'},
            "speculative: found s3://b/x, but only model can be in S3",
        ),
    ],
)  # fmt: skip
def test_a_setting_that_vllm_would_reject_is_refused_at_preview(values: dict[str, Any], words: str) -> None:
    (line,) = problems(**values)
    assert words in line


def test_an_encoder_is_given_batches_that_hold_its_input() -> None:
    """An encoder has no chunked prefill: vLLM rejects a batch that is shorter than its context length."""
    encoder = {
        "architectures": ["XLMRobertaModel"], "model_type": "xlm-roberta", "hidden_size": 1024, "intermediate_size": 4096,
        "num_hidden_layers": 24, "num_attention_heads": 16, "vocab_size": 250002, "max_position_embeddings": 8194,
    }  # fmt: skip
    settings = parse_settings({"model": "acme/encoder", "maxNumBatchedTokens": 4096})
    with pytest.raises(PlanError, match="maxNumBatchedTokens: found 4096, less than the context length"):
        make_plan(settings, fetch=lambda model, revision: encoder)
    make_plan(parse_settings({"model": "acme/encoder"}), fetch=lambda model, revision: encoder)


def test_json_may_be_written_as_an_object() -> None:
    """YAML and `--set` parse what Pulumi passes as text."""
    found = plan(
        maxModelLen=0,
        speculative={"method": "ngram", "num_speculative_tokens": 3},
        engineArgs=["--hf-overrides", {"max_position_embeddings": 8192}],
    )
    assert found.memory.max_model_len == 8192
    words = dict(itertools.pairwise(found.engine.args))
    assert json.loads(words["--speculative-config"])["num_speculative_tokens"] == 3
    assert json.loads(words["--hf-overrides"]) == {"max_position_embeddings": 8192}
