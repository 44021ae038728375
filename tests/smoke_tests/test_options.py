"""Options that several programs have: one declaration, one description, one error."""

import ast
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import pytest

from clients import chat
from smoke_tests import __main__ as conformance
from smoke_tests import api_key, history, summary, verify
from smoke_tests.benchmark import __main__ as benchmark
from smoke_tests.keys import __main__ as keys
from smoke_tests.teardown import __main__ as teardown
from tests.test_repository import ROOT

Main = Callable[[list[str]], int]
PROGRAMS: dict[str, Main] = {
    "conformance": conformance.main,
    "benchmark": benchmark.main,
    "verify": verify.main,
    "history": history.main,
    "keys": keys.main,
    "api_key": api_key.main,
    "summary": summary.main,
    "teardown": teardown.main,
    "chat": chat.main,
}
NOWHERE = "http://127.0.0.1:1"
# Options of one name that mean something else in each program.
DIFFERENT = {
    "--name": "whose key, the results of what, the results' own name",
    "--concurrency": "a sweep of loads, a number of requests, a key's limit",
    "--max-tokens": "a length or a range, a limit",
}


def declarations() -> dict[str, list[str]]:
    """Where each option of these programs is declared."""
    found = defaultdict(list)
    for path in [*sorted((ROOT / "smoke_tests").rglob("*.py")), ROOT / "clients" / "chat.py"]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "add_argument":
                names = [word.value for word in node.args if isinstance(word, ast.Constant)]
                for name in names:
                    if isinstance(name, str) and name.startswith("--"):
                        found[name].append(str(path.relative_to(ROOT)))
    return found


def test_an_option_is_declared_once() -> None:
    found = declarations()
    assert len(found) > 60
    # `--json` prints instead of the text where that is the program's result; others write it to a file.
    assert found.pop("--json") == ["smoke_tests/options.py"] * 2
    assert {name: where for name, where in found.items() if len(where) > 1 and name not in DIFFERENT} == {}


def ends(main: Main, arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    try:
        code = main(arguments)
    except SystemExit as error:
        code = int(error.code or 0)
    return code, capsys.readouterr().err.strip().splitlines()[-1]


@pytest.mark.parametrize("program", PROGRAMS)
def test_an_abbreviated_option_is_rejected(program: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, line = ends(PROGRAMS[program], ["--stac", "dev"], capsys)
    assert code == 2
    assert "--stack" in line if "required" in line else "unrecognized arguments: --stac" in line


@pytest.mark.parametrize("stack", ["", " ", "a/b/c/d"])
@pytest.mark.parametrize("program", PROGRAMS)
def test_a_name_that_is_no_stacks_is_one_error_everywhere(
    program: str, stack: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, line = ends(PROGRAMS[program], ["--stack", stack], capsys)
    assert code == 2
    told = f"argument --stack: found {stack!r}; set STACK, or ORG/PROJECT/STACK for another program's"
    assert line.endswith(told)


@pytest.mark.parametrize(
    ("program", "arguments"),
    [
        ("conformance", ["--endpoint", NOWHERE]),
        ("benchmark", ["--endpoint", NOWHERE]),
        ("verify", ["--endpoint", NOWHERE, "--name", "x"]),
        ("chat", ["--endpoint", NOWHERE]),
        ("chat", []),
        ("keys", ["--local", "--list"]),
        ("history", ["--name", "x"]),
    ],
)
def test_a_choice_within_a_stack_needs_a_stack(
    program: str, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    code, line = ends(PROGRAMS[program], [*arguments, "--endpoint-name", "chat"], capsys)
    assert code != 0
    assert line.endswith("--endpoint-name chooses an endpoint of a stack; give --stack, or leave it out")


@pytest.mark.parametrize(
    ("program", "arguments", "told"),
    [
        ("chat", ["--endpoint", ""], "--endpoint: '' is not a URL; set one such as http://127.0.0.1:8000"),
        ("conformance", ["--endpoint", ""], "--endpoint: '' is not a URL; set one such as http://127.0.0.1:8000"),
        ("chat", ["--endpoint", NOWHERE, "--name", "bob"], "--name chooses a key of a stack; give --stack, or leave it out"),
        ("history", ["--name", ""], "--name: '' cannot name a folder"),
        ("chat", ["--endpoint", NOWHERE, "--api-key-file", ""], "argument --api-key-file: found ''; set a path"),
        ("benchmark", ["--endpoint", NOWHERE, "--api-key-file", ""], "argument --api-key-file: found ''; set a path"),
        ("history", ["--name", "x", "--folder", ""], "argument --folder: found ''; set a path"),
    ],
)  # fmt: skip
def test_an_option_without_effect_is_refused(
    program: str, arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, line = ends(PROGRAMS[program], arguments, capsys)
    assert code != 0
    assert told in line


def test_chat_reads_the_key_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    file.write_text('{"alice": "sk-file"}')
    options = chat._parser().parse_args(["--endpoint", NOWHERE, "--api-key-file", str(file)])
    assert chat._endpoint(options) == (f"{NOWHERE}/v1", "sk-file", "")
