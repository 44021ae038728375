"""What holds for the repository as a whole."""

import ast
import importlib.metadata
import os
import re
import subprocess
import sysconfig
import textwrap
import tomllib
from pathlib import Path

import pytest
from packaging.specifiers import SpecifierSet
from pydantic.alias_generators import to_camel

from infra.errors import PlanError
from infra.planning import make_plan
from infra.planning.__main__ import as_table
from infra.settings import Settings
from infra.stack_files import load_stack
from local.banner import Shown, banner
from local.machine import Machine

ROOT = Path(__file__).parents[1]
TEST_FOLDERS = ("tests", "smoke_tests")


def tracked(*patterns: str) -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--", *patterns], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return [path for name in listed.stdout.split("\0") if name and (path := ROOT / name).is_file()]


def never_collected(path: Path, source: str) -> list[str]:
    """Tests in a file that pytest would pass over: wrong file name, nested functions, or a second one of the same name."""
    tree = ast.parse(source)
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    tests = [node for node in functions if node.name.startswith("test_")]
    if not re.fullmatch(r"test_.*\.py", path.name):
        classes = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name.startswith("Test")]
        return [
            f"{path}:{node.lineno} {node.name} is in a file that pytest does not collect" for node in [*tests, *classes]
        ]
    bodies = [
        tree.body,
        *(node.body for node in tree.body if isinstance(node, ast.ClassDef) and node.name.startswith("Test")),
    ]
    found = []
    for body in bodies:
        names = [node.name for node in body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
        found += [
            f"{path}: {name} is defined twice"
            for name in sorted({n for n in names if n.startswith("test_") and names.count(n) > 1})
        ]
    reached = {id(node) for body in bodies for node in body}
    return found + [f"{path}:{node.lineno} {node.name} is nested" for node in tests if id(node) not in reached]


def test_pytest_collects_every_test() -> None:
    files = tracked(*(f"{folder}/**.py" for folder in TEST_FOLDERS))
    assert len(files) > 5
    assert [line for path in files for line in never_collected(path.relative_to(ROOT), path.read_text())] == []


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("checks.py", "def test_a(): pass"),
        ("helpers_test_a.py", "class TestA:\n    def test_b(self): pass"),
        ("test_a.py", "def test_a(): pass\ndef test_a(): pass"),
        ("test_a.py", "if True:\n    def test_a(): pass"),
        ("test_a.py", "class Checks:\n    def test_a(self): pass"),
    ],
)
def test_a_test_that_would_not_run_is_found(name: str, source: str) -> None:
    assert never_collected(Path(name), source)


def test_requirements_are_pinned_and_name_no_registry() -> None:
    pins = {}
    for path in tracked("requirements*.txt", "requirements/*.txt"):
        for line in path.read_text().splitlines():
            text = line.split("#")[0].strip()
            assert "://" not in line, f"{path.name}: {line}"
            assert not text.startswith(("-i", "--index", "--extra-index", "--find-links", "-f ")), (
                f"{path.name}: {line}"
            )
            if path.name == "constraints.txt":
                name, separator, version = text.partition("==")
                assert separator, f"{path.name}: {line}"
                assert version, f"{path.name}: {line}"
                pins[re.sub(r"[-_.]+", "-", name).lower()] = version
    for path in tracked("requirements/*.txt"):
        if path.name == "constraints.txt":
            continue
        for line in path.read_text().splitlines():
            text = line.split("#")[0].split(";")[0].strip()
            if not text or text.startswith("-"):
                continue
            name = re.sub(r"[-_.]+", "-", re.split(r"[\[=<>]", text)[0]).lower()
            assert "==" in text or name in pins, f"{path.name}: {text} is pinned nowhere"


def test_every_pin_supports_the_oldest_python_that_is_promised() -> None:
    """3.11.0, and not only the version that runs the tests."""
    promised = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    oldest = f"{promised.removeprefix('>=')}.0"
    assert f"Python {promised.removeprefix('>=')} or newer" in (ROOT / "README.md").read_text()
    # The policy gate is installed into an environment of its own, if it is installed.
    environments = [Path(sysconfig.get_path("purelib")), *(ROOT / ".venv-policy").glob("lib/python*/site-packages")]
    pins = {
        f"{name}=={version}"
        for path in tracked("requirements/constraints.txt", "requirements/policy.txt")
        for line in path.read_text().splitlines()
        for name, _, version in [line.split("#")[0].strip().partition("==")]
        if version
    }
    newer = {
        pin: needed
        for distribution in importlib.metadata.distributions(path=[str(path) for path in environments])
        if (pin := f"{distribution.metadata['Name']}=={distribution.version}") in pins
        and (needed := distribution.metadata.json.get("requires_python"))
        and not SpecifierSet(str(needed)).contains(oldest)
    }
    assert newer == {}


def test_no_path_of_a_machine_and_no_lock_file_with_addresses() -> None:
    assert tracked("uv.lock", "poetry.lock", "package-lock.json") == []
    for path in tracked():
        try:
            text = path.read_text()
        except UnicodeDecodeError:
            continue
        found = re.search(r"(?<![\w.])/(?:work|farm|root|Users|home/(?!vllm\b))/?\w+/", text)
        assert not found, f"{path.relative_to(ROOT)}: {found and found.group()}"


def test_promises_name_tests_that_exist() -> None:
    lines = [line for line in (ROOT / "docs/promises.md").read_text().splitlines() if line.startswith("- ")]
    assert len(lines) > 10
    for line in lines:
        holders = re.findall(r"`((?:tests|smoke_tests)/[^`:]+)(?:::(\w+))?`", line)
        assert holders, f"no test holds: {line}"
        for file, name in holders:
            assert (ROOT / file).is_file(), f"{file} in: {line}"
            assert not name or f"def {name}(" in (ROOT / file).read_text(), f"{name} in: {line}"


def test_the_migration_table_has_a_row_for_every_known_setting() -> None:
    table = (ROOT / "docs/migrating.md").read_text()
    names = (
        "VLLM_MODEL_NAME VLLM_MODEL_REVISION VLLM_N_GPU VLLM_FAST_BOOT VLLM_PORT VLLM_SCALEDOWN_MINUTES VLLM_TIMEOUT_MINUTES "
        "VLLM_API_KEY VLLM_BASE_URL MODEL_NAME MAX_MODEL_LEN GPU_MEMORY_UTIL TENSOR_PARALLEL_SIZE MAX_NUM_SEQS "
        "MAX_BATCHED_TOKENS IMAGE_LIMIT VIDEO_LIMIT gpu_memory_utilization max_model_len tensor_parallel_size "
        "trust_remote_code --speculative-model --num-speculative-tokens --enable-prefix-caching --enforce-eager"
    )
    for name in names.split():
        assert f"`{name}`" in table, name


def readme_with_plans(readme: str) -> str:
    """The README with the plan of dev and the cost table as the code prints them now."""
    plans = {stack: make_plan(load_stack(stack)) for stack in ("dev", "prod")}
    command = "$ .venv-local/bin/python -m infra.planning dev\n"
    before, after = readme.split(command)
    readme = f"{before}{command}{as_table(plans['dev'], 'dev')}\n\n{after.partition(chr(10) * 2)[2]}"
    command = "$ .venv-local/bin/python -m infra.planning prod --set gpu=a10g\n"
    before, after = readme.split(command)
    with pytest.raises(PlanError) as refusal:
        make_plan(load_stack("prod", {"gpu": "a10g"}))
    error = textwrap.fill(f"error: {refusal.value}", 125, break_on_hyphens=False, break_long_words=False)
    readme = f"{before}{command}{error}\n```{after.partition('```')[2]}"
    for stack, plan in plans.items():
        cost = plan.cost
        months = " | ".join(f"${cost.usd_per_month(hours):,.0f}/month" for hours in (1, 8, 24))
        row = f"| ${cost.usd_per_hour_idle:.3f}/h | ${cost.usd_per_hour_active:.3f}/h | {months} |"
        lines = readme.split("\n")
        readme = "\n".join(
            f"{line[: line.index(')') + 1]} {row}" if line.startswith(f"| {stack} (") else line for line in lines
        )
    return readme


def test_the_readme_shows_plans_and_prices_as_they_are() -> None:
    path = ROOT / "README.md"
    if os.environ.get("UPDATE_DOCS"):
        path.write_text(readme_with_plans(path.read_text()))
    assert path.read_text() == readme_with_plans(path.read_text())


def test_the_readme_shows_what_make_local_prints() -> None:
    shown = re.findall(r"<!-- make local -->\n```text\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)[0]
    facts = Shown(
        "http://127.0.0.1:8000/v1", "http://127.0.0.1:9090/metrics", "m", "0.32.0", "vllm/vllm-openai:v0.33.0"
    )
    printed = banner(facts, Machine("Linux", "x86_64", 2, frozenset(), 24.0, 8.0), 1.0).replace(f"{ROOT}/", "")
    for line in shown.splitlines():
        assert line in printed.splitlines()


def test_every_setting_named_in_the_readme_exists() -> None:
    known = {to_camel(name) for name in Settings.model_fields}
    for key in re.findall(
        r"vllm-endpoint:(\w+)|pulumi config set (?:--secret )?(\w+)", (ROOT / "README.md").read_text()
    ):
        assert (key[0] or key[1]) in known, key


def test_every_folder_of_tests_is_run_by_a_target() -> None:
    """``make test`` runs what pyproject.toml lists; the rest needs more than Python and has a target of its own."""
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["pytest"]["ini_options"]["testpaths"]
    makefile = (ROOT / "Makefile").read_text()
    for path in {
        path
        for test in tracked("tests/**/test_*.py")
        for path in [test, *test.parents]
        if path.parent == ROOT / "tests"
    }:
        name = f"tests/{path.name}"
        assert name in listed or f"pytest {name}" in makefile, f"{name} is run by no target"
