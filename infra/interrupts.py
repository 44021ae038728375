"""Ctrl-C while a program is still importing its libraries: one word and exit code 130 instead of a traceback.

Each package with programs calls `quiet_while_importing` before it imports anything else. `imported` restores Python's own
handler, so that a started program can clean up; `infra.command_line.run` calls it. Standard library only, and any installed
Python must be able to run it, because `python3 -m local` does: nothing newer than 3.6.
"""

import os
import signal
import sys


def quiet_while_importing() -> None:
    """Exit quietly at Ctrl-C, if this is called while `python -m` looks for its module; otherwise do nothing.

    `sys.argv[0]` is "-m" only then, so a program that imports the package as a library keeps its own handler.
    """
    if getattr(sys, "argv", [])[:1] == ["-m"]:
        exit_quietly()


def exit_quietly() -> None:
    """Exit quietly at Ctrl-C, unless something else handles or ignores it (nohup, a job in the background)."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _exit)


def imported() -> None:
    """Let Ctrl-C raise KeyboardInterrupt again."""
    if signal.getsignal(signal.SIGINT) is _exit:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _exit(number: int, frame: object) -> None:
    del frame
    # Not an exception: an import may catch it, or discard it in a callback. Nothing has started that needs cleaning up.
    try:
        os.write(2, b"\rinterrupted\n" if os.isatty(2) else b"interrupted\n")
    finally:
        os._exit(128 + number)
