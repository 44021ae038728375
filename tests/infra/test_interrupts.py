"""Ctrl-C while a program imports its libraries, which takes up to a second: one word, exit code 130, no traceback."""

import ast
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from infra import interrupts

ROOT = Path(__file__).resolve().parents[2]
# Interrupts the process when it looks for a module, so that the moment does not depend on the machine.
SITE = """
import os, signal, sys

class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == os.environ["INTERRUPT_AT"]:
            sys.meta_path.remove(self)
            os.kill(os.getpid(), signal.SIGINT)
            for _ in range(1000):  # the handler runs between two instructions
                pass

sys.meta_path.insert(0, Interrupt())
"""
# Each program, and modules that it imports early and late.
PROGRAMS = {
    "-m clients.chat": ("httpx2", "openai", "smoke_tests.stack"),
    "clients/openai_example.py": ("httpx2", "openai"),
    "-m infra.arguments": ("pydantic",),
    "-m infra.planning": ("infra.planning.serving", "pydantic", "infra.stack_files"),
    "-m infra.schema": ("infra.plugin", "pydantic"),
    "-m local": ("local.newer_python", "local.bootstrap", "local.preflight"),
    "-m local.check_client": ("clients.vllm_client",),
    "-m local.download": ("image.engine.arguments", "image.engine.weights"),
    "-m local.install": ("local.newer_python", "local.environments"),
    "-m local.make_names infra.planning": ("infra.planning", "pydantic"),
    "-m local.serve": ("infra.planning.plan", "pydantic", "local.torchvision"),
    "-m local.tools infra.planning": ("local.newer_python", "local.environments"),
    "-m smoke_tests": ("smoke_tests.__main__", "openai", "pytest"),
    "-m smoke_tests.api_key": ("infra.command_line", "smoke_tests.stack"),
    "-m smoke_tests.benchmark": ("smoke_tests.benchmark", "smoke_tests.benchmark.load", "smoke_tests.benchmark.timeline"),
    "-m smoke_tests.history": ("infra.command_line", "smoke_tests.history_store"),
    "-m smoke_tests.keys": ("image.gateway.keys_document", "smoke_tests.keys.stores"),
    "-m smoke_tests.summary": ("infra.command_line", "smoke_tests.stack"),
    "-m smoke_tests.teardown": ("boto3", "botocore", "smoke_tests.teardown.sweep"),
    "-m smoke_tests.verify": ("infra.command_line", "openai", "smoke_tests.history_store"),
}  # fmt: skip
NO_PROGRAMS = ("infra", "local.leash")
"""Pulumi runs the one, and `local` the other for its children: both leave Ctrl-C to what started them."""
CASES = [(program, module) for program, modules in PROGRAMS.items() for module in modules]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that interrupts every Python process with it on its path."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "sitecustomize.py").write_text(SITE)
    return folder


@pytest.mark.parametrize(("program", "module"), CASES, ids=[" at ".join(case) for case in CASES])
def test_ctrl_c_during_the_imports_is_one_word(program: str, module: str, site: Path) -> None:
    done = subprocess.run(
        [sys.executable, *program.split()], cwd=ROOT, capture_output=True, text=True, check=False, timeout=50,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(site), "INTERRUPT_AT": module},
    )  # fmt: skip
    assert (done.returncode, done.stderr, done.stdout) == (130, "interrupted\n", "")


def test_every_program_is_listed() -> None:
    found = set()
    for path in (path for part in ("clients", "infra", "local", "smoke_tests") for path in (ROOT / part).rglob("*.py")):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        if path.name == "__main__.py" or re.search('^if __name__ == "__main__":', path.read_text(), re.MULTILINE):
            found.add(name.removesuffix(".__main__"))
    listed = {re.sub(r"^-m | .*|\.py$", "", program).replace("/", ".") for program in PROGRAMS}
    assert found == listed | set(NO_PROGRAMS)


def test_a_program_that_imports_us_keeps_its_own_ctrl_c() -> None:
    code = (
        "import infra, smoke_tests, local, signal; print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True, timeout=50
    )
    assert done.stdout == "True\n"


@pytest.mark.parametrize("before", [signal.SIG_IGN, print], ids=["ignored", "handled"])
def test_an_ignored_or_handled_ctrl_c_stays_so(before: signal.Handlers) -> None:
    original = signal.signal(signal.SIGINT, before)
    try:
        interrupts.exit_quietly()
        interrupts.imported()
        assert signal.getsignal(signal.SIGINT) is before
    finally:
        signal.signal(signal.SIGINT, original)


def test_a_started_program_raises_keyboard_interrupt_again() -> None:
    original = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        interrupts.exit_quietly()
        assert signal.getsignal(signal.SIGINT) is not signal.default_int_handler
        interrupts.imported()
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, original)


@pytest.mark.parametrize("name", ["__init__", "interrupts"])
def test_python_3_6_can_parse_what_local_imports_first(name: str) -> None:
    source = (ROOT / "infra" / f"{name}.py").read_text()
    ast.parse(source, feature_version=(3, 6))
    assert "from __future__ import annotations" not in source
