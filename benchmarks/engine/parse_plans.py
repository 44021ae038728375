"""Every plan of the catalog through vLLM's own argument parser and configuration classes; run with the engine's Python.

Usage: parse_plans.py names > tests/infra/planning/vllm_arguments.txt     the parser's names, for the offline test
       parse_plans.py check < plans.json                                   a JSON list of argument lists
"""

from __future__ import annotations

import json
import sys

from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.entrypoints.launchers.cli_args import make_arg_parser
from vllm.utils.argparse_utils import FlexibleArgumentParser


def main() -> None:
    """Print the names, or parse each list of arguments from standard input."""
    parser = make_arg_parser(FlexibleArgumentParser())
    if sys.argv[1] == "names":
        names = {name for action in parser._actions for name in action.option_strings if name.startswith("--")}
        print("\n".join(sorted(names)))
        return
    plans = json.load(sys.stdin)
    for arguments in plans:
        parsed = parser.parse_args(["--model", "m", *arguments])
        AsyncEngineArgs.from_cli_args(parsed)
    print(f"{len(plans)} lists of arguments parsed")


if __name__ == "__main__":
    main()
