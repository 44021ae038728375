"""`--help` of every program in the repository: plain text that describes each option."""

import os
import re
from pathlib import Path

import pytest

from tests.forked_programs import Programs
from tests.test_repository import tracked

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("infra", "image", "smoke_tests", "clients", "policy", "benchmarks")
BENCHMARK = ("run", "compare", "report")


def modules_run_as_programs() -> list[tuple[str, ...]]:
    """Every module that is run as one, with its commands."""
    found = []
    for path in sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")):
        if path.name == "__main__.py" or re.search(r'^if __name__ == "__main__":', path.read_text(), re.MULTILINE):
            found.append(".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__main__"))
    return [*((name,) for name in found), *(("smoke_tests.benchmark", command) for command in BENCHMARK)]


def problems(program: tuple[str, ...], starter: Programs) -> list[str]:
    done = starter.run(["-m", *program, "--help"], {"PATH": os.environ["PATH"], "COLUMNS": "100", "NO_COLOR": "1"})
    found = []
    if done.returncode != 0 or done.stderr:
        found.append(f"exit code {done.returncode}: {done.stderr[-300:]}")
    if not done.stdout.startswith("usage:"):
        found.append("no usage")
    found += [f"markup: {line.strip()}" for line in done.stdout.splitlines() if re.search(r"`|:\w+:`|%%|\*\*", line)]
    return [f"{' '.join(program)}: {problem}" for problem in found + undescribed(done.stdout)]


def undescribed(text: str) -> list[str]:
    """Options and arguments of argparse's help that have no description."""
    lines = text.splitlines()
    found = []
    for line, after in zip(lines, [*lines[1:], ""], strict=True):
        entry = re.match(r"  (\S.*)$", line)
        inside = not text.startswith(line) and entry and not line.startswith("   ")
        if (
            inside
            and entry
            and entry[1].startswith("-")
            and "  " not in entry[1].strip()
            and not after.startswith(" " * 10)
        ):
            found.append(f"not described: {entry[1]}")
    return found


@pytest.mark.timeout(240)  # fifty programs
def test_help_of_every_program_is_plain_text_that_describes_each_option(programs: Programs) -> None:
    every = modules_run_as_programs()
    assert len(every) > 45
    assert [problem for program in every for problem in problems(program, programs)] == []


def test_benchmarks_are_listed_and_commands_in_the_docs_exist() -> None:
    known = {program[0] for program in modules_run_as_programs()}
    for program in sorted(name for name in known if name.startswith("benchmarks.")):
        _, part, name = program.split(".")
        assert f"`{name}`" in (ROOT / "docs/benchmarks" / part / "README.md").read_text(), program
    files = [*tracked("*.md"), *tracked("benchmarks/*.py", "tests/*.py")]
    named = {
        name for path in files for name in re.findall(r"python -m ((?:benchmarks|tests)\.[\w.]*\w)", path.read_text())
    }
    assert len(named) > 15
    assert {name for name in named - known if not name.endswith(".NAME")} == set()


def test_an_option_without_a_description_is_found() -> None:
    text = (
        "usage: x\n\noptions:\n  -h, --help  show this\n  --bad BAD\n  --long-enough-to-wrap NAME\n              text\n"
    )
    assert undescribed(text) == ["not described: --bad BAD"]
