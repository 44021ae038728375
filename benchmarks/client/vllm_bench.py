"""Runs vLLM's benchmark client with its own options, for vLLM's CPU build, whose vllm command fails to report its version.

    .venv-engine/bin/python benchmarks/client/vllm_bench.py --help-vllm

Requires vLLM. side_by_side.py runs it.
"""

import argparse


def main() -> None:
    """Run `vllm bench serve`."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--help-vllm", action="store_true", help="show the options of vllm bench serve, and exit")
    options, others = parser.parse_known_args()
    from vllm.benchmarks import serve

    theirs = argparse.ArgumentParser()
    serve.add_cli_args(theirs)
    serve.main(theirs.parse_args(["--help"] if options.help_vllm else others))


if __name__ == "__main__":
    main()
