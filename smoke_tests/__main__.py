"""Command line: `python -m smoke_tests --endpoint URL | --stack NAME`."""

import argparse
import sys
from pathlib import Path

import pytest

from infra.command_line import count, interrupted_exit_code, positive, run, without_reader, zero_or_more
from infra.errors import UserError
from infra.output_file import OutputFile, results_to
from smoke_tests.availability import AvailabilityRun, run_availability
from smoke_tests.cold_start import wait_for_answer
from smoke_tests.conformance import ABILITIES, Conformance, run_conformance
from smoke_tests.errors import TargetError
from smoke_tests.keys_document import KeysDocument, KeysFile, KeysSecret
from smoke_tests.options import add_json_file, new_parser
from smoke_tests.target import Target, add_target_options, target_from_options

# pytest's own code for a run that could not start; 1 means that a test failed.
UNUSABLE_TARGET_EXIT_CODE = 4
OF_THE_STACK = "the stack's"


def main(arguments: list[str] | None = None) -> int:
    """Run the conformance tests, or steady traffic with --availability.

    Returns pytest's exit code (0: all passed, 1: some failed), for --availability 1 if a request was lost; 4 if the
    endpoint cannot be reached; 130 after Ctrl-C and 143 after SIGTERM, with the results so far written.
    """
    given = sys.argv[1:] if arguments is None else arguments
    own, command = (given[: given.index("--")], given[given.index("--") + 1 :]) if "--" in given else (given, [])
    parser = _parser()
    try:
        options, pytest_arguments = parser.parse_known_args(own)
    except UserError as error:
        parser.error(str(error))
    if command and not options.availability:
        parser.error("a command after -- is for --availability")
    if options.availability and pytest_arguments:
        parser.error(f"--availability does not run tests and does not support {pytest_arguments[0]}")
    # A reader that leaves does not cost the results.
    with results_to(options.json, options.junitxml), without_reader():
        return _main(options, command, pytest_arguments, parser)


def _main(
    options: argparse.Namespace, command: list[str], pytest_arguments: list[str], parser: argparse.ArgumentParser
) -> int:
    try:
        keys = _keys(options.rotate_keys, target := target_from_options(options), parser)
        answering = wait_for_answer(target, options.wait_seconds)
        target = answering.target
        print(f"{target.endpoint} serves {target.model}; answered after {answering.waited_seconds:.1f} s", flush=True)
        if options.availability:
            run = AvailabilityRun(target, options.concurrency, options.baseline_seconds, options.duration_seconds)
            return run_availability(run, command, options.json)
    except (TargetError, UserError) as error:
        print(f"error: {error}", file=sys.stderr)
        return UNUSABLE_TARGET_EXIT_CODE
    conformance = Conformance(target, frozenset(options.require), keys, options.image_url, options.video_url)
    try:
        code = run_conformance(
            conformance, junit=options.junitxml, report=options.json, pytest_arguments=tuple(pytest_arguments)
        )
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if code == pytest.ExitCode.INTERRUPTED:
        print("interrupted: the tests that ran are above", file=sys.stderr)
        return interrupted_exit_code()
    return code


def _parser() -> argparse.ArgumentParser:
    parser = new_parser(
        "smoke_tests",
        "Is this endpoint right? Runs the OpenAI SDK and plain HTTP against it.",
        "All other options go to pytest, for example -k stream -x. FILE - is standard output.",
    )
    add_target_options(parser)
    parser.add_argument("--junitxml", "--junit", action=OutputFile, metavar="FILE", help="write a JUnit report")
    add_json_file(parser, "the results")
    parser.add_argument(
        "--require",
        nargs="+",
        choices=ABILITIES,
        default=[],
        help="fail instead of skipping the tests of these if the model does not support them",
    )
    parser.add_argument(
        "--rotate-keys",
        nargs="?",
        const=OF_THE_STACK,
        metavar="FILE",
        help="test key rotation: add a key to this file (without FILE: to the stack's secret), then remove it",
    )
    parser.add_argument("--image-url", default="", metavar="URL", help="a picture that the endpoint can fetch")
    parser.add_argument("--video-url", default="", metavar="URL", help="an MP4 that the endpoint can fetch")
    traffic = parser.add_argument_group("steady traffic while something changes, instead of the tests")
    traffic.add_argument(
        "--availability",
        action="store_true",
        help="send requests until Ctrl-C, for --duration-seconds, or while the command after -- runs "
        "(--availability -- pulumi up); exit 1 if one was lost",
    )
    traffic.add_argument("--concurrency", type=count, default=4, metavar="N", help="requests at once (default 4)")
    traffic.add_argument(
        "--baseline-seconds",
        type=zero_or_more,
        default=15.0,
        metavar="S",
        help="traffic before the change (default 15)",
    )
    traffic.add_argument("--duration-seconds", type=positive, metavar="S", help="how long to watch the change")
    return parser


def _keys(given: str | None, target: Target, parser: argparse.ArgumentParser) -> KeysDocument | None:
    if given is None:
        return None
    if given != OF_THE_STACK:
        return KeysFile(Path(given))
    if not (arn := target.outputs.get("apiKeySecretArn")):
        parser.error("--rotate-keys: name the file that the gateway reads; only a stack on AWS has a secret")
    return KeysSecret(str(arn), target.region)


if __name__ == "__main__":
    run(main)
