"""The policy gate: checkov on Terraform plans and Dockerfiles, hadolint on Dockerfiles, minus waivers.yaml.

    .venv-policy/bin/python -m policy.check                     the Dockerfiles
    .venv-policy/bin/python -m policy.check PLAN.json...        and the plans of dev, prod and waf-and-every-log
    .venv-policy/bin/python -m policy.check --own PLAN.json...  and plans of other stacks: waivers may be unused

Each run also checks known_bad/, and fails if a tool no longer detects the faults there. It does not use the network.
"""

from __future__ import annotations

import argparse
import datetime
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from policy.waivers import Finding, judge, load_waivers

ROOT = Path(__file__).resolve().parent.parent
KNOWN_BAD = "policy/known_bad"
MUST_SEE = {
    "CKV_AWS_42": "an EFS file system that is not encrypted",
    "CKV_AWS_79": "IMDSv1",
    "CKV_AWS_24": "SSH open to the internet",
    "CKV_AWS_131": "invalid headers that are not dropped",
    "CKV_AWS_62": "a policy that allows everything",
    "CKV2_AWS_28": "a public load balancer without a WAF",
    "CKV_DOCKER_8": "a container that runs as root",
    "DL3007": "a base image without a version",
}
"""The faults in known_bad/, by the id of the rule that must detect them."""


def checkov(files: Sequence[Path]) -> list[Finding]:
    """The findings of checkov in plans (``*.json``) and Dockerfiles.

    Raises:
        RuntimeError: checkov failed, or could not read one of the files.
    """
    command = [
        str(Path(sys.executable).with_name("checkov")), "--skip-download", "--quiet", "--compact", "-o", "json",
        "--framework", "terraform_plan", "dockerfile", "-f", *map(str, files),
    ]  # fmt: skip
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 1):
        raise RuntimeError(f"checkov exited with {done.returncode}: {done.stderr.strip()[-300:]}")
    reports: Any = json.loads(done.stdout)
    reports = reports if isinstance(reports, list) else [reports]
    unread = [error for report in reports for error in report.get("results", {}).get("parsing_errors", [])]
    kinds = {report.get("check_type") for report in reports}
    wanted = {"terraform_plan" if path.suffix == ".json" else "dockerfile" for path in files}
    if unread or not wanted <= kinds:
        raise RuntimeError(f"checkov could not read {', '.join(unread) or wanted - kinds}")
    return [_finding(report["check_type"], one) for report in reports for one in report["results"]["failed_checks"]]


def _finding(kind: str, one: Mapping[str, Any]) -> Finding:
    if kind == "dockerfile":
        return Finding("dockerfile", one["check_id"], one["file_path"].lstrip("/"), one["check_name"])
    # Addresses are unique in the project's plans; those in known_bad/ are prefixed with their file.
    bad = one["file_path"].endswith(f"{KNOWN_BAD}/plan.json")
    return Finding("plan", one["check_id"], KNOWN_BAD if bad else one["resource"], one["check_name"])


def hadolint(files: Sequence[Path]) -> list[Finding]:
    """The findings of hadolint in Dockerfiles.

    Raises:
        RuntimeError: hadolint failed.
    """
    command = [str(Path(sys.executable).with_name("hadolint")), "--no-fail", "-f", "json", *map(str, files)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"hadolint exited with {done.returncode}: {done.stderr.strip()[-300:]}")
    return [Finding("dockerfile", one["code"], one["file"], one["message"]) for one in json.loads(done.stdout)]


def look(plans: Sequence[Path]) -> list[Finding]:
    """All findings in the plans, the Dockerfiles and known_bad/."""
    dockerfiles = [path.relative_to(ROOT) for path in sorted(ROOT.glob("image/*.Dockerfile"))]
    bad = Path(KNOWN_BAD)
    return [
        *checkov([*plans, bad / "plan.json", *dockerfiles, bad / "bad.Dockerfile"]),
        *hadolint([*dockerfiles, bad / "bad.Dockerfile"]),
    ]


def unseen(findings: Sequence[Finding]) -> list[str]:
    """The faults in known_bad/ that were not detected, one line each."""
    seen = {finding.check for finding in findings if finding.resource.startswith(KNOWN_BAD)}
    return [f"{check} no longer detects {what} in {KNOWN_BAD}" for check, what in MUST_SEE.items() if check not in seen]


def main(arguments: Sequence[str] | None = None) -> int:
    """Evaluate the findings, print the problems, and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m policy.check", description=__doc__.split("\n", 1)[0])
    parser.add_argument(
        "plans", nargs="*", type=Path, metavar="PLAN.json", help="a plan as terraform show -json prints it"
    )
    parser.add_argument("--own", action="store_true", help="the plans are not those of dev, prod and waf-and-every-log")
    options = parser.parse_args(arguments)
    try:
        waivers = load_waivers()
        findings = look([path.resolve() for path in options.plans])
    except (RuntimeError, ValueError, OSError) as error:
        print(f"policy: {error}")
        return 1
    ours = [finding for finding in findings if not finding.resource.startswith(KNOWN_BAD)]
    looked_at = ["dockerfile", *(["plan"] if options.plans and not options.own else [])]
    problems = unseen(findings) + judge(ours, waivers, datetime.datetime.now(datetime.UTC).date(), looked_at=looked_at)
    print("\n".join(problems) if problems else "policy: no findings without a waiver", flush=True)
    print(f"policy: {len(options.plans)} plans, {len(ours)} findings, {len(waivers)} waivers, {len(problems)} problems")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
