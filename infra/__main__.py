"""The Pulumi program: settings -> plan -> target -> outputs."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pulumi

# Pulumi runs this folder as a script, so its parent must be on the path for `import infra`.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from infra.errors import PlanError, UserError
from infra.outputs import for_people_first
from infra.planning import make_plan
from infra.planning.deployment import deployment_problems
from infra.protection import Protection
from infra.refusal import refuse
from infra.settings import Target
from infra.stack_config import read_settings


def main() -> None:
    """Declare the stack, or exit with the problems and what to set."""
    try:
        settings = read_settings()
        plan = make_plan(settings, region=_region())
        if reasons := deployment_problems(settings, plan, plan.cost.region):
            raise PlanError(reasons)
        for warning in plan.warnings:
            pulumi.log.warn(warning)
        if settings.target is Target.KUBERNETES:
            from infra.kubernetes.endpoint import deploy
        else:
            from infra.aws.endpoint import deploy
        protection = Protection(settings.protect)
        outputs = deploy(settings, plan)
        protection.guard()
    except UserError as error:
        refuse(str(error))
    for name, value in for_people_first(outputs).items():
        pulumi.export(name, value)


def _region() -> str:
    """The AWS region, for the cost estimate; the provider itself requires one if it is used."""
    known = (pulumi.Config("aws").get("region"), os.environ.get("AWS_REGION"), os.environ.get("AWS_DEFAULT_REGION"))
    return next(filter(None, known), "us-east-1")


if sys.argv[1:2] in (["-h"], ["--help"]):
    print(
        "usage: pulumi up\n\nThe Pulumi program, run by pulumi preview, up and destroy, or by make up. make plan does not require Pulumi."
    )
    sys.exit(0)
main()
