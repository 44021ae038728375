"""A Lambda function that compares the month's spend with the budget and scales the stack to zero if it is exceeded.

It is deployed as a single file, so it cannot import other modules of this repository. Lambda's Python includes boto3.
"""

from __future__ import annotations

import os
from typing import Any

import boto3


def handler(_event: Any, _context: Any) -> dict[str, Any]:
    """Return spend and limit in US dollars, and whether the stack was scaled to zero.

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
