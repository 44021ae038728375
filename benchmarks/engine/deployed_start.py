"""A start as deployed: the container's entrypoint with the plan's arguments and environment, and weights on a disk.

    python -m benchmarks.engine.deployed_start 400

Reads the plan in benchmarks/engine/deployed_plan.json.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.engine.lab import MODELS, Server, bench, record, wait_for_free_gpu
from benchmarks.engine.plan_comparison import FULL_CACHE_GIB, SHORT_LOAD, planned
from benchmarks.engine.tasks import (
    NO_BYTECODE,
    Task,
    cache,
    compile_bytecode,
    main,
    measure_side_by_side,
    sharing,
    shell,
)
from benchmarks.engine.zygote import Zygote

RENDERED: dict[str, Any] = json.loads(Path(__file__).with_name("deployed_plan.json").read_text())
MODEL = "qwen3-4b-saved"
KEEP_LIMIT_SECONDS = 60
SAVE = """
import torch, sys
from transformers import AutoConfig, AutoModelForCausalLM
torch.set_default_device("cuda")
model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(sys.argv[1]), dtype=torch.bfloat16)
model.save_pretrained(sys.argv[2])
"""


class Deployed(Server):
    """A server started by the container's entrypoint instead of `vllm serve`."""

    def start(self) -> None:
        """Start it as the task definition does, except for the address."""
        address = ["--host", "127.0.0.1", "--port", str(self.port)]
        self.launch([sys.executable, "-m", "image.engine", str(MODELS / self.model), *address])

    def wait_until_kept(self) -> None:
        """Wait until the watcher has stored the compiled files."""
        began = time.monotonic()
        while time.monotonic() - began < KEEP_LIMIT_SECONDS and "compiled: cached" not in self.log.read_text():
            time.sleep(0.2)
        lines = [line for line in self.log.read_text().splitlines() if "engine: " in line and "serve" not in line]
        record("entrypoint", name=self.name, waited=round(time.monotonic() - began, 1), lines=lines)


def deployed(name: str) -> Deployed:
    """A server with exactly the plan for 4B."""
    return Deployed(name, MODEL, RENDERED["args"], RENDERED["environment"], served_name="Qwen/Qwen3-4B")


def starts(zygote: Zygote) -> None:
    """A start without bytecode and caches, starts with the caches of the first, and an eager start like the seeds'."""
    source, target = MODELS / "qwen3-4b", MODELS / MODEL
    shell("copy-tokenizer", f"mkdir -p {target} && cp {source}/* {target}/")
    shell("save-weights", f"python3 -c '{SAVE}' {source} {target}; du -sm {target}; find ~/site -name '*.pyc' -delete")
    for name in ("5-empty", "5-kept", "5-kept-again", "5-kept-third"):
        server = deployed(name)
        if server.boot():
            bench(zygote, server, 10, prompts=50)
            if name == "5-empty":
                server.wait_until_kept()
            else:
                record(
                    "entrypoint",
                    name=name,
                    lines=[line for line in server.log.read_text().splitlines() if "engine: " in line],
                )
            server.stop()
        wait_for_free_gpu()
    shell("kept-files", "du -sm /cache/*; find /cache -type f | head -20; find ~/site -name '*.pyc' | wc -l")
    eager = Server("5-eager-fresh", MODEL, ("--enforce-eager",), cache("5-eager") | NO_BYTECODE, load_format="auto")
    if eager.boot():
        bench(zygote, eager, 10, prompts=30)
        eager.stop()
    wait_for_free_gpu()


def attention(zygote: Zygote) -> None:
    """The effect of other attention kernels on ten streams in 16 bits."""
    compile_bytecode()
    full = sharing(FULL_CACHE_GIB)
    unsplit = ("--attention-config", '{"flash_attn_max_num_splits_for_cuda_graph": 1}')
    measure_side_by_side(
        zygote,
        [
            (planned("a-plan", "4b", "qwen3-4b", full, cache("a-plan")), [SHORT_LOAD] * 2),
            (planned("a-triton", "4b", "qwen3-4b", (*full, "--attention-backend", "TRITON_ATTN"), cache("a-triton")), [SHORT_LOAD] * 2),
            (planned("a-unsplit", "4b", "qwen3-4b", (*full, *unsplit), cache("a-unsplit")), [SHORT_LOAD] * 2),
            (Server("a-seed000", "qwen3-4b", (*full, "--enforce-eager"), cache("a-eager")), [{10: 30}, {10: 30}]),
        ],
        8300,
    )  # fmt: skip


TASKS: list[Task] = [("starts", 250, starts), ("attention", 130, attention)]

if __name__ == "__main__":
    main(__doc__, TASKS)
