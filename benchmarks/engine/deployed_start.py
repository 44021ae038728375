"""Fifth session: a start as it is deployed: image.engine with the plan's arguments and environment, weights on a disk.

Usage: session_5.py SECONDS, with the repository's root in PYTHONPATH before everything else
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from lab import BASE_ENVIRONMENT, HOME, MODELS, RESULTS, Server, Zygote, bench, record, wait_for_free_gpu
from session_1 import run, shell
from session_4 import FULL_CACHE_GIB, beside, cache, planned, shared

RENDERED: dict[str, Any] = json.loads(
    (Path(__file__).resolve().parents[2] / "docs/benchmarks/engine/session_5_plan.json").read_text()
)
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
    """The container's entrypoint instead of ``vllm serve``."""

    def start(self) -> None:
        """As the task definition starts it, but for the address."""
        self.log = RESULTS / "logs" / f"{self.name}.log"
        self.log.parent.mkdir(parents=True, exist_ok=True)
        command = [
            sys.executable,
            "-m",
            "image.engine",
            str(MODELS / self.model),
            "--host",
            "127.0.0.1",
            "--port",
            str(self.port),
        ]
        self.started = time.monotonic()
        self.process = subprocess.Popen(
            [*command, *self.flags], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
            env={**os.environ, **BASE_ENVIRONMENT, **self.environment}, start_new_session=True,
        )  # fmt: skip
        self._reader = threading.Thread(target=self._stamp, daemon=True)
        self._reader.start()

    def wait_until_kept(self) -> None:
        """Until the watcher has published what was compiled."""
        began = time.monotonic()
        while time.monotonic() - began < KEEP_LIMIT_SECONDS and "compiled: kept" not in self.log.read_text():
            time.sleep(0.2)
        lines = [line for line in self.log.read_text().splitlines() if "engine: " in line and "serve" not in line]
        record("entrypoint", name=self.name, waited=round(time.monotonic() - began, 1), lines=lines)


def deployed(name: str) -> Deployed:
    """The plan for 4B, to the letter."""
    return Deployed(name, MODEL, RENDERED["args"], RENDERED["environment"], served_name="Qwen/Qwen3-4B")


def starts(zygote: Zygote) -> None:
    """No bytecode in the image and nothing kept; then with what the first start kept; then eager as the seeds start it."""
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
    nothing = {"PYTHONPYCACHEPREFIX": str(HOME / "nowhere"), "PYTHONDONTWRITEBYTECODE": "1"}
    eager = Server("5-eager-fresh", MODEL, ("--enforce-eager",), cache("5-eager") | nothing, load_format="auto")
    if eager.boot():
        bench(zygote, eager, 10, prompts=30)
        eager.stop()
    wait_for_free_gpu()


def attention(zygote: Zygote) -> None:
    """Whether another attention kernel makes ten streams of bf16 faster."""
    shell("compileall", "python3 -m compileall -q -j 16 ~/site >/dev/null 2>&1")
    full = shared(FULL_CACHE_GIB)
    load = {1: 6, 10: 50, 64: 320}
    unsplit = ("--attention-config", '{"flash_attn_max_num_splits_for_cuda_graph": 1}')
    beside(
        zygote,
        [
            (planned("a-plan", "4b", "qwen3-4b", full, cache("a-plan")), [load, load]),
            (planned("a-triton", "4b", "qwen3-4b", (*full, "--attention-backend", "TRITON_ATTN"), cache("a-triton")), [load, load]),
            (planned("a-unsplit", "4b", "qwen3-4b", (*full, *unsplit), cache("a-unsplit")), [load, load]),
            (Server("a-seed000", "qwen3-4b", (*full, "--enforce-eager"), cache("a-eager")), [{10: 30}, {10: 30}]),
        ],
        8300,
    )  # fmt: skip


if __name__ == "__main__":
    os.environ.update(BASE_ENVIRONMENT)
    RESULTS.mkdir(parents=True, exist_ok=True)
    run([("starts", 250, starts), ("attention", 130, attention)], float(sys.argv[1]))
