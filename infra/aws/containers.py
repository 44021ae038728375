"""What ECS requires of container definitions, in the form of its API."""

from __future__ import annotations

import math
from typing import Any

import pulumi_aws as aws

from infra.containers import health_command

# ECS ends a container after `retries` failed checks, ten at most, and ignores those of the first 300 s at most.
START_PERIOD_SECONDS, RETRIES, LONGEST_INTERVAL_SECONDS = 300, 10, 300


def environment(variables: dict[str, str] | Any) -> list[dict[str, Any]]:
    """Variables as ECS wants them, in order of name, so that their order never makes a new revision."""
    return [{"name": name, "value": variables[name]} for name in sorted(variables)]


def log_configuration(group: aws.cloudwatch.LogGroup, region: str) -> dict[str, Any]:
    """Output to a log group; under pressure lines are dropped rather than the container stopped."""
    return {
        "logDriver": "awslogs",
        "options": {
            "awslogs-group": group.name,
            "awslogs-region": region,
            "awslogs-stream-prefix": "task",
            "mode": "non-blocking",
            "max-buffer-size": "8m",
        },
    }


def health_check(port: int, startup_timeout_seconds: int) -> dict[str, Any]:
    """A check that lets a cold start take its time: ten failures, spread over what ``startPeriod`` does not cover.

    The price is that a hung engine is replaced that slowly too. The gateway notices it within seconds and sends
    nothing there; an engine that dies ends its task at once.
    """
    interval = math.ceil((startup_timeout_seconds - START_PERIOD_SECONDS) / RETRIES)
    return {
        "command": ["CMD", *health_command(port, timeout_seconds=8)],
        "startPeriod": START_PERIOD_SECONDS,
        "interval": min(max(interval, 15), LONGEST_INTERVAL_SECONDS),
        "timeout": 10,
        "retries": RETRIES,
    }
