"""Creates one virtual environment and shows the progress; used by the Makefile.

Usage: python3 -m local.install FOLDER REQUIREMENTS NAME [pip option ...]. Needs only the standard library. pip is configured
as usual, except that nothing redirects packages out of the folder (PIP_USER, PIP_TARGET).
"""

import sys

from local.newer_python import require_newer_python

# Before the other imports, which an older Python cannot read.
if __name__ == "__main__":
    require_newer_python("local.install")

from collections.abc import Sequence
from pathlib import Path

from local import folders
from local.environments import Environment, install
from local.failures import LocalError, one_line
from local.progress import Progress
from local.stopping import Stopped, exit_code_of, stop_on_signals

READY = "ready"
"""The target file of the Makefile's rules, in the folder."""


def developer_environment(folder: Path, requirements: Path, name: str, pip_options: Sequence[str] = ()) -> Environment:
    """An environment of the Makefile, which is up to date if its `ready` file is newer than the requirements."""
    return Environment(name, folder, requirements, tuple(pip_options), key_file=READY, is_updated=True)


def main(arguments: Sequence[str]) -> int:
    """Create or update the environment; returns an exit code."""
    if len(arguments) < 3:
        print("usage: python3 -m local.install FOLDER REQUIREMENTS NAME [pip option ...]", file=sys.stderr)
        return 2
    folder, requirements, name, *pip_options = arguments
    environment = developer_environment(folders.ROOT / folder, folders.ROOT / requirements, name, pip_options)
    progress = Progress()
    try:
        with stop_on_signals():
            install([environment], progress)
        progress.end(str(environment.folder))
        (environment.folder / READY).touch()
    except LocalError as error:
        progress.fail(str(error))
        return 1
    except OSError as error:
        progress.fail(one_line(error))
        return 1
    except Stopped as stopped:
        progress.say(f"stopped; {folder} is incomplete, run the command again")
        return exit_code_of(stopped)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
