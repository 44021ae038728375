"""Applies a stack's Terraform rendering to an AWS emulator and audits the result with prowler. Not run in CI.

    python3 -m venv .venv-prowler && .venv-prowler/bin/pip install -r requirements/prowler.txt
    .venv/bin/python -m policy.prowler_run FOLDER [--endpoint URL]

FOLDER contains the stack as Terraform JSON (``*.tf.json``) whose provider sets its endpoints; each is replaced with the
emulator: URL, or a moto server started here. terraform must find the AWS provider (TF_CLI_CONFIG_FILE). Resources that the
emulator cannot create are skipped and reported. Prints a table of prowler's findings on the stack's own resources.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
SERVICES = ("acm", "autoscaling", "cloudwatch", "ec2", "ecr", "ecs", "efs", "elbv2", "iam", "kms", "s3", "secretsmanager", "sns", "vpc", "wafv2")  # fmt: skip
START_SECONDS, APPLY_SECONDS, AUDIT_SECONDS = 30, 600, 900
ENDPOINT = re.compile(r"http://127\.0\.0\.1:\d+")


@contextlib.contextmanager
def emulator(endpoint: str | None) -> Iterator[str]:
    """The address of an AWS emulator: the given one, or a moto server that runs until the block exits.

    Raises:
        RuntimeError: moto does not start.
    """
    if endpoint:
        yield endpoint
        return
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(Path(sys.executable).with_name("moto_server")), "-H", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + START_SECONDS
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            if server.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"moto did not listen on port {port} within {START_SECONDS} s")
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait()


def apply(folder: Path, endpoint: str) -> tuple[set[str], list[str]]:
    """Applies the Terraform of ``folder`` at ``endpoint``.

    Returns:
        Ids and ARNs of created resources, and the resources that could not be created.
    """
    for path in folder.glob("*.tf.json"):
        path.write_text(ENDPOINT.sub(endpoint, path.read_text()))
    done = terraform(folder, "apply", "-auto-approve", "-input=false", "-lock=false", "-no-color")
    shown = json.loads(terraform(folder, "show", "-json").stdout)
    resources = shown.get("values", {}).get("root_module", {}).get("resources", [])
    found = {value for one in resources for key, value in one["values"].items() if _names(key, value)}
    return found, re.findall(r"Error: (.*)", done.stderr)


def _names(key: str, value: Any) -> bool:
    # Defaults such as default_network_acl_id belong to the stack too, although AWS creates them.
    return isinstance(value, str) and len(value) > 8 and (key in ("id", "arn") or key.startswith("default_"))


def terraform(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run terraform in a folder."""
    return subprocess.run(
        ["terraform", *arguments], cwd=folder, capture_output=True, text=True, check=False, timeout=APPLY_SECONDS
    )


def audit(prowler: str, endpoint: str, folder: Path) -> list[dict[str, Any]]:
    """The failed checks of prowler at ``endpoint``.

    Raises:
        RuntimeError: prowler did not write a report.
    """
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    environment |= {
        "AWS_ENDPOINT_URL": endpoint, "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true",
    }  # fmt: skip
    command = [
        prowler, "aws", "--region", "us-east-1", "--services", *SERVICES, "--status", "FAIL",
        "-M", "json-ocsf", "-F", "report", "-o", str(folder), "-b", "-z",
    ]  # fmt: skip
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=False, timeout=AUDIT_SECONDS
    )  # fmt: skip
    report = folder / "report.ocsf.json"
    if not report.is_file():
        raise RuntimeError(f"prowler wrote no report: {done.stdout[-300:]}{done.stderr[-300:]}")
    return list(json.loads(report.read_text()))


def table(findings: Sequence[dict[str, Any]], ours: set[str]) -> tuple[str, int]:
    """The findings on resources in ``ours`` as a Markdown table, and the number of findings on others."""
    counted: collections.Counter[tuple[str, str, str]] = collections.Counter()
    others = 0
    for finding in findings:
        uid = (finding.get("resources") or [{}])[0].get("uid", "")
        if any(uid == name or uid.endswith(("/" + name, ":" + name)) for name in ours) or _parts(uid) & ours:
            key = (finding["severity"], finding["metadata"]["event_code"], finding["finding_info"]["title"])
            counted[key] += 1
        else:
            others += 1
    rows = [
        f"| {severity} | {check} | {count} | {title} |" for (severity, check, title), count in sorted(counted.items())
    ]
    return "\n".join(["| severity | check | resources | title |", "|---|---|---|---|", *rows]), others


def _parts(uid: str) -> set[str]:
    return set(re.split(r"[:/]", uid))


def main(arguments: Sequence[str] | None = None) -> int:
    """Apply, audit and print the table."""
    parser = argparse.ArgumentParser(prog="python -m policy.prowler_run", description=__doc__.split("\n", 1)[0])
    parser.add_argument("folder", type=Path, help="the stack as Terraform JSON")
    parser.add_argument("--endpoint", help="a running AWS emulator; default: start moto")
    parser.add_argument("--prowler", default=str(ROOT / ".venv-prowler/bin/prowler"), help="the program")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as temporary, emulator(options.endpoint) as endpoint:
        stack = Path(temporary, "stack")
        shutil.copytree(options.folder, stack, ignore=shutil.ignore_patterns("plan*", "terraform.tfstate*"))
        ours, missing = apply(stack, endpoint)
        if not ours:
            print("terraform created no resources: " + "; ".join(missing))
            return 1
        text, others = table(audit(options.prowler, endpoint, Path(temporary)), ours)
    print(text)
    print(f"\n{others} findings on other resources: the account, and the emulator's initial resources.")
    print("\n".join(f"not created by the emulator, so not audited: {line}" for line in missing))
    return 0


if __name__ == "__main__":
    sys.exit(main())
