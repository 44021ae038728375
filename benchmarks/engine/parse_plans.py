"""Checks engine arguments with vLLM's own argument parser and configuration classes. Requires vLLM, but no GPU.

    python -m benchmarks.engine.parse_plans names > tests/infra/planning/vllm_arguments.txt
    python -m benchmarks.engine.parse_plans check < plans.json

"names" prints the parser's option names, for the offline test of every plan. "check" reads a JSON list of argument lists.
"""

from __future__ import annotations

import argparse
import json
import sys


def main() -> None:
    """Print the names, or parse each list of arguments from standard input."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("command", choices=("names", "check"), help="what to do")
    command = options.parse_args().command
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.entrypoints.launchers.cli_args import make_arg_parser
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    parser = make_arg_parser(FlexibleArgumentParser())
    if command == "names":
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
