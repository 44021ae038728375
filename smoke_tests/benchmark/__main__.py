"""Command line: `python -m smoke_tests.benchmark [run | compare | report] ...`; without a word of these, `run`."""

import sys

from smoke_tests.benchmark import compare_command, report_command, run_command
from smoke_tests.errors import TargetError

COMMANDS = {"run": run_command.main, "compare": compare_command.main, "report": report_command.main}


def main(arguments: list[str] | None = None) -> int:
    """Run the command; its exit code, or 2 with one line where it could not start."""
    given = sys.argv[1:] if arguments is None else arguments
    command, rest = (given[0], given[1:]) if given and given[0] in COMMANDS else ("run", given)
    try:
        return COMMANDS[command](rest)
    except TargetError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
