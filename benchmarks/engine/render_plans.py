"""Renders the plans that plan_comparison.py measures: the engine's arguments and environment, and the predicted memory.

    python -m benchmarks.engine.render_plans > benchmarks/engine/plans.json

The committed file has the plans that were measured; rendering them again changes what a comparison measures.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

from infra.planning import make_plan
from infra.settings_problems import parse_settings

H200 = {"gpu": "h200", "maxModelLen": 8192}
STACKS: dict[str, dict[str, Any]] = {
    "4b": {"model": "Qwen/Qwen3-4B"},
    "4b-fp8": {"model": "Qwen/Qwen3-4B", "quantization": "auto"},
    "4b-throughput": {"model": "Qwen/Qwen3-4B", "performanceMode": "throughput"},
    "4b-ngram": {"model": "Qwen/Qwen3-4B", "speculative": "ngram"},
    "0.6b": {"model": "Qwen/Qwen3-0.6B"},
    "8b": {"model": "Qwen/Qwen3-8B"},
    "32b": {"model": "Qwen/Qwen3-32B"},
    "4b-tp2": {"model": "Qwen/Qwen3-4B", "gpuCount": 2},
    "4b-dp2": {"model": "Qwen/Qwen3-4B", "gpuCount": 2, "dataParallelSize": 2},
    "32b-tp2": {"model": "Qwen/Qwen3-32B", "gpuCount": 2},
    "32b-tp4": {"model": "Qwen/Qwen3-32B", "gpuCount": 4},
    "4b-dp4": {"model": "Qwen/Qwen3-4B", "gpuCount": 4, "dataParallelSize": 4},
}


def main() -> None:
    """Print the plan of each stack."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    plans = {}
    for name, values in STACKS.items():
        plan = make_plan(parse_settings(H200 | values))
        plans[name] = {
            "settings": H200 | values,
            "args": list(plan.engine.args),
            "environment": dict(plan.engine.environment),
            "weights_gib": plan.memory.weights_gib,
            "kv_cache_tokens": plan.memory.kv_cache_tokens,
        }
    print(json.dumps(plans, indent=1))


if __name__ == "__main__":
    main()
