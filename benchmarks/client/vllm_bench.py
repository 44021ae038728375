"""`vllm bench serve` with the same options, for vLLM's CPU build, whose `vllm` command cannot tell its own version."""

import argparse

from vllm.benchmarks.serve import add_cli_args, main

if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    add_cli_args(parser)
    main(parser.parse_args())
