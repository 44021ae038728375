"""The README's deploy and the lines of docs/configuration.md, run as they stand there."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from infra.settings import PROJECT
from tests.pulumi_engine.scene import ROOT, Scene

BLOCK = re.compile(r"^```bash\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(text: str) -> list[list[str]]:
    """The commands of each shell block, without what is explained behind them."""
    return [
        [re.sub(r"\s{2,}# .*", "", line) for line in block.splitlines() if line.strip()]
        for block in BLOCK.findall(text)
    ]


def section(title: str) -> str:
    """A section of the README."""
    return (ROOT / "README.md").read_text().partition(f"\n## {title}\n")[2].partition("\n## ")[0]


@pytest.fixture
def clone(tmp_path: Path) -> Scene:
    """What ``git clone`` gives, with a virtual environment that is ready: no test installs anything."""
    root = tmp_path / "clone"
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    for name in filter(None, listed.stdout.decode().split("\0")):
        source = ROOT / name
        if source.is_file() and not name.startswith(".venv"):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, root / name)
    scene = Scene(tmp_path / "scene", root=root)
    shutil.rmtree(scene.project)
    scene.project = root
    environment = root / ".venv"
    environment.mkdir()
    for part in (ROOT / ".venv").resolve().iterdir():
        if part.name != "ready":
            (environment / part.name).symlink_to(part)
    (environment / "ready").touch()
    # A person answers yes; and what `pulumi login` and `stack init` remember is not of this machine.
    scene.environment |= {"PULUMI_SKIP_CONFIRMATIONS": "true", "PULUMI_HOME": str(tmp_path / "home"), "YES": "1"}
    return scene


def shell(scene: Scene, line: str, *, ok: bool = True) -> str:
    """One line of a document, as a person's shell runs it."""
    done = subprocess.run(
        ["bash", "-c", line], cwd=scene.project, env=scene.environment, capture_output=True, text=True, timeout=150, check=False
    )  # fmt: skip
    assert (done.returncode == 0) == ok, f"{line}\n{done.stdout[-3000:]}{done.stderr[-3000:]}"
    return done.stdout + done.stderr


@pytest.mark.parametrize("stack", ["dev", "prod"])
def test_the_readmes_deploy_from_a_fresh_clone(clone: Scene, stack: str) -> None:
    deploy = blocks(section("Deploy"))[0]
    assert deploy == ["pulumi login", "pulumi stack init dev", "make up STACK=dev"]
    told = ""
    for line in deploy:
        told = shell(clone, line.replace("dev", stack))
    assert f"stack {stack} is up" in told
    settings = shell(clone, "pulumi config")
    assert re.search(r"^model +Qwen/", settings, re.MULTILINE)
    assert clone.up().unchanged
    assert not [step for step in clone.run("refresh", "--yes", "--skip-preview").steps if step.op != "refresh"]
    (endpoint, key) = blocks(section("Use"))[0]
    assert shell(clone, endpoint).startswith("http://")
    # Without an account the key cannot be read, which is one line.
    assert "aws sso login" in shell(clone, key.replace("dev", stack), ok=False)
    if stack == "prod":
        clone.run("config", "set", "protect", "false")
        clone.up()
    (destroy, _) = blocks(section("Teardown"))[0]
    # The stack goes; the proof behind it asks AWS, which this machine cannot.
    shell(clone, destroy.replace("dev", stack), ok=False)
    assert clone.resources() == []


def test_every_setting_that_the_readme_sets_is_taken(clone: Scene) -> None:
    clone.init("dev")
    lines = [line for block in blocks((ROOT / "README.md").read_text()) for line in block if "config set" in line]
    assert len(lines) > 5
    for line in lines:
        shell(clone, line)
    clone.run("config", "rm", "target")
    clone.run("preview")


@pytest.mark.whole_matrix
def test_the_lines_of_the_configuration_page(clone: Scene) -> None:
    clone.init("dev")
    *settings, stacks, account = blocks((ROOT / "docs/configuration.md").read_text())
    for line in [line for block in settings for line in block]:
        shell(clone, line)
    kept = (clone.project / "Pulumi.dev.yaml").read_text()
    assert f'{PROJECT}:maxReplicas: "2"' in kept
    assert "sk-1" not in kept
    ran = clone.up()
    (arguments,) = re.findall(r"--max-num-seqs=64 --seed 7", clone.outputs()["stackDetails"]["engineArguments"])
    assert arguments
    assert ran.code == 0
    del clone.environment["PULUMI_STACK"]  # which would go before the stack that the lines select
    for line in stacks:
        shell(clone, line)
    assert clone.run("stack", "--show-name").output.strip() == "team_a"
    shell(clone, account[0])
    clone.run("preview")


def test_pulumi_install_and_make_fill_one_environment_from_one_list() -> None:
    project = (ROOT / "Pulumi.yaml").read_text()
    (program,) = re.findall(r"^main: (\S+)$", project, re.MULTILINE)
    (environment,) = re.findall(r"^ +virtualenv: (\S+)$", project, re.MULTILINE)
    # Pulumi installs the requirements.txt of the program's folder, and nothing where there is none.
    (included,) = re.findall(r"^-r (\S+)$", (ROOT / program / "requirements.txt").read_text(), re.MULTILINE)
    assert (ROOT / program / included).resolve() == ROOT / "requirements/infra.txt"
    assert "-r infra.txt" in (ROOT / "requirements/dev.txt").read_text().splitlines()
    makefile = (ROOT / "Makefile").read_text()
    assert f"$(PYTHON) -m local.install {environment} requirements/dev.txt" in makefile
