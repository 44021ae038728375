"""The gateway's image, tested without a container engine: its Dockerfile copies everything that it needs."""

from __future__ import annotations

import asyncio
import fnmatch
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from tests.image.gateway.conftest import StartEngine, StartGateway

ROOT = Path(__file__).parents[3]
DOCKERFILE = ROOT / "image" / "gateway.Dockerfile"


def instructions() -> list[tuple[str, str]]:
    text = re.sub(r"\\\n\s*", "", DOCKERFILE.read_text())
    lines = (line for line in text.splitlines() if line and not line.startswith("#"))
    return [(name, rest) for name, _, rest in (line.partition(" ") for line in lines)]


def arguments(wanted: str) -> list[str]:
    return [rest for name, rest in instructions() if name == wanted]


def copied(to: Path) -> None:
    """What COPY does, with what the ignore file leaves of the repository."""
    rules = (ROOT / "image" / "gateway.Dockerfile.dockerignore").read_text().splitlines()
    kept = [rule[1:] for rule in rules if rule.startswith("!")]
    assert "*" in rules
    for line in arguments("COPY"):
        *sources, target = line.split()
        for source in sources:
            origin = ROOT / source
            assert origin.exists(), f"COPY {source}"
            assert any(fnmatch.fnmatch(source.rstrip("/"), rule) for rule in kept), f"{source} is ignored"
            if origin.is_dir():
                shutil.copytree(origin, to / target, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                (to / target).mkdir(parents=True, exist_ok=True)
                shutil.copy(origin, to / target)


def test_the_base_is_pinned_the_user_is_not_root_and_the_ports_are_said() -> None:
    (base,) = arguments("FROM")
    assert re.fullmatch(r"python:3\.11\.\d+-slim-\w+", base)
    assert arguments("USER") == ["10001:10001"]
    assert arguments("EXPOSE") == ["8080 9090"]
    assert 'CMD ["python", "-m", "image.gateway.healthcheck"]' in arguments("HEALTHCHECK")[0]
    assert arguments("ENTRYPOINT") == ['["python", "-m", "image.gateway"]']


def test_what_is_copied_is_enough_to_start(tmp_path: Path) -> None:
    copied(tmp_path)
    assert (tmp_path / "requirements" / "constraints.txt").exists()
    for path in tmp_path.rglob("*"):
        path.chmod(path.stat().st_mode & 0o555)  # as with a read-only root
    done = subprocess.run(
        [sys.executable, "-m", "image.gateway"],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert done.returncode == 2
    assert "GATEWAY_MODEL is not set" in done.stderr
    for path in tmp_path.rglob("*"):
        path.chmod(path.stat().st_mode | 0o200)


async def test_the_health_check(start_engine: StartEngine, start_gateway: StartGateway) -> None:
    gateway = await start_gateway(await start_engine())

    def check(port: int) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [sys.executable, "-m", "image.gateway.healthcheck"],
            cwd=ROOT,
            env={"PATH": os.environ["PATH"], "GATEWAY_PORT": str(port)},
            capture_output=True,
            timeout=20,
            check=False,
        )

    assert (await asyncio.to_thread(check, gateway.port)).returncode == 0
    failed = await asyncio.to_thread(check, 1)
    assert failed.returncode == 1
    assert b"Traceback" not in failed.stderr
