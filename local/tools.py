"""Runs one of the repository's programs for make, in an installed environment.

Usage: python3 -m local.tools MODULE [argument ...]. `.venv-local`, which `make local` creates, contains everything that the
plan, verify, history and key programs import. It is used if it is up to date, otherwise `.venv`; if neither is,
`.venv-local` is created, because it is much smaller. `--pairs 'a=1 b=[2, 3]'` becomes `--set a=1 --set 'b=[2, 3]'`.
"""

import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from local.newer_python import require_newer_python


def python() -> Path:
    """The interpreter to run with; creates an environment if necessary.

    Raises:
        LocalError: the environment could not be created.
    """
    from local import folders
    from local.environments import environments, install
    from local.install import developer_environment
    from local.progress import Progress
    from local.stopping import stop_on_signals

    local = environments(has_gpu=False)[0]
    developers = developer_environment(folders.ROOT / ".venv", folders.REQUIREMENTS / "dev.txt", "tests and Pulumi")
    for environment in (local, developers):
        if environment.is_ready:
            return environment.python
    progress = Progress(sys.stderr)  # stdout is for the program's output, such as a key or JSON
    with stop_on_signals():
        install([local], progress)
    progress.end()
    return local.python


def expanded(arguments: "Sequence[str]") -> "Iterator[str]":  # quoted: older Pythons read this, too
    """The arguments with make's SET split into single settings."""
    from local.options import split_pairs

    rest = iter(arguments)
    for argument in rest:
        if argument == "--pairs":
            for pair in split_pairs(next(rest)):
                yield from ("--set", pair)
        else:
            yield argument


def main(arguments: "Sequence[str]") -> int:
    """Exec the program; returns an exit code if that fails."""
    from local.failures import LocalError, one_line
    from local.stopping import Stopped, exit_code_of

    try:
        chosen = str(python())
        sys.stdout.flush()
        command = [chosen, "-m", "local.make_names", arguments[0], *expanded(arguments[1:])]
        os.execv(chosen, command)  # noqa: S606 - no shell is the point
    except LocalError as error:
        print(f"error: {error}", file=sys.stderr)
    except OSError as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
    except Stopped as stopped:
        return exit_code_of(stopped)
    return 1


if __name__ == "__main__":
    require_newer_python("local.tools")
    sys.exit(main(sys.argv[1:]))
