"""Downloads a model's files from the Hub, as the engine's container does: interrupted downloads resume, and hashes are verified.

Usage: python -m local.download MODEL REVISION FOLDER [vllm serve arguments], with HF_HOME, and the token in HF_TOKEN. FOLDER
becomes a link to the model's files. The models that the arguments name (draft model, tokenizer, LoRA adapters) are
downloaded to HF_HOME, where vLLM finds them. On failure, the last line of output is the reason.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from image.engine.arguments import EngineError
from image.engine.hub import Hub
from image.engine.models import repositories
from image.engine.weights import cache_folder, ensure
from infra.web_address import use_no_proxy_for_this_machine


def main(model: str, revision: str, folder: str, arguments: Sequence[str] = ()) -> None:
    """Download every file that vLLM needs."""
    use_no_proxy_for_this_machine()
    cache, link, hub = cache_folder(os.environ), Path(folder), Hub(os.environ)
    for one in repositories([model, "--revision", revision, *arguments]):
        weights = ensure(one, cache, hub, lambda line: print(line, flush=True), ask=True)
        if (one.name, one.revision) != (model, revision):
            continue
        if link.is_symlink():
            link.unlink()
        shutil.rmtree(link, ignore_errors=True)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(weights.folder)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        prog="python -m local.download",
        description="Download a model's files from the Hub. Interrupted downloads resume, and hashes are verified.",
    )
    parser.add_argument("model", help="Hub id, such as Qwen/Qwen3-0.6B")
    parser.add_argument("revision", help="branch, tag or commit")
    parser.add_argument("folder", help="becomes a link to the files; they are stored in HF_HOME")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="vLLM's arguments, which may name other models")
    given = parser.parse_args()
    try:
        main(given.model, given.revision, given.folder, given.arguments)
    except EngineError as error:
        sys.exit(f"error: {error}")
