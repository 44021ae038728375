"""vLLM's argument list as data: what the reader makes of names and values."""

import pytest

from image.engine.argument_list import argument_list, size, versions
from infra.planning.engine import VLLM_VERSION

KNOWN = argument_list(VLLM_VERSION)


def test_the_deployed_version_has_its_own_data() -> None:
    """An upgrade of vLLM needs `python -m benchmarks.engine.engine_arguments write`; "changes" then says what is new."""
    assert VLLM_VERSION in versions()
    assert KNOWN.version == VLLM_VERSION


def test_an_unknown_version_has_the_newest_list_before_it() -> None:
    assert argument_list("0.32.1").version == "0.32.0"
    assert argument_list("99.0").version == argument_list().version == versions()[-1]
    assert argument_list("0.1").version == versions()[0]
    assert argument_list("0.33.0+cpu").version == "0.33.0"


@pytest.mark.parametrize(
    ("word", "name"),
    [
        ("--max-model-len", "--max-model-len"), ("--max_model_len=5", "--max-model-len"), ("-tp", "--tensor-parallel-size"),
        ("--tensor-par", "--tensor-parallel-size"), ("--speculative_config.model", "--speculative-config"),
        ("-qfp8", "--quantization"), ("--no-enable-prefix-caching", "--enable-prefix-caching"),
        ("--disable-prefix-caching", "--enable-prefix-caching"), ("--max-n", None), ("--bogus", None), ("--", None),
    ],
)  # fmt: skip
def test_a_name_is_found_as_vllm_finds_it(word: str, name: str | None) -> None:
    found = KNOWN.find(word)
    assert (found and found.name) == name


@pytest.mark.parametrize(
    ("word", "near"),
    [
        ("--gpu-memory-utilisation", "--gpu-memory-utilization"), ("--tensor-parallel", "--tensor-parallel-size"),
        ("--max-num-sequences", "--max-num-seqs"), ("--trust-remote", "--trust-remote-code"), ("--reasoning_parsr", "--reasoning-parser"),
        ("--xyzzy", ""),
    ],
)  # fmt: skip
def test_a_misspelt_name_has_a_nearest(word: str, near: str) -> None:
    assert KNOWN.nearest(word) == near


@pytest.mark.parametrize(
    ("text", "number"), [("16k", 16000), ("16K", 16384), ("1.5k", 1500), ("2m", 2_000_000), ("7", 7), (" 8 ", 8)]
)
def test_sizes_are_read_as_vllm_reads_them(text: str, number: int) -> None:
    assert size(text) == number


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("--seed", "7", ""), ("--seed", "x", "found 'x'; vLLM expects a whole number"),
        ("--max-logprobs", "-1", ""), ("--max-logprobs", "-2", "at least -1"),
        ("--cpu-offload-gb", "4.5", ""), ("--cpu-offload-gb", "-1", "at least 0"), ("--cpu-offload-gb", "nan", "at least 0"),
        ("--max-model-len", "auto", ""), ("--max-model-len", "16k", ""), ("--max-num-batched-tokens", "1.5K", "such as 16k"),
        ("--dtype", "bf16", "did you mean bfloat16?"), ("--tokenizer-mode", "fast", ""), ("--moe-backend", "Deep-GEMM", ""),
        ("--hf-overrides", '{"a": 1}', ""), ("--hf-overrides", "{a}", "JSON"), ("--hf-overrides", "pkg.function", ""),
        ("--speculative-config", '{"modle": "x"}', "did you mean model?"), ("--speculative-config", "[]", "a JSON object"),
        ("--speculative-config", '{"num-speculative-tokens": 0}', "more than 0"), ("--speculative-config", "None", ""),
        ("--speculative-config", '{"method": "mpt"}', "did you mean mtp?"), ("--compilation-config", '{"mode": 3}', ""),
        ("--compilation-config", '{"cudagraph_capture_sizes": "1"}', "a list"), ("--structured-outputs-config", '{"backend": "outline"}', "outlines"),
        ("--kv-transfer-config", '{"kv_role": "kv_both", "kv_connector": "x"}', ""), ("--kv-transfer-config", "yes", "JSON"),
    ],
)  # fmt: skip
def test_a_value_is_accepted_or_refused_as_vllm_does(name: str, value: str, problem: str) -> None:
    found = KNOWN.arguments[name].problem(value)
    assert problem in found
    assert bool(found) == bool(problem), found
    assert "\n" not in found
