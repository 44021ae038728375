"""Applies a stack's Terraform rendering to an AWS emulator, and checks the teardown sweep against it. Not run in CI.

    .venv/bin/python -m policy.teardown_run FOLDER [--endpoint URL] [--stack dev]

FOLDER contains the stack as Terraform JSON (``*.tf.json``) whose provider sets its endpoints; each is replaced with the
emulator: URL, or moto started here. terraform must find the AWS provider (TF_CLI_CONFIG_FILE). Resources that Terraform
created but the sweep does not list are printed, unless they are deleted with their parent. Then ``--fix`` must empty the
account; resources that moto still has are printed too. The exit code is 0 if everything was listed and nothing is left.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import re
import shutil
import sys
import tempfile
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from policy.emulator import emulator
from policy.prowler_run import ENDPOINT, terraform
from smoke_tests.teardown import __main__ as teardown

# Terraform types that are free and deleted with their parent; everything else must be listed.
PARTS = {
    "aws_acm_certificate_validation", "aws_appautoscaling_policy", "aws_autoscaling_lifecycle_hook",
    "aws_autoscaling_policy", "aws_default_security_group", "aws_ecr_lifecycle_policy",
    "aws_ecs_cluster_capacity_providers", "aws_efs_file_system_policy", "aws_iam_role_policy", "aws_lb_listener",
    "aws_route", "aws_route_table_association", "aws_s3_bucket_lifecycle_configuration",
    "aws_s3_bucket_ownership_controls", "aws_s3_bucket_policy", "aws_s3_bucket_public_access_block",
    "aws_s3_bucket_server_side_encryption_configuration", "aws_scheduler_schedule", "aws_secretsmanager_secret_version",
    "aws_service_discovery_service", "aws_sns_topic_subscription", "aws_vpc_security_group_egress_rule",
    "aws_vpc_security_group_ingress_rule", "aws_wafv2_web_acl_association",
}  # fmt: skip
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_REGION": "us-east-1", "AWS_DEFAULT_REGION": "us-east-1",
}  # fmt: skip


def applied(folder: Path, endpoint: str) -> tuple[list[dict[str, Any]], list[str]]:
    """Apply the Terraform of ``folder`` at ``endpoint``.

    Returns:
        The created resources, as Terraform shows them, and the resources that could not be created.
    """
    for path in folder.glob("*.tf.json"):
        # Files that the stack uploads are in the folder of its Terraform JSON, whatever absolute path it contains.
        text = re.sub(r'"[^"]*/assets/', f'"{folder}/assets/', path.read_text())
        path.write_text(ENDPOINT.sub(endpoint, text))
    done = terraform(folder, "apply", "-auto-approve", "-input=false", "-lock=false", "-no-color")
    shown = json.loads(terraform(folder, "show", "-json").stdout)
    resources = shown.get("values", {}).get("root_module", {}).get("resources", [])
    made = [one for one in resources if one["mode"] == "managed"]
    return made, re.findall(r"Error: (.*)", done.stderr)


def unlisted(made: Sequence[dict[str, Any]], items: Sequence[dict[str, Any]]) -> list[str]:
    """The resources that Terraform created, without those deleted with their parent, that the sweep does not list."""
    known = {
        part
        for item in items
        for text in (item["identifier"], item["name"])
        for part in (text, *re.split("[ /]", text))
    }
    missing = []
    for resource in made:
        if resource["type"] not in PARTS:
            values = resource["values"]
            names = {str(values.get(key)) for key in ("id", "arn", "name", "dns_name", "bucket", "family", "fqdn")}
            if not names & known:
                missing.append(f"{resource['address']} ({values.get('id')})")
    return missing


def inventory(endpoint: str) -> dict[str, int]:
    """The number of resources per class in moto's own state, independent of the sweep; empty for another emulator."""
    try:
        with urllib.request.urlopen(f"{endpoint}/moto-api/data.json", timeout=60) as answer:  # noqa: S310 - moto's address
            found = json.load(answer)
    except OSError:
        return {}
    return {f"{service}.{name}": len(ones) for service, kinds in found.items() for name, ones in kinds.items()}


def sweep(stack: str, *arguments: str) -> tuple[int, dict[str, Any]]:
    """Exit code and JSON of the teardown sweep."""
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        code = teardown.main(["--stack", stack, "--json", "--quiet", "--region", "us-east-1", *arguments])
    return code, json.loads(printed.getvalue())


def main(arguments: Sequence[str] | None = None) -> int:
    """Apply, sweep, fix, sweep again; print one line for each step and every difference."""
    parser = argparse.ArgumentParser(prog="python -m policy.teardown_run", description=__doc__.split("\n", 1)[0])
    parser.add_argument("folder", type=Path, help="the stack as Terraform JSON")
    parser.add_argument("--stack", default="dev", help="its name (default dev)")
    parser.add_argument("--endpoint", help="a running AWS emulator; default: start moto")
    options = parser.parse_args(arguments)
    started = contextlib.nullcontext(options.endpoint) if options.endpoint else emulator()
    with tempfile.TemporaryDirectory() as temporary, started as endpoint:
        os.environ.update(CREDENTIALS, AWS_ENDPOINT_URL=endpoint)
        folder = Path(temporary, "stack")
        shutil.copytree(options.folder, folder, ignore=shutil.ignore_patterns("plan*", "terraform.tfstate*"))
        before = inventory(endpoint)
        made, failed = applied(folder, endpoint)
        print(
            f"terraform created {len(made)} resources, {len(made) - sum(m['type'] in PARTS for m in made)} of them whole"
        )
        print("".join(f"not created by the emulator: {line}\n" for line in failed), end="")
        code, found = sweep(options.stack)
        missing = unlisted(made, found["left"] + found["kept"])
        print(
            f"the sweep lists {len(found['left'])} left and {len(found['kept'])} retained, ${found['usd_per_hour_left']:.4f} per hour, exit code {code}"
        )
        print("".join(f"created, but not listed: {line}\n" for line in missing), end="")
        code, after = sweep(options.stack, "--fix", "--include-retained", "--yes", "--timeout-minutes", "2")
        print(f"after --fix: {len(after['left'])} left, exit code {code}")
        rest = [f"{one['kind']} {one['identifier']}: {one['reason']}" for one in after["not_deleted"]]
        rest += [f"not checked: {one['what']}: {one['reason']}" for one in after["not_checked"]]
        print("".join(f"  {line}\n" for line in rest), end="")
        residue = {kind: count - before.get(kind, 0) for kind, count in inventory(endpoint).items()}
        print("the emulator still has:", {kind: count for kind, count in residue.items() if count > 0} or "nothing")
    return 0 if made and not missing and code == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
