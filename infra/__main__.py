"""The Pulumi program: settings -> plan -> target -> outputs."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import NoReturn

import pulumi

# Pulumi runs this folder as a script; what it imports is the package that the folder is.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from infra.deploy_error import DeployError
from infra.outputs import for_people_first
from infra.planning import PlanError, make_plan
from infra.planning.deployment import deployment_refusals
from infra.protection import Protection
from infra.settings import Target
from infra.settings_problems import SettingsError
from infra.stack_config import read_settings

SHOWN_TO_THE_USER = 32
"""The exit status after which Pulumi's language host adds no error of its own, because the program has shown one."""


def main() -> None:
    """Declare the stack, or say why it cannot work and what to set."""
    try:
        settings = read_settings()
        plan = make_plan(settings, region=_region())
        if reasons := deployment_refusals(settings, plan, plan.cost.region):
            raise PlanError(reasons)
        for warning in plan.warnings:
            pulumi.log.warn(warning)
        if settings.target is Target.KUBERNETES:
            from infra.kubernetes import deploy
        else:
            from infra.aws import deploy
        protection = Protection(settings.protect)
        outputs = deploy(settings, plan)
        protection.guard()
    except (SettingsError, PlanError, DeployError) as error:
        _refuse(str(error))
    for name, value in for_people_first(outputs).items():
        pulumi.export(name, value)


def _refuse(message: str) -> NoReturn:
    """End with these lines and nothing else. After ``pulumi.RunError`` the host would add that the program failed."""
    pulumi.log.error(message)
    sys.exit(SHOWN_TO_THE_USER)


def _region() -> str:
    """The AWS region, for the bill's heading; the provider itself insists on one where it is needed."""
    known = (pulumi.Config("aws").get("region"), os.environ.get("AWS_REGION"), os.environ.get("AWS_DEFAULT_REGION"))
    return next(filter(None, known), "us-east-1")


main()
