"""The memory that vLLM reports in 31 configurations: weights, KV cache, activations.

    python -m benchmarks.engine.memory_probes 600

tests/infra/planning/test_measured_memory.py compares the plan with earlier results.
"""

from __future__ import annotations

from typing import Any

from benchmarks.engine.lab import MODELS, Server, make_variant, memory_probe
from benchmarks.engine.tasks import FEW_GRAPHS, FORK, FP8_BLOCKS, Task, boot_once, cache, compile_bytecode, main
from benchmarks.engine.zygote import Zygote

# As much memory as vLLM can use of one A10G at a utilization of 0.92 (20.3 GiB), with the A10G's default batch limits.
AS_ON_A10G = ("--gpu-memory-utilization", "0.1452", "--max-num-batched-tokens", "2048", "--max-num-seqs", "256")
NO_DEEPGEMM = {"VLLM_USE_DEEP_GEMM": "0"}
SMALL_BATCH: dict[str, Any] = {"max_num_batched_tokens": 2048, "max_num_seqs": 256}
COMPILED: dict[str, Any] = {"enforce_eager": False, "compilation_config": {"cudagraph_mode": "NONE"}}
DRAFT = {"model": str(MODELS / "qwen3-0.6b"), "num_speculative_tokens": 4}
SEED_001: dict[str, Any] = {
    "max_num_batched_tokens": 10240, "max_num_seqs": 12, "gpu_memory_utilization": 0.95, "max_model_len": 32768,
}  # fmt: skip
# Name -> model and engine arguments.
EAGER: dict[str, tuple[str, dict[str, Any]]] = {
    "0.6b": ("qwen3-0.6b", {}),
    "1.7b": ("qwen3-1.7b", {}),
    "4b": ("qwen3-4b", {}),
    "8b": ("qwen3-8b", {}),
    "14b": ("qwen3-14b", {}),
    "32b": ("qwen3-32b", {}),
    "30b-a3b": ("qwen3-30b-a3b", {}),
    "4b-fp8": ("qwen3-4b", {"quantization": "fp8"}),
    "8b-fp8": ("qwen3-8b", {"quantization": "fp8"}),
    "14b-fp8": ("qwen3-14b", {"quantization": "fp8"}),
    "32b-fp8": ("qwen3-32b", {"quantization": "fp8"}),
    "8b-fp8-blocks": ("qwen3-8b-fp8", {}),
    "4b-kvfp8": ("qwen3-4b", {"kv_cache_dtype": "fp8"}),
    "8b-kvfp8-util0.9": ("qwen3-8b", {"kv_cache_dtype": "fp8", "gpu_memory_utilization": 0.9}),
    "4b-small-batch": ("qwen3-4b", SMALL_BATCH),
    "4b-large-batch": ("qwen3-4b", {"max_num_batched_tokens": 32768}),
    "4b-throughput": ("qwen3-4b", {"max_num_batched_tokens": 16384, "max_num_seqs": 2048}),
    "4b-len40960-util0.8": ("qwen3-4b", {"max_model_len": 40960, "gpu_memory_utilization": 0.8}),
    "4b-seed001": ("qwen3-4b", SEED_001),
    "0.6b-many-seqs": ("qwen3-0.6b", {"max_num_seqs": 4096}),
    "1.7b-small-batch-room": ("qwen3-1.7b", SMALL_BATCH | {"gpu_memory_utilization": 0.145}),
    "30b-a3b-256-seqs": ("qwen3-30b-a3b", {"max_num_seqs": 256}),
    "4b-two-adapters": ("qwen3-4b", {"enable_lora": True, "max_loras": 2, "max_lora_rank": 16}),
    "4b-draft-0.6b": ("qwen3-4b", {"speculative_config": DRAFT}),
}
WITHOUT_GRAPHS: dict[str, tuple[str, dict[str, Any]]] = {
    "4b": ("qwen3-4b", {}),
    "4b-small-batch": ("qwen3-4b", SMALL_BATCH),
    "4b-large-batch": ("qwen3-4b", {"max_num_batched_tokens": 32768}),
    "4b-fp8": ("qwen3-4b", {"quantization": "fp8"}),
    "30b-a3b": ("qwen3-30b-a3b", {}),
}


def make_variants() -> None:
    """Create the models that are variants of those on disk."""
    make_variant(
        "qwen3-1.7b", "qwen3-4b", hidden_size=2048, intermediate_size=6144, num_hidden_layers=28, num_attention_heads=16
    )
    make_variant(
        "qwen3-14b", "qwen3-8b", hidden_size=5120, intermediate_size=17408, num_hidden_layers=40, num_attention_heads=40
    )
    make_variant("qwen3-8b-fp8", "qwen3-8b", **FP8_BLOCKS)
    make_variant(
        "qwen3-30b-a3b", "qwen3-8b", architectures=["Qwen3MoeForCausalLM"], model_type="qwen3_moe", hidden_size=2048,
        intermediate_size=6144, moe_intermediate_size=768, num_experts=128, num_experts_per_tok=8, num_hidden_layers=48,
        num_attention_heads=32, num_key_value_heads=4, norm_topk_prob=True, decoder_sparse_step=1, mlp_only_layers=[],
    )  # fmt: skip


def eager(zygote: Zygote) -> None:
    """Without compiling."""
    make_variants()
    for name, (model, arguments) in EAGER.items():
        environment = cache("probes") | (NO_DEEPGEMM if "blocks" in name else {})
        memory_probe(zygote, f"eager-{name}", model, environment, **arguments)


def compiled(zygote: Zygote) -> None:
    """Compiled, without CUDA graphs, which vLLM captures after it has sized the cache."""
    make_variants()
    for name, (model, arguments) in WITHOUT_GRAPHS.items():
        memory_probe(zygote, f"compiled-{name}", model, cache("probes"), **COMPILED, **arguments)


def in_the_memory_of_an_a10g(zygote: Zygote) -> None:
    """A first and a second start of 4B in the memory of an A10G."""
    del zygote
    for name in ("4b-a10g-room-first", "4b-a10g-room-kept"):
        boot_once(Server(name, "qwen3-4b", (*FEW_GRAPHS, *AS_ON_A10G), cache("a10g") | FORK))


TASKS: list[Task] = [
    ("eager", 210, eager),
    ("compiled", 180, compiled),
    ("in the memory of an A10G", 80, in_the_memory_of_an_a10g),
]

if __name__ == "__main__":
    main(__doc__, TASKS, compile_bytecode)
