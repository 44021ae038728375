"""Options that several programs share: declared once, with one description, one check and one error."""

import argparse
from pathlib import Path

from infra.output_file import OutputFile
from smoke_tests.components import stack_name_problem
from smoke_tests.errors import TargetError

# A parser, an argument group or a group of options that exclude each other.
Options = argparse._ActionsContainer


def new_parser(
    program: str, description: str, epilog: str | None = None, usage: str | None = None
) -> argparse.ArgumentParser:
    """The parser of `python -m PROGRAM`. Abbreviated options are rejected: they would change their meaning with a new option."""
    return argparse.ArgumentParser(
        prog=f"python -m {program}", description=description, epilog=epilog, usage=usage, allow_abbrev=False
    )


def add_stack(to: Options, *, required: bool = False) -> None:
    """Add `--stack`. `required` must be False in a group of options that exclude each other."""
    more = {"required": True} if required else {}
    to.add_argument(
        "--stack", type=_stack, help="deployed Pulumi stack; ORG/PROJECT/STACK for a program of your own", **more
    )


def add_endpoint_name(to: Options) -> None:
    """Add `--endpoint-name`, which chooses an endpoint of another program's stack; see `check_stack_options`."""
    to.add_argument(
        "--endpoint-name",
        default="",
        metavar="NAME",
        help="with --stack ORG/PROJECT/STACK of a program of your own: the component's name, if it declares several",
    )


def add_endpoint(to: Options) -> None:
    """Add `--endpoint`; `target.endpoint_address` parses its value."""
    to.add_argument(
        "--endpoint", metavar="URL", help="base URL, with or without /v1; user:password@ is sent as Basic auth"
    )


def add_api_key_file(to: Options, otherwise: str) -> None:
    """Add `--api-key-file`; `otherwise` describes where the key comes from without it."""
    to.add_argument(
        "--api-key-file", type=file_path, metavar="FILE", help=f"file with the API key (default: {otherwise})"
    )


def add_key_name(to: Options) -> None:
    """Add `--name`, which chooses a key of a stack."""
    to.add_argument("--name", default="", help="whose key of the stack to use (default: the only one)")


def add_model(to: Options) -> None:
    """Add `--model`."""
    to.add_argument("--model", default="", help="model to ask for (default: the stack's, else the first listed)")


def add_results_store(to: Options) -> None:
    """Add `--bucket` and `--folder`, which choose where results are saved."""
    to.add_argument("--bucket", default="", help="S3 bucket of the results (default: the stack's resultsBucket)")
    to.add_argument(
        "--folder", type=file_path, help="folder of the results (default without a bucket: .results in the clone)"
    )


def add_profile(to: Options, otherwise: str = "AWS_PROFILE") -> None:
    """Add `--profile`; `otherwise` describes which profile is used without it."""
    to.add_argument("--profile", help=f"AWS profile (default: {otherwise})")


def add_quiet(to: Options) -> None:
    """Add `--quiet`."""
    to.add_argument("--quiet", action="store_true", help="show no progress")


def add_json(to: Options, what: str) -> None:
    """Add `--json` of a program whose standard output is the result: it prints `what` as JSON instead of text."""
    to.add_argument("--json", action="store_true", help=f"print {what} as JSON")


def add_json_file(to: Options, what: str) -> None:
    """Add `--json FILE` of a program that runs for a while: it writes `what`."""
    to.add_argument(
        "--json",
        action=OutputFile,
        metavar="FILE",
        help=f"write {what} as JSON; - is standard output, and the rest goes to stderr",
    )


def check_stack_options(options: argparse.Namespace) -> None:
    """Raise TargetError if an option that chooses something of a stack is given without `--stack`."""
    if options.endpoint_name and options.stack is None:
        raise TargetError("--endpoint-name chooses an endpoint of a stack; give --stack, or leave it out")


def file_path(text: str) -> Path:
    """The type of an option: a path that is not empty. An empty one would be the current folder."""
    if not text:
        raise argparse.ArgumentTypeError("found ''; set a path")
    return Path(text)


def _stack(text: str) -> str:
    if problem := stack_name_problem(text):
        raise argparse.ArgumentTypeError(problem)
    return text
