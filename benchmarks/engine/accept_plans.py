"""Checks that vLLM's own parser and configuration accept what the planner emits. Requires vLLM's CPU build, but no GPU.

    python -m benchmarks.engine.accept_plans --count 300 --seed 7

Random settings with every model of the catalog are planned. Each plan's arguments go through vLLM's parser, and then through
create_engine_config with a config.json written from the catalog. What vLLM rejects because this is a CPU, or because of a file
that the catalog cannot describe, is listed by message and counted apart; anything else is a failure, and the program returns 1.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import logging
import os
import random
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks.engine.engine_arguments import vllm_parser
from image.engine.models import localized, repositories
from infra.errors import UserError
from infra.planning import make_plan
from infra.planning.catalog.models import UnknownModelError, catalog, catalog_rows
from infra.planning.memory import default_batch
from infra.planning.plan import ServingPlan
from infra.settings_problems import parse_settings

# vLLM's messages about the platform, not about the arguments.
CPU_ONLY = (
    r"not supported on CPU|CPU backend|for the CPU platform|cpu platform|on CPU|CpuPlatform|[Cc]urrent platform",
    r"\S+ quantization is currently not supported in cpu",
    r"World size \(\d+\) is larger than the number of available GPUs|allocated NUMA|NUMA node",
)
# What a checkpoint says of its quantization and the planner does not read.
QUANTIZED: dict[str, dict[str, Any]] = {
    "fp8": {"activation_scheme": "dynamic"}, "awq": {"bits": 4, "group_size": 128, "zero_point": True, "version": "gemm"},
    "gptq": {"bits": 4, "group_size": 128, "desc_act": False}, "mxfp4": {},
}  # fmt: skip
# Files of a model's repository that this program does not write: the message, and what is missing.
MISSING_FILES = {
    r"does not recognize this architecture": "its configuration class is in its own repository",
    r"Can't load image processor": "its image processor is in its own repository",
    r"Failed to load mistral 'params.json'": "its params.json, Mistral's own format, is in its repository",
}
UNREAD = {"xlm-roberta": {"position_embedding_type": "absolute"}}
"""Keys of a config.json that vLLM reads and the planner does not, by model type."""
OPTIONS: dict[str, list[Any]] = {
    "gpu": ["a10g", "l4", "l40s", "a100", "h100", "h200", "b200"], "gpuCount": [1, 1, 2, 4, 8], "dataParallelSize": [1, 1, 1, 2],
    "maxModelLen": [0, 0, 2048, 8192, 32768], "quantization": ["", "", "auto", "fp8"], "kvCacheDtype": ["auto", "auto", "fp8", "bfloat16"],
    "speculative": ["", "", "ngram:3", "mtp:1", "Qwen/Qwen3-0.6B:3", '{"method": "ngram", "num_speculative_tokens": 2, "prompt_lookup_max": 3}'],
    "enablePrefixCaching": [True, True, False], "performanceMode": ["balanced", "interactivity", "throughput"],
    "loraAdapters": [[], [], ["sql=acme/sql"]], "maxLoraRank": [16, 64], "imageLimit": [5, 2, 0], "gpuMemoryUtilization": [0.92, 0.8],
    "maxNumSeqs": [0, 0, 12, 256, 4096], "maxNumBatchedTokens": [0, 0, 4096, 16384], "fastBoot": ["true", "false", "eager"],
    "toolCallParser": ["", "", "hermes", "none"], "servedModelName": ["", "chat", "chat,gpt-4o"],
    "engineArgs": [[], [], ["--seed", "7"], ["--max_logprobs=5"], ["--pipeline-parallel-size", "2"], ["--cpu-offload-gb", "2"],
                   ["--reasoning-parser", "qwen3"], ["--compilation-config.mode", "3"], ["--dtype", "bfloat16"],
                   ["--hf-overrides.max_position_embeddings", "65536"], ["--generation-config", "vllm"], ["--no-enable-chunked-prefill"],
                   ["--kv-offloading-size", "4"], ["--trust-remote-code"], ["--scheduling-policy=priority"]],
}  # fmt: skip


def no_hub(model: str, revision: str) -> dict[str, object]:
    """No config.json is fetched."""
    raise UnknownModelError("this program does not ask the Hub")


def plans(count: int, seed: int) -> Iterator[tuple[dict[str, Any], ServingPlan]]:
    """As many plans as asked for, each with the settings that made it; the models of the catalog take turns."""
    chosen = random.Random(seed)  # noqa: S311 - reproducible, no secret
    models, made = sorted(catalog()), 0
    while made < count:
        values = {key: chosen.choice(values) for key, values in OPTIONS.items()}
        values |= {"model": models[made % len(models)], "startupTimeoutMinutes": 55}
        try:
            plan = make_plan(parse_settings(values), fetch=no_hub)
        except UserError:
            continue
        made += 1
        yield values, plan


def model_types() -> dict[str, str]:
    """The model type of each architecture, for rows of the catalog that only have the second."""
    from transformers.models.auto import modeling_auto

    found: dict[str, str] = {}
    for name, mapping in vars(modeling_auto).items():
        if name.endswith("_MAPPING_NAMES"):
            for kind, architectures in mapping.items():
                for architecture in [architectures] if isinstance(architectures, str) else architectures or ():
                    found.setdefault(architecture, kind)
    return found


def write_model(folder: Path, row: Mapping[str, Any], types: Mapping[str, str]) -> Path:
    """A folder with the config.json that the catalog describes."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    config = {key: value for key, value in row.items() if not key.startswith("_")}
    config.setdefault("model_type", types.get(next(iter(config.get("architectures", ())), ""), ""))
    kind = config["model_type"]
    if "text_config" not in config and kind in CONFIG_MAPPING and "text_config" in CONFIG_MAPPING[kind].sub_configs:
        # The catalog has the values of the text model only, wherever the file on the Hub has them.
        config["text_config"] = {
            key: value for key, value in config.items() if key not in ("architectures", "model_type")
        }
    if method := (config.get("quantization_config") or {}).get("quant_method"):
        config["quantization_config"] = {**QUANTIZED.get(method, {}), **config["quantization_config"]}
    config = {**UNREAD.get(kind, {}), **config}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    write_tokenizer(folder)
    return folder


def write_tokenizer(folder: Path) -> None:
    """A byte-level tokenizer with the words that reasoning parsers look up."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE({byte: i for i, byte in enumerate(pre_tokenizers.ByteLevel.alphabet())}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<s>", "</s>", "<think>", "</think>"])
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>").save_pretrained(folder)  # noqa: S106


def verdict(arguments: list[str], parser: Any) -> str:
    """Empty if vLLM accepts the arguments, else its message."""
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.usage.usage_lib import UsageContext

    output = io.StringIO()
    try:
        with contextlib.redirect_stderr(output):
            parsed = parser.parse_args(["--model", *arguments])
    except SystemExit:
        return f"PARSER {output.getvalue().strip().splitlines()[-1]}"
    except Exception as error:
        return f"PARSER {error}"
    try:
        AsyncEngineArgs.from_cli_args(parsed).create_engine_config(UsageContext.OPENAI_API_SERVER)
    except Exception as error:
        return " ".join(f"{type(error).__name__}: {error}".split())[:400]
    return ""


def main() -> int:
    """Print each rejected plan, and how many were accepted."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--count", type=int, default=300, help="number of plans (300)")
    options.add_argument("--seed", type=int, default=7, help="of the random settings (7)")
    given = options.parse_args()
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
    os.environ |= {"HF_HUB_OFFLINE": "1", "VLLM_LOGGING_LEVEL": "ERROR"}
    logging.disable(logging.CRITICAL)
    import vllm
    from vllm.model_executor.models import registry

    registry._run_in_subprocess = lambda function: function()  # a process for each architecture would take minutes
    parser, types = vllm_parser(), model_types()
    rows, excepted, failed = catalog_rows(), Counter[str](), Counter[str]()
    models = set()
    with tempfile.TemporaryDirectory() as home:
        for number, (values, plan) in enumerate(plans(given.count, given.seed)):
            models.add(plan.model)
            arguments = [plan.model, *plan.engine.args]
            folders = {
                one: write_model(Path(home) / one.name, rows.get(one.name, {}), types)
                for one in repositories(arguments)
            }
            defaults = default_batch(plan.replicas.gpu, values["performanceMode"])  # vLLM's, which depend on the GPU
            for name, default in zip(("--max-num-batched-tokens", "--max-num-seqs"), defaults, strict=True):
                arguments += [name, str(default)] if plan.architecture.keeps_cache and name not in arguments else []
            message = verdict(localized(arguments, folders), parser)
            missing = next((what for text, what in MISSING_FILES.items() if re.search(text, message)), "")
            if missing:
                excepted[f"{plan.model}: {missing}"] += 1
            elif message and any(re.search(pattern, message) for pattern in CPU_ONLY):
                excepted[re.sub(r"\d+", "N", message)[:200]] += 1
            elif message:
                failed[message] += 1
                shown = {key: value for key, value in values.items() if value not in ("", 0, [], "auto")}
                print(f"REJECTED {number}: {message}\n    {json.dumps(shown)}\n    {json.dumps(arguments)}", flush=True)
    for message, count in excepted.most_common():
        print(f"excepted: {count} x {message}")
    print(
        f"vLLM {vllm.__version__}: {given.count} plans of {len(models)} models, {given.count - excepted.total() - failed.total()} accepted, "
        f"{excepted.total()} excepted, {failed.total()} rejected"
    )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
