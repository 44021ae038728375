"""The engine's image: its Dockerfile, and whether what it copies is all that the entrypoint imports."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from infra.planning.engine import UPSTREAM_IMAGE

ROOT = Path(__file__).parents[3]
DOCKERFILE = ROOT / "image/engine.Dockerfile"


def test_the_entrypoint_needs_the_standard_library_alone(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "image/engine", tmp_path / "image/engine", ignore=shutil.ignore_patterns("__pycache__"))
    for module in ("image.engine", "image.engine.fetch"):
        done = subprocess.run(
            [sys.executable, "-S", "-m", module],
            cwd=tmp_path,
            env={"PATH": "/bin"},
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
        )
        assert done.stderr.startswith("engine: error: MODEL_NAME: not set"), done.stderr


def instructions(name: str) -> list[str]:
    text = re.sub(r"\\\n\s*", "", DOCKERFILE.read_text())
    return [line.partition(" ")[2] for line in text.splitlines() if line.startswith(f"{name} ")]


def test_what_is_copied_is_left_by_the_ignore_file_and_is_all_that_both_need() -> None:
    kept = {rule[1:] for rule in DOCKERFILE.with_name("engine.Dockerfile.dockerignore").read_text().splitlines()}
    sources = [source for line in instructions("COPY") for source in line.split()[:-1]]
    assert set(sources) == {"requirements/gateway.txt", "requirements/constraints.txt", "image/gateway", "image/engine"}
    assert set(sources) <= kept
    for source in sources:
        assert (ROOT / source).exists()


def test_the_base_is_a_version_that_a_digest_may_take_the_place_of() -> None:
    default = instructions("ARG")[0]
    assert default == f"VLLM_IMAGE={UPSTREAM_IMAGE}"
    assert instructions("FROM") == ["${VLLM_IMAGE}"]
    assert 'org.opencontainers.image.base.name="${VLLM_IMAGE}"' in instructions("LABEL")[0]


def test_it_runs_as_nobody_special_and_drains_on_sigterm() -> None:
    assert instructions("USER") == ["1000:0"]
    assert instructions("ENTRYPOINT") == ['["python3", "-m", "image.engine.standalone"]']
    assert instructions("STOPSIGNAL") == ["SIGTERM"]
    assert "http://127.0.0.1:" in instructions("HEALTHCHECK")[0]


def test_bytecode_is_compiled_at_build_and_its_absence_ends_the_build(tmp_path: Path) -> None:
    (run,) = [line for line in instructions("RUN") if "compileall" in line]
    check = re.search(r"python3 -c '(from image\.engine.*)'$", run)
    assert check, run
    site = tmp_path / "site-packages"
    for package in ("vllm", "torch", "transformers"):
        (site / package).mkdir(parents=True)
        (site / package / "__init__.py").touch()
    environment = {"PATH": "/bin", "PYTHONPATH": f"{ROOT}{os.pathsep}{site}"}
    command = [sys.executable, "-S", "-c", check[1]]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.strip()) == (1, "no bytecode")
    subprocess.run([sys.executable, "-m", "compileall", "-q", str(site)], check=True)
    assert subprocess.run(command, env=environment, check=False).returncode == 0
