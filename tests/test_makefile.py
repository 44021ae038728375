"""make help and the targets' variables."""

import os
import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "Makefile").read_text().replace("\\\n", " ")
DEFINED = dict(re.findall(r"^([A-Z_]+) = (.*)$", TEXT, re.MULTILINE))
OF_NO_TARGET = {"MAKEFILE_LIST", "CURDIR", "PYTHON"}


def targets() -> dict[str, tuple[str, str]]:
    """Each target of make help: its prerequisites and recipe, and the variables that its line lists."""
    found = {}
    for name, needs, listed, recipe in re.findall(r"^([a-z-]+):([^#\n]*)##([^\n]*)\n((?:\t.*\n)*)", TEXT, re.MULTILINE):
        found[name] = (needs + recipe, listed.partition("|")[2])
    return found


def used(text: str) -> set[str]:
    """The variables a person can set that a text refers to, through those that the Makefile defines."""
    names = set(re.findall(r"(?<!\$)\$\(([A-Z_]+)\)", text)) | set(re.findall(r"origin ([A-Z_]+)\)", text))
    inner = [used(DEFINED[name]) for name in names & set(DEFINED)]
    return (names - set(DEFINED) - OF_NO_TARGET).union(*inner)


def test_make_help_lists_the_variables_of_each_target() -> None:
    for name, (text, listed) in targets().items():
        assert set(listed.split()) == used(text), name


def test_make_help_groups_every_target_without_colors_in_a_pipe() -> None:
    shown = subprocess.run(
        ["make", "-s", "help"], cwd=ROOT, capture_output=True, text=True, check=True, env={"PATH": os.environ["PATH"]}
    ).stdout
    lines = shown.splitlines()
    assert [line for line in lines if line and not line.startswith(" ")][:-1] == [
        "On this machine",
        "Development",
        "Deploy and operate",
    ]
    assert {line.split()[0] for line in lines if re.match(r"  [a-z]", line)} == set(targets())
    assert "\x1b" not in shown
    assert "|" not in shown
    assert max(map(len, lines)) <= 180
