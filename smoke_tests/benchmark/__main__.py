"""Command line: `python -m smoke_tests.benchmark [run | compare | report] ...`; the default is `run`."""

import sys

from infra.command_line import run
from infra.errors import UserError
from smoke_tests.benchmark import compare_command, report_command, run_command
from smoke_tests.errors import TargetError

COMMANDS = {"run": run_command.main, "compare": compare_command.main, "report": report_command.main}


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns its exit code, or 2 after one line if it could not start."""
    given = sys.argv[1:] if arguments is None else arguments
    command, rest = (given[0], given[1:]) if given and given[0] in COMMANDS else ("run", given)
    try:
        return COMMANDS[command](rest)
    except (TargetError, UserError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    run(main)
