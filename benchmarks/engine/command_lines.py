"""Writes what vLLM's own parser makes of each command line of a file: the expected values of a test. Requires vLLM.

    python -m benchmarks.engine.command_lines tests/image/engine/command_lines.json

A case has the words after the program's name and, where it has them, the YAML file that FILE stands for, or environment
variables and the command line that they mean. The result is the model, its name, the parallel size, the length and the draft
model, or "error".
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import logging
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.engine.engine_arguments import vllm_parser

LONGEST = -1
"""The length that vLLM fits to the memory."""


def meaning(parsed: Any) -> dict[str, Any]:
    """The values that the entrypoint and the planner depend on."""
    model = parsed.model_tag or parsed.model
    draft = (parsed.speculative_config or {}).get("model") or parsed.spec_model
    return {
        "model": model,
        "names": parsed.served_model_name or [model],
        "parallel": [parsed.tensor_parallel_size, parsed.pipeline_parallel_size, parsed.data_parallel_size],
        "length": parsed.max_model_len,
        "draft": draft,
    }


def result(words: Sequence[str], parser: Any) -> dict[str, Any] | str:
    """What vLLM makes of a command line."""
    rest = list(words)
    for first in ("vllm", "serve"):
        if rest[:1] == [first]:
            del rest[0]
    quiet = io.StringIO()
    try:
        with contextlib.redirect_stderr(quiet), contextlib.redirect_stdout(quiet):
            return meaning(parser.parse_args(["serve", *rest]))
    except (SystemExit, Exception):
        return "error"


def main() -> None:
    """Fill in the expected values, in place."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("path", type=Path, help="the file of cases")
    path = options.parse_args().path
    logging.disable(logging.CRITICAL)
    import vllm
    import yaml

    data = json.loads(path.read_text(encoding="utf-8"))
    parser = vllm_parser(serve=True)
    with tempfile.TemporaryDirectory() as folder:
        for case in data["cases"]:
            file = Path(folder) / "arguments.yaml"
            file.write_text(yaml.safe_dump(case.get("config", {})), encoding="utf-8")
            words = [word.replace("FILE", str(file)) for word in case.get("same_as") or case["words"]]
            case["expected"] = result(words, parser)
    lines = ",\n".join(json.dumps(case) for case in data["cases"])
    path.write_text(f'{{\n"vllm": "{vllm.__version__}",\n"cases": [\n{lines}\n]\n}}\n', encoding="utf-8")
    print(f"{len(data['cases'])} command lines, {sum(case['expected'] == 'error' for case in data['cases'])} rejected")


if __name__ == "__main__":
    main()
