"""Mutation testing: inserts faults into a copy of the repository, one at a time, and checks that a test or gate fails.

    python -m policy.mutants [WORD...]     only the faults with one of the words in file or description

Faults are in mutants/*.txt: ``file: what it breaks``, lines to remove (``- ``), lines to insert (``+ ``). A paragraph
``tests: PATH...`` lists the tests that must detect the faults below it in its file; the default is the tests of the AWS
program. The exit status is 1 if less than 95% are killed, or a fault no longer matches the code.
"""

from __future__ import annotations

import argparse
import ast
import concurrent.futures
import os
import queue
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FAULTS = Path(__file__).with_name("mutants")
TESTS = ("tests/infra/aws", "tests/infra/test_program.py", "tests/infra/test_order.py")
PARALLEL = 2
LIMIT_SECONDS = 240
LEAST_KILLED = 0.95


@dataclass(frozen=True)
class Mutant:
    """One fault: it replaces the text ``old``, which occurs once in ``file``, with ``new``. ``breaks`` describes its effect.

    ``tests`` must detect it.
    """

    file: str
    breaks: str
    old: str
    new: str
    tests: Sequence[str] = TESTS

    def applied(self, root: Path = ROOT) -> str:
        """The file's text with the fault.

        Raises:
            ValueError: the old text does not occur exactly once, or the result is not Python.
        """
        text = (root / self.file).read_text()
        if text.count(self.old) != 1:
            raise ValueError(f"{self.file}: {self.breaks}: the old text occurs {text.count(self.old)} times")
        changed = text.replace(self.old, self.new)
        if self.file.endswith(".py"):
            try:
                ast.parse(changed)
            except SyntaxError as error:
                raise ValueError(f"{self.file}: {self.breaks}: no longer valid Python: {error}") from None
        return changed


def load_mutants() -> list[Mutant]:
    """All faults, in the order of the files.

    Raises:
        ValueError: a paragraph is not in the expected format.
    """
    return [m for path in sorted(FAULTS.glob("*.txt")) for m in parse(path.read_text())]


def parse(text: str) -> list[Mutant]:
    """The faults of one file's text."""
    found = []
    tests: Sequence[str] = TESTS
    for paragraph in text.strip().split("\n\n"):
        heading, *lines = paragraph.splitlines()
        if heading.startswith("tests: "):
            tests = tuple(" ".join([heading, *lines]).split()[1:])
            continue
        file, separator, breaks = heading.partition(": ")
        old = "\n".join(line[2:] for line in lines if line.startswith("- "))
        new = "\n".join(line[2:] for line in lines if line.startswith("+"))
        if not (separator and old and any(line.startswith("+") for line in lines)):
            raise ValueError(f"must have the form `file: what it breaks`, `- old`, `+ new`: {heading}")
        found.append(Mutant(file, breaks, old, new, tests))
    return found


def copy_repository(folder: Path) -> Path:
    """The files of the working tree, without those that git ignores."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    return folder


def gate(mutant: Mutant) -> list[str]:
    """The command that must fail with the fault: tests, or for a Dockerfile the policy gate."""
    if mutant.file.endswith("Dockerfile"):
        return [str(ROOT / ".venv-policy/bin/python"), "-m", "policy.check"]
    return [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", *mutant.tests]


def killed_by(root: Path, command: Sequence[str]) -> str:
    """The first test or gate that fails in a copy of the repository; empty if all pass."""
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        done = subprocess.run(
            command, cwd=root, env=environment, capture_output=True, text=True, check=False, timeout=LIMIT_SECONDS
        )
    except subprocess.TimeoutExpired:
        return f"time limit of {LIMIT_SECONDS} s"
    if done.returncode == 0:
        return ""
    told = re.search(r"^(?:FAILED|ERROR) (.*?)(?: - .*)?$", done.stdout, re.MULTILINE)
    lines = done.stdout.strip().splitlines() or done.stderr.strip().splitlines() or ["no output"]
    return told[1].removeprefix("tests/").removeprefix("infra/") if told else lines[0][:120]


def main(words: list[str]) -> int:
    """Run the faults that contain one of ``words``, or all faults without ``words``; print one line per fault.

    Returns:
        The exit status.
    """
    mutants = [m for m in load_mutants() if not words or any(word in f"{m.file} {m.breaks}" for word in words)]
    stale = []
    for mutant in mutants:
        try:
            mutant.applied()
        except ValueError as error:
            stale.append(str(error))
    if stale or not mutants:
        print("\n".join(stale) or f"no fault contains {' or '.join(words)}")
        return 1
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as temporary:
        copies: queue.SimpleQueue[Path] = queue.SimpleQueue()
        for i in range(PARALLEL):
            copies.put(copy_repository(Path(temporary, str(i))))
        first = copies.get()
        for command in {tuple(gate(mutant)): None for mutant in mutants}:
            if failing := killed_by(first, command):
                print(f"the tests fail without any fault: {failing}")
                return 1
        copies.put(first)

        def run(mutant: Mutant) -> str:
            root = copies.get()
            try:
                sound = (root / mutant.file).read_text()
                (root / mutant.file).write_text(mutant.applied(root))
                try:
                    return killed_by(root, gate(mutant))
                finally:
                    (root / mutant.file).write_text(sound)
            finally:
                copies.put(root)

        killed = 0
        with concurrent.futures.ThreadPoolExecutor(PARALLEL) as pool:
            for mutant, killer in zip(mutants, pool.map(run, mutants), strict=True):
                killed += bool(killer)
                verdict = f"killed    by {killer}" if killer else "SURVIVED"
                print(f"{Path(mutant.file).name:18} {mutant.breaks:62.62} {verdict}", flush=True)
    share = killed / len(mutants)
    print(f"{killed} of {len(mutants)} killed ({share:.0%}) in {time.monotonic() - started:.0f} s")
    return 0 if share >= LEAST_KILLED else 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        prog="python -m policy.mutants", description="Check that the tests detect single faults."
    )
    parser.add_argument("words", nargs="*", metavar="WORD", help="only faults with one of these in file or description")
    sys.exit(main(parser.parse_args().words))
