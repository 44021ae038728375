"""Command line: `python -m smoke_tests --endpoint URL | --stack NAME`."""

import argparse
import sys
from pathlib import Path

from smoke_tests.cold_start import wait_for_answer
from smoke_tests.conformance import run_conformance
from smoke_tests.errors import TargetError
from smoke_tests.target import add_target_options, target_from_options

# pytest's own code for a run that could not start; 1 is kept for "a test failed".
UNUSABLE_TARGET_EXIT_CODE = 4


def main(arguments: list[str] | None = None) -> int:
    """Run the conformance tests; return pytest's exit code, or 4 where the endpoint cannot be reached."""
    parser = argparse.ArgumentParser(
        prog="python -m smoke_tests",
        description="Is this endpoint right? Runs the OpenAI SDK and plain HTTP against it.",
        epilog="Whatever else is given goes to pytest, e.g. -k stream -x.",
        allow_abbrev=False,
    )
    add_target_options(parser)
    parser.add_argument("--junit", type=Path, metavar="FILE", help="write a JUnit report there")
    options, pytest_arguments = parser.parse_known_args(arguments)
    try:
        answering = wait_for_answer(target_from_options(options), options.wait_seconds)
    except TargetError as error:
        print(f"error: {error}", file=sys.stderr)
        return UNUSABLE_TARGET_EXIT_CODE
    target = answering.target
    print(f"{target.endpoint} serves {target.model}; answered after {answering.waited_seconds:.1f} s", flush=True)
    return run_conformance(target, options.junit, pytest_arguments)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
