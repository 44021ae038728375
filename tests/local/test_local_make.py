"""Programs run through make: the environment used, errors with make's variables, settings with lists, read-only clones."""

import ast
import fcntl
import importlib.metadata
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from local import bootstrap, environments, folders, make_names
from local.environments import Environment
from local.options import split_pairs
from local.progress import Progress

ROOT = Path(__file__).parents[2]
OUTSIDE_MAKE = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "STARTED_BY"))}
COMMANDS = ("infra.planning", "smoke_tests.verify", "smoke_tests.history", "smoke_tests.keys", "smoke_tests.api_key")


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone whose `.venv-local` is up to date and runs this Python; nothing else is installed in it."""
    folder = tmp_path_factory.mktemp("clone")
    for name in ("image", "infra", "local", "smoke_tests", "requirements"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("Makefile", "Pulumi.yaml", "Pulumi.dev.yaml"):
        shutil.copy(ROOT / name, folder / name)
    python = folder / ".venv-local" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    local = environments.environments(has_gpu=False)[0]
    (folder / ".venv-local" / environments.KEY_FILE).write_text(local.key)
    return folder


def make(clone: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["make", *arguments, f"PYTHON={sys.executable}"],
        cwd=clone, capture_output=True, text=True, timeout=50, env=OUTSIDE_MAKE, check=False,
    )  # fmt: skip


def test_the_plan_runs_in_make_locals_environment_without_another_install(clone: Path) -> None:
    done = make(clone, "plan", 'SET=maxReplicas=3 allowedCidrs=["1.2.3.0/24", "5.6.7.8/32"]')
    assert done.returncode == 0, done.stderr
    assert "replicas    0 to 3" in done.stdout
    assert not (clone / ".venv").exists()


@pytest.mark.parametrize(
    ("target", "said"),
    [
        (["plan", "STACK=none"], "there is no Pulumi.none.yaml. Set STACK to one of: dev"),
        (["plan", "SET=nonsense"], "SET nonsense: found no key=value. Set for example SET='gpu=h100'"),
        (
            ["key", "LOCAL=1", "ADD=alice", "CONCURRENCY=many"],
            "error: CONCURRENCY: 'many' must be a whole number from 1",
        ),
        (["key", "LOCAL=1"], "error: nothing to do; set one of: ADD=NAME, ROTATE=NAME, REVOKE=NAME, LIST=1"),
        (["key", "LOCAL=1", "ROTATE=a", "GRACE_HOURS=x"], "error: GRACE_HOURS: found x; set hours from 0"),
        (["verify", "ENDPOINT=nowhere"], "error: ENDPOINT: 'nowhere' is not a URL"),
        (["history", "NAME=a/b"], "error: NAME: 'a/b' cannot name a folder"),
        (["local", "PORT=abc"], "error: PORT: invalid int value: 'abc'"),
        (["local", "SCALE_DOWN_MINUTES=0"], "error: SCALE_DOWN_MINUTES: found 0. Set 1 or more"),
        (["local", "WEIGHTS=tiny"], "error: WEIGHTS: invalid choice: 'tiny'"),
        (["local", "PORT=70000"], "port 70000 is out of range. Set PORT between 1 and 65535"),
    ],
)
def test_an_error_names_makes_variable(clone: Path, target: list[str], said: str) -> None:
    done = make(clone, *target)
    assert done.returncode != 0
    assert said in done.stdout + done.stderr
    assert "usage:" not in done.stderr
    assert "Traceback" not in done.stderr


def test_other_programs_keep_their_options() -> None:
    told = "error: pulumi stack output --stack dev failed: no such stack; give --api-key-file x, or use --endpoint URL"
    assert make_names.translate(told) == (
        "error: pulumi stack output --stack dev failed: no such stack; give --api-key-file x, or use ENDPOINT=URL"
    )


@pytest.mark.parametrize(
    ("given", "handed_on"),
    [
        ("verify STACK=acme/platform/prod ENDPOINT=chat", "--endpoint-name chat --stack acme/platform/prod"),
        ("verify STACK=dev ENDPOINT=http://127.0.0.1:8000", "--endpoint http://127.0.0.1:8000 --name local-dev"),
        ("chat STACK=acme/platform/prod ENDPOINT=chat", "--endpoint-name chat --stack acme/platform/prod"),
        ("api-key STACK=acme/platform/prod ENDPOINT=chat", "--stack acme/platform/prod --endpoint-name chat"),
        ("key LIST=1 STACK=acme/platform/prod ENDPOINT=chat", "--stack acme/platform/prod --endpoint-name chat --list"),
        ("history STACK=acme/platform/prod ENDPOINT=chat", "--stack acme/platform/prod --endpoint-name chat"),
        ("teardown STACK=acme/platform/prod ENDPOINT=chat", "--stack acme/platform/prod --endpoint-name chat"),
        # Never ignored: the stack dev would be swept instead.
        ("teardown ENDPOINT=chat", "--stack dev --endpoint-name chat"),
        ("api-key ENDPOINT=http://127.0.0.1:8000", "--stack dev --endpoint-name http://127.0.0.1:8000"),
    ],
)
def test_an_endpoint_of_another_program_is_handed_on(given: str, handed_on: str) -> None:
    shown = subprocess.run(
        ["make", "-n", *given.split()], cwd=ROOT, env=OUTSIDE_MAKE, capture_output=True, text=True, check=True, timeout=30
    ).stdout.splitlines()[-1]  # fmt: skip
    words = shlex.split(shown)
    wanted = shlex.split(handed_on)
    assert any(words[start : start + len(wanted)] == wanted for start in range(len(words))), shown


def test_the_makefile_hands_on_every_variable_that_errors_name() -> None:
    makefile = (ROOT / "Makefile").read_text()
    handed_on = dict(re.findall(r"(--[a-z-]+) '?\$\((?:subst [^)]*?,)?([A-Z_]+)\)", makefile))
    assert len(handed_on) > 12
    wrong = {option: name for option, name in handed_on.items() if make_names.VARIABLES.get(option) != name}
    assert wrong == {}


@pytest.mark.parametrize(
    ("text", "pairs"),
    [
        ("", ()),
        ("gpu=h100", ("gpu=h100",)),
        (" gpu=h100  gpuCount=2 ", ("gpu=h100", "gpuCount=2")),
        ('allowedCidrs=["1.2.3.0/24", "5.6.7.8/32"] minReplicas=1',
         ('allowedCidrs=["1.2.3.0/24", "5.6.7.8/32"]', "minReplicas=1")),
        ("engineArgs=[--a, b=c] owner=Team of Ann", ("engineArgs=[--a, b=c]", "owner=Team of Ann")),
        ("owner='it is a=b' gpu=l4", ("owner='it is a=b'", "gpu=l4")),
        ("owner=Ann's gpu=l4", ("owner=Ann's", "gpu=l4")),
        ('engineEnvironment=["A=x y=z"] gpu=l4', ('engineEnvironment=["A=x y=z"]', "gpu=l4")),
    ],
)  # fmt: skip
def test_set_takes_several_pairs_and_lists(text: str, pairs: tuple[str, ...]) -> None:
    assert split_pairs(text) == pairs


def test_make_hands_set_on_whole(clone: Path) -> None:
    done = make(clone, "-n", "local", 'SET=owner=Ann\'s allowedCidrs=["1.2.3.0/24"]')
    assert """--pairs 'owner=Ann'\\''s allowedCidrs=["1.2.3.0/24"]'""" in done.stdout


def closure(requirements: Path) -> set[str]:
    """Names of the distributions that a requirements file installs, with what they need, on this Python."""
    found: set[str] = set()
    waiting: list[tuple[str, frozenset[str]]] = []

    def read(path: Path) -> None:
        for line in path.read_text().splitlines():
            text = line.split("#")[0].strip()
            if text.startswith("-r"):
                read(path.parent / text[2:].strip())
            elif text and not text.startswith("-"):
                wanted = Requirement(text)
                waiting.append((wanted.name, frozenset(wanted.extras)))

    read(requirements)
    seen = set()
    while waiting:
        name, extras = waiting.pop()
        if (name, extras) in seen:
            continue
        seen.add((name, extras))
        found.add(re.sub(r"[-_.]+", "-", name).lower())
        for text in importlib.metadata.requires(name) or []:
            wanted = Requirement(text)
            if wanted.marker is None or any(wanted.marker.evaluate({"extra": extra}) for extra in (*extras, "")):
                waiting.append((wanted.name, frozenset(wanted.extras)))
    return found


@pytest.mark.parametrize("name", ["local", "dev"])
def test_a_list_says_how_many_packages_it_installs(name: str) -> None:
    path = folders.REQUIREMENTS / f"{name}.txt"
    said = Environment(name, folders.ROOT, path).packages
    assert said is not None
    assert abs(said - len(closure(path))) <= 3  # some are for one Python version only


# Runs a module where only some distributions can be imported, the others not.
ONLY = """
import importlib.metadata, json, re, runpy, sys
module, allowed = sys.argv[1], set(json.loads(sys.argv[2]))
owners = importlib.metadata.packages_distributions()
def normal(name): return re.sub(r"[-_.]+", "-", name).lower()
hidden = {top for top, names in owners.items() if not {normal(name) for name in names} & allowed}
class Hide:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in hidden:
            raise ModuleNotFoundError(f"No module named {name!r}, which local.txt does not install", name=name)
sys.meta_path.insert(0, Hide())
sys.argv = [module, "--help"]
runpy.run_module(module, run_name="__main__", alter_sys=True)
"""


@pytest.mark.parametrize("module", COMMANDS)
def test_make_locals_environment_has_all_that_the_commands_import(module: str) -> None:
    allowed = json.dumps(sorted(closure(folders.REQUIREMENTS / "local.txt")))
    done = subprocess.run(
        [sys.executable, "-c", ONLY, module, allowed], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "usage:" in done.stdout


def imported(folder: Path) -> Iterator[tuple[Path, str]]:
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                yield from ((path, name.name.partition(".")[0]) for name in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                yield path, node.module.partition(".")[0]


def test_whatever_is_imported_late_is_in_make_locals_environment_too() -> None:
    owners = importlib.metadata.packages_distributions()
    allowed = closure(folders.REQUIREMENTS / "local.txt")
    missing = {
        (str(path.relative_to(ROOT)), name)
        for part in ("smoke_tests", "infra/planning", "image/gateway")
        for path, name in imported(ROOT / part)
        if name in owners
        and not name.startswith("mypy_")  # type stubs only
        and not {re.sub(r"[-_.]+", "-", owner).lower() for owner in owners[name]} & allowed
    }
    assert missing == set()


@pytest.mark.parametrize("target", [["plan"], ["key", "LOCAL=1", "LIST=1"]])
def test_an_environment_that_cannot_be_written_is_one_line(clone: Path, tmp_path: Path, target: list[str]) -> None:
    # Files in place of folders, because permissions do not apply to root.
    copy = tmp_path / "clone"
    shutil.copytree(clone, copy, ignore=shutil.ignore_patterns(".venv-local", ".local"))
    for name in (".local", ".venv-local"):
        (copy / name).write_text("")
    done = make(copy, *target)
    lines = [line for line in (done.stdout + done.stderr).splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert "is not writable; clone the repository to a writable folder" in lines[0]
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(not Path("/sys/kernel").is_dir(), reason="needs /sys, a folder that nobody can write to")
def test_make_local_in_an_unwritable_clone_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(folders, "STATE", Path("/sys/kernel/.local"))
    monkeypatch.setattr(bootstrap, "Progress", lambda: Progress(sys.stdout))
    assert bootstrap.main([]) == 1
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("error: /sys/kernel/.local: ")
    assert line.endswith("This folder is not writable; clone the repository to a writable folder")


def test_a_running_make_local_is_named_with_its_address_and_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(folders, "STATE", tmp_path)
    monkeypatch.setattr(folders, "API_KEY", tmp_path / "api-key")
    monkeypatch.setattr(bootstrap, "Progress", lambda: Progress(sys.stdout))
    with (tmp_path / "lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        held.write("123 http://127.0.0.1:8123/v1")
        held.flush()
        assert bootstrap.main([]) == 1
    assert capsys.readouterr().out == (
        "error: make local is already running in this folder, at http://127.0.0.1:8123/v1 (process 123). "
        f"Its API key is in {tmp_path}/api-key; Ctrl-C in its terminal stops it\n"
    )


def test_the_lock_says_where_it_serves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folders, "STATE", tmp_path)
    monkeypatch.setattr(bootstrap, "_lock", None)
    bootstrap._hold_lock(8123)
    assert (tmp_path / "lock").read_text() == f"{os.getpid()} http://127.0.0.1:8123/v1"
    assert bootstrap._lock
    bootstrap._lock.close()
