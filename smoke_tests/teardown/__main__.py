"""Command line: `python -m smoke_tests.teardown --stack dev [--fix]`."""

import argparse
import json
import os
import re
import sys
from pathlib import Path

import boto3
from botocore.exceptions import BotoCoreError

from infra.command_line import run, zero_or_more
from smoke_tests.errors import TargetError
from smoke_tests.options import add_endpoint_name, add_json, add_profile, add_quiet, add_stack, new_parser
from smoke_tests.progress import ProgressLine
from smoke_tests.teardown.chosen import Chosen, choose
from smoke_tests.teardown.identity import PROJECT
from smoke_tests.teardown.removal import Refused, condemned, remove
from smoke_tests.teardown.report import LEFT, as_json, as_text, exit_code, warnings
from smoke_tests.teardown.sweep import Sweeper

ROOT = Path(__file__).resolve().parents[2]
UNUSABLE = 2


def main(arguments: list[str] | None = None, *, root: Path = ROOT) -> int:
    """Sweep, and with --fix delete.

    Returns:
        0: nothing is left; 1: something is left; 2: AWS cannot be queried; 3: nothing was found, but some checks failed.
    """
    options = _parser().parse_args(arguments)
    try:
        chosen = choose(options.stack, options.endpoint_name, options.project, root, say=_Progress(options))
        session = boto3.Session(profile_name=options.profile or _profile(chosen))
        region = options.region or chosen.region or find_region(chosen.stack, chosen.root, session)
        options.stack = chosen.identity.stack
        sweeper = Sweeper(
            chosen.identity, region, session, _Progress(options), other_regions=not options.this_region_only
        )
        return _run(options, sweeper)
    except (TargetError, BotoCoreError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return UNUSABLE


def _profile(chosen: Chosen) -> str | None:
    if os.environ.get("AWS_PROFILE"):
        return None
    return chosen.profile or find_profile(chosen.stack, chosen.root)


def find_profile(stack: str, root: Path) -> str | None:
    """The AWS profile that the stack file names, unless the environment names one; None: the default one."""
    path = root / f"Pulumi.{stack}.yaml"
    if os.environ.get("AWS_PROFILE") or not path.is_file():
        return None
    told = re.search(r"^\s+aws:profile:\s*[\"']?([^\s\"']+)", path.read_text(), re.MULTILINE)
    return told[1] if told else None


def find_region(stack: str, root: Path, session: boto3.Session) -> str:
    """Return the region of a stack: from its stack file, else from the environment or the profile.

    Raises:
        TargetError: none of them names a region. A guess could report an empty region as clean.
    """
    path = root / f"Pulumi.{stack}.yaml"
    told = (
        re.search(r"^\s+aws:region:\s*[\"']?([a-z0-9-]+)", path.read_text(), re.MULTILINE) if path.is_file() else None
    )
    region = (told and told[1]) or os.environ.get("AWS_REGION") or session.region_name
    if not region:
        raise TargetError(f"where is stack {stack}? Neither {path.name} nor AWS_REGION says; give --region us-east-1")
    return region


def _parser() -> argparse.ArgumentParser:
    parser = new_parser(
        "smoke_tests.teardown",
        "Is anything of this stack left in AWS, and what does it cost? Needs neither Pulumi nor its state.",
        "exit code 0: nothing is left; 1: something is left; 2: AWS cannot be queried; 3: some checks failed",
    )
    add_stack(parser, required=True)
    add_endpoint_name(parser)
    parser.add_argument("--project", default=PROJECT, help=f"Pulumi project, as in the tag Project (default {PROJECT})")
    parser.add_argument("--region", help="where it is (default: the stack file's aws:region, else the environment's)")
    add_profile(parser, "AWS_PROFILE, else the stack file's aws:profile")
    parser.add_argument("--this-region-only", action="store_true", help="do not search the account's other regions")
    add_json(parser, "the result")
    add_quiet(parser)
    parser.add_argument("--fix", action="store_true", help="delete what is left, after you typed the stack's name")
    parser.add_argument("--include-retained", action="store_true", help="with --fix: delete what protect kept, too")
    parser.add_argument("--yes", action="store_true", help="with --fix: do not ask; for programs")
    parser.add_argument(
        "--timeout-minutes", type=zero_or_more, default=30, metavar="M", help="with --fix: how long (default 30)"
    )
    return parser


class _Progress:
    """Progress on stderr: a single updated line on a terminal, otherwise one line per kind."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._quiet = bool(options.quiet)
        self._line = ProgressLine(interval_seconds=None)

    def __call__(self, text: str) -> None:
        if self._quiet:
            return
        if sys.stderr.isatty() and text.endswith(": none"):
            self._line.update(text)
        else:
            self._line.close()
            print(text, file=sys.stderr, flush=True)


def _run(options: argparse.Namespace, sweeper: Sweeper) -> int:
    tell = _Progress(options)
    sweep = sweeper.sweep()
    doomed = condemned(sweep, include_retained=options.include_retained)
    refused: list[Refused] = []
    if options.fix and doomed:
        if not options.yes:
            print(as_text(sweep), file=sys.stderr)
            if not _confirmed(options.stack, len(doomed)):
                print("error: not confirmed; nothing was deleted", file=sys.stderr)
                return LEFT
        for text in warnings(sweep):
            tell(f"warning: {text}")
        timeout = options.timeout_minutes * 60
        sweep, refused = remove(
            sweeper, sweep, tell, include_retained=options.include_retained, timeout_seconds=timeout
        )
    print(json.dumps(as_json(sweep, refused), indent=2) if options.json else as_text(sweep, refused))
    return exit_code(sweep)


def _confirmed(stack: str, count: int) -> bool:
    print(
        f"\nType the {'endpoint' if '/' in stack else 'stack'}'s name ({stack}) to delete these {count}: ",
        end="",
        file=sys.stderr,
        flush=True,
    )
    try:
        return input() == stack
    except EOFError:
        return False


if __name__ == "__main__":
    run(main)
