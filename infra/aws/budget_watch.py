"""A Lambda function that compares the month's spend with the budget and scales the stack to zero if it is exceeded.

It is deployed as a single file, so it cannot import other modules of this repository. Lambda's Python includes boto3.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

# One call takes at most five attempts of 13 seconds with 15 seconds of backoff in between; the function's timeout in
# budget.py covers three such calls, so that an unreachable service never uses up the time of the next action.
CONFIG = Config(connect_timeout=3, read_timeout=10, retries={"mode": "standard", "total_max_attempts": 5})
GONE = ("ServiceNotFoundException", "ServiceNotActiveException", "ClusterNotFoundException")


def handler(_event: Any, _context: Any) -> dict[str, Any]:
    """Return spend and limit in US dollars, and whether the stack was scaled to zero.

    Environment: ACCOUNT_ID, BUDGET, CLUSTER, SERVICE, GROUP.

    Raises:
        ExceptionGroup: an action failed. All others were tried first; the next run completes what is missing.
    """
    environment = os.environ
    budget = boto3.client("budgets", config=CONFIG).describe_budget(
        AccountId=environment["ACCOUNT_ID"], BudgetName=environment["BUDGET"]
    )["Budget"]
    spent, limit = float(budget["CalculatedSpend"]["ActualSpend"]["Amount"]), float(budget["BudgetLimit"]["Amount"])
    if spent >= limit:
        stop(environment)
    return {"spent_usd": spent, "limit_usd": limit, "stopped": spent >= limit}


def stop(environment: Mapping[str, str]) -> None:
    """Scale the service to zero, then its instances. A service or group that no longer exists counts as stopped.

    The service goes first: with tasks still wanted, ECS would ask the group for an instance again.

    Raises:
        ExceptionGroup: the errors of the actions that failed.
    """
    failed: list[Exception] = []
    for name, action in ACTIONS.items():
        try:
            action(environment)
        except Exception as error:  # an error of one action never stops the others
            if is_gone(error):
                print(f"{name}: already gone: {error}")
            else:
                failed.append(error)
                print(f"{name}: failed: {error}")
    if failed:
        reasons = "; ".join(str(error) for error in failed)
        raise ExceptionGroup(f"over budget, but {len(failed)} of {len(ACTIONS)} actions failed: {reasons}", failed)


def _stop_service(environment: Mapping[str, str]) -> None:
    boto3.client("ecs", config=CONFIG).update_service(
        cluster=environment["CLUSTER"], service=environment["SERVICE"], desiredCount=0
    )


def _stop_instances(environment: Mapping[str, str]) -> None:
    boto3.client("autoscaling", config=CONFIG).set_desired_capacity(
        AutoScalingGroupName=environment["GROUP"], DesiredCapacity=0, HonorCooldown=False
    )


ACTIONS: Mapping[str, Callable[[Mapping[str, str]], None]] = {
    "stop the service": _stop_service,
    "stop the instances": _stop_instances,
}


def is_gone(error: Exception) -> bool:
    """Whether the service, its cluster or the group does not exist any more, or is being deleted."""
    if not isinstance(error, ClientError):
        return False
    found = error.response.get("Error", {})
    code, message = found.get("Code", ""), found.get("Message", "").lower()
    # EC2 Auto Scaling has no error code of its own for a group that does not exist.
    return code in GONE or (code == "ValidationError" and ("not found" in message or "pending delete" in message))
