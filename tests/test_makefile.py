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


def refusal(*arguments: str) -> str:
    done = subprocess.run(
        ["make", *arguments], cwd=ROOT, capture_output=True, text=True, check=False, timeout=20,
        env={"PATH": os.environ["PATH"]},
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, ""), arguments
    return done.stderr


def test_a_mistyped_variable_or_target_is_rejected_before_anything_runs() -> None:
    assert "not a variable of make local: MODLE. Its variables: MODEL PORT" in refusal("local", "MODLE=x", "PORT=9100")
    assert "not a variable of make local: stack." in refusal("local", "stack=prod")
    assert "not a variable of make plan: MODEL. Its variables: SET STACK" in refusal("plan", "MODEL=org/name")
    assert "not a variable of make test: X. Its variables: none" in refusal("test", "X=1")
    assert "not a target: prod. Variables are written NAME=value" in refusal("plan", "prod")
    assert "not a target: locl." in refusal("locl")


def test_every_listed_variable_is_accepted() -> None:
    for name, (_, listed) in targets().items():
        given = [f"{variable}=1" for variable in [*listed.split(), "PYTHON"]]
        done = subprocess.run(
            ["make", "-n", name, *given], cwd=ROOT, capture_output=True, text=True, check=False, timeout=20,
            env={"PATH": os.environ["PATH"]},
        )  # fmt: skip
        assert done.returncode == 0, (name, done.stderr)


def test_settings_of_the_shell_for_other_pythons_reach_no_program() -> None:
    shell = dict.fromkeys(("PYTHONPATH", "PYTHONHOME", "PYTHONSAFEPATH"), "/nonexistent")
    done = subprocess.run(
        ["make", "-f", "Makefile", "-f", "-", "a/target"], cwd=ROOT, capture_output=True, text=True, check=False, timeout=20,
        env={"PATH": os.environ["PATH"], **shell}, input="a/target:\n\t@env\n",
    )  # fmt: skip
    assert "\nPATH=" in f"\n{done.stdout}", done.stderr
    assert "/nonexistent" not in done.stdout


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
