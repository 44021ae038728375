"""The weights and caches that vLLM reports for models of many architectures, with random weights.

    python -m benchmarks.engine.architecture_probes 600

The config.json files are those of tests/infra/planning/real_models.json. Models that are larger than the GPU are probed with
fewer layers. tests/infra/planning/test_measured_architectures.py compares the plan with the results.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks.engine.lab import MODELS, RESULTS, memory_probe
from benchmarks.engine.tasks import Task, cache, main
from benchmarks.engine.zygote import Zygote

CONFIGS = Path(__file__).parents[2] / "tests" / "infra" / "planning" / "real_models.json"
# Kernels that are compiled at the first use are not measured here.
ENVIRONMENT = {"VLLM_USE_DEEP_GEMM": "0", "VLLM_MOE_USE_DEEP_GEMM": "0", "VLLM_USE_FLASHINFER_MOE_FP16": "0"}
# Name -> number of layers, 0 for all; then what vLLM needs beside the keys that the file has.
PROBES: dict[str, tuple[int, dict[str, Any]]] = {
    "openai/gpt-oss-20b": (0, {}),
    "google/gemma-3-27b-it": (0, {"part": "text_config", "architectures": ["Gemma3ForCausalLM"]}),
    "google/gemma-3-1b-it": (0, {}),
    "Qwen/Qwen3-Next-80B-A3B-Instruct": (24, {}),
    "deepseek-ai/DeepSeek-V3": (6, {"architectures": ["DeepseekV3ForCausalLM"]}),
    "nvidia/NVIDIA-Nemotron-3-Nano-30B-A3B-BF16": (0, {}),
    "ibm-granite/granite-4.0-h-small": (0, {}),
    "baidu/ERNIE-4.5-21B-A3B-PT": (0, {}),
    "allenai/Olmo-3.1-32B-Instruct": (0, {"architectures": ["Olmo3ForCausalLM"]}),
    "CohereLabs/c4ai-command-r7b-12-2024": (0, {"architectures": ["Cohere2ForCausalLM"]}),
    "tiiuae/Falcon-H1-7B-Instruct": (0, {}),
    "moonshotai/Kimi-Linear-48B-A3B-Instruct": (0, {"architectures": ["KimiLinearForCausalLM"]}),
    "openai/gpt-oss-120b": (0, {}),
    "mistralai/Mamba-Codestral-7B-v0.1": (0, {}),
    "tiiuae/falcon-mamba-7b-instruct": (0, {}),
    "ai21labs/AI21-Jamba-1.5-Mini": (16, {}),
    "Zyphra/Zamba2-7B-Instruct": (0, {}),
    "meta-llama/Llama-4-Scout-17B-16E-Instruct": (
        16,
        {"part": "text_config", "architectures": ["Llama4ForCausalLM"], "model_type": "llama4_text"},
    ),
    "MiniMaxAI/MiniMax-M2.5": (16, {"architectures": ["MiniMaxM2ForCausalLM"]}),
    "zai-org/GLM-4.5-Air": (16, {}),
    "XiaomiMiMo/MiMo-V2-Flash": (12, {}),
    "microsoft/Phi-3.5-MoE-instruct": (16, {}),
    "Qwen/Qwen3-8B-AWQ": (0, {}),
    "nvidia/Llama-3_3-Nemotron-Super-49B-v1": (0, {}),
    "LGAI-EXAONE/EXAONE-4.0-32B": (0, {"architectures": ["Exaone4ForCausalLM"]}),
    "openbmb/MiniCPM3-4B": (0, {}),
    "HuggingFaceTB/SmolLM3-3B": (0, {}),
    "microsoft/phi-4": (0, {"architectures": ["Phi3ForCausalLM"]}),
    "google/gemma-4-26B-A4B": (0, {"part": "text_config", "architectures": ["Gemma4ForCausalLM"]}),
    "Qwen/Qwen3.5-35B-A3B": (0, {"part": "text_config", "architectures": ["Qwen3_5MoeForCausalLM"]}),
    "Qwen/Qwen3-30B-A3B": (24, {"architectures": ["Qwen3MoeForCausalLM"]}),
    "Qwen/Qwen3-Embedding-8B": (0, {"runner": "pooling"}),
    "BAAI/bge-m3": (0, {"runner": "pooling", "max_model_len": 8192}),
    "mistralai/Mixtral-8x7B-Instruct-v0.1": (16, {}),
    "databricks/dbrx-instruct": (16, {}),
    "meituan-longcat/LongCat-Flash-Chat": (2, {}),
    "internlm/internlm2_5-7b-chat": (0, {}),
}
ENGINE_KEYS = ("runner", "max_model_len")


def configuration(name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The config.json to probe, and arguments of the engine."""
    layers, more = PROBES[name]
    engine = {key: value for key, value in more.items() if key in ENGINE_KEYS}
    config = json.loads(CONFIGS.read_text())[name]["config"]
    config = dict(config.get(more.get("part", ""), config))
    config |= {key: value for key, value in more.items() if key not in (*ENGINE_KEYS, "part")}
    return shortened(config, layers), engine


def shortened(config: dict[str, Any], layers: int) -> dict[str, Any]:
    """The same model with its first layers only."""
    total = next((config[key] for key in ("num_hidden_layers", "num_layers", "n_layers") if key in config), 0)
    if not layers or not total:
        return config
    found: dict[str, Any] = {}
    for key, value in config.items():
        if key in ("num_hidden_layers", "num_layers", "n_layers"):
            found[key] = layers
        elif isinstance(value, list | str) and len(value) == total:
            found[key] = value[:layers]
        elif isinstance(value, list) and value and all(isinstance(item, int) and item <= total for item in value):
            found[key] = [item for item in value if item <= layers]  # numbers of layers
        else:
            found[key] = value
    return found


def probe(name: str) -> Task:
    """The task for one model."""

    def run(zygote: Zygote) -> None:
        results = RESULTS / "results.jsonl"
        if results.is_file() and f'"model": "{name.replace("/", "--")}"' in results.read_text():
            return  # by an earlier run on this machine
        config, engine = configuration(name)
        folder = MODELS / name.replace("/", "--")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(json.dumps(config))
        arguments = {"skip_tokenizer_init": True, "gpu_memory_utilization": 0.9, "max_num_seqs": 256} | engine
        memory_probe(zygote, name.replace("/", "--"), folder.name, cache("probes") | ENVIRONMENT, **arguments)

    return f"architecture {name}", 15, run


if __name__ == "__main__":
    main(__doc__, [probe(name) for name in PROBES])
