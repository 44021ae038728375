"""Runs as a Lambda function: compares a month's spend with its budget, and above it sets the stack to zero.

It is deployed as this one file, so it imports nothing of ours. boto3 is part of Lambda's Python.
"""

from __future__ import annotations

import os
from typing import Any

import boto3


def handler(_event: Any, _context: Any) -> dict[str, Any]:
    """What was found: spend and limit in US dollars, and whether the stack was set to zero.

    Environment: ACCOUNT_ID, BUDGET, CLUSTER, SERVICE, GROUP.
    """
    environment = os.environ
    budget = boto3.client("budgets").describe_budget(
        AccountId=environment["ACCOUNT_ID"], BudgetName=environment["BUDGET"]
    )["Budget"]
    spent, limit = float(budget["CalculatedSpend"]["ActualSpend"]["Amount"]), float(budget["BudgetLimit"]["Amount"])
    if spent >= limit:
        boto3.client("ecs").update_service(
            cluster=environment["CLUSTER"], service=environment["SERVICE"], desiredCount=0
        )
        boto3.client("autoscaling").set_desired_capacity(
            AutoScalingGroupName=environment["GROUP"], DesiredCapacity=0, HonorCooldown=False
        )
    return {"spent_usd": spent, "limit_usd": limit, "stopped": spent >= limit}
