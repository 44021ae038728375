"""Runs a checker, which tests the program against the real AWS provider, for each configuration of matrix.yaml.

    PROVIDER_CHECK=/path/to/checker .venv/bin/python -m policy.provider_check [NAME...]
    .venv/bin/python -m policy.provider_check --checker /path/to/checker --plans FOLDER [NAME...]

The checker is called once per configuration, as ``CHECKER STACK --project FOLDER --python PYTHON --config KEY=VALUE``
with ``--apply`` (plan, apply, a second plan that must be empty, destroy) and ``--emit FOLDER`` (saves plan.json); it must
exit with 0, and must also run the program as a preview with unknown ids.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from infra.settings import PROJECT, secret_keys
from policy.matrix import ROOT, Entry, load_matrix, stack_values

LIMIT_SECONDS = 900


def project(entry: Entry, folder: Path) -> Path:
    """The project folder for the configuration's stack: the repository, or a folder of links with a separate stack file."""
    secrets = {f"{PROJECT}:{key}": encrypted(text) for key, text in entry.settings.items() if key in secret_keys()}
    if entry.stack_name == entry.stack and not secrets:
        return ROOT
    own = f"Pulumi.{entry.stack_name}.yaml"
    for path in ROOT.iterdir():
        if path.name != own:
            (folder / path.name).symlink_to(path)
    (folder / own).write_text(yaml.safe_dump({"config": stack_values(entry.stack) | secrets}))
    return folder


def encrypted(text: str) -> dict[str, Any]:
    """An encrypted secret as in a stack file; the checker replaces each secret that it cannot decrypt with its own text."""
    names = [name for name, sign, _ in (item.partition("=") for item in text.split(",")) if sign]
    return {name: {"secure": "v1:"} for name in names} or {"secure": "v1:"}


def command(checker: str, entry: Entry, folder: Path, emitted: Path, *, apply: bool) -> list[str]:
    """The arguments of the checker for one configuration."""
    given = [checker, entry.stack_name, "--project", str(folder), "--python", sys.executable, "--emit", str(emitted)]
    if apply:
        given.append("--apply")
    for key, value in entry.settings.items():
        if key not in secret_keys():
            given += ["--config", f"{key}={value if isinstance(value, str) else json.dumps(value)}"]
    return given


def check(checker: str, entry: Entry, plans: Path | None, *, apply: bool) -> tuple[bool, str, str]:
    """Run the checker for one configuration.

    Returns:
        Whether it passed, the line for the table, and the checker's output.
    """
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as temporary:
        links, emitted = Path(temporary, "project"), Path(temporary, "emitted")
        links.mkdir()
        try:
            done = subprocess.run(
                command(checker, entry, project(entry, links), emitted, apply=apply),
                capture_output=True, text=True, check=False, timeout=LIMIT_SECONDS,
            )  # fmt: skip
            output, sound = done.stdout + done.stderr, done.returncode == 0
        except subprocess.TimeoutExpired:
            output, sound = f"still running after {LIMIT_SECONDS} s", False
        plan = emitted / entry.stack_name / "plan.json"
        if plans and plan.is_file():
            plans.mkdir(parents=True, exist_ok=True)
            (plans / f"{entry.name}.json").write_bytes(plan.read_bytes())
    told = re.search(r"^terraform\s+(.*)$", output, re.MULTILINE)
    seconds = time.monotonic() - started
    line = f"{entry.name:38} {'ok' if sound else 'FAILED':7} {seconds:4.0f} s  {told[1] if told else ''}"
    return sound, line, output


def main(arguments: Sequence[str] | None = None) -> int:
    """Check the named configurations, or all; print one line each, and the full output of failures."""
    parser = argparse.ArgumentParser(prog="python -m policy.provider_check", description=__doc__.split("\n", 1)[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="configurations of matrix.yaml; none: all")
    parser.add_argument("--checker", default=os.environ.get("PROVIDER_CHECK"), help="the program that checks a stack")
    parser.add_argument("--plans", type=Path, help="save each configuration's plan.json as NAME.json in this folder")
    parser.add_argument("--plan-only", action="store_true", help="plan, and do not apply")
    options = parser.parse_args(arguments)
    matrix = load_matrix()
    if not options.checker:
        parser.error("checker not set. Set PROVIDER_CHECK or --checker to the program that checks a stack")
    if unknown := sorted(set(options.names) - set(matrix)):
        parser.error(f"unknown configuration: {', '.join(unknown)}. Set one or more of: {', '.join(matrix)}")
    failed = 0
    for name in options.names or matrix:
        sound, line, output = check(
            options.checker, matrix[name], options.plans, apply=matrix[name].apply and not options.plan_only
        )
        print(line, flush=True)
        if not sound:
            failed += 1
            told = [one for one in output.splitlines() if one.startswith(("ERROR", "GAP", "WARNING"))]
            print("\n".join(f"    {one}" for one in told or output.splitlines()[-8:]), flush=True)
    print(f"{len(options.names or matrix) - failed} of {len(options.names or matrix)} configurations ok")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
