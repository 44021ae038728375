"""Parts of ECS container definitions, in the format of the ECS API."""

from __future__ import annotations

import math
from typing import Any

import pulumi_aws as aws

from infra.containers import health_command

# ECS stops a container after `retries` failed checks (10 at most) and ignores failures during `startPeriod` (300 s at most).
START_PERIOD_SECONDS, RETRIES, LONGEST_INTERVAL_SECONDS = 300, 10, 300


def environment(variables: dict[str, str] | Any) -> list[dict[str, Any]]:
    """Environment variables in ECS's format, sorted by name so that their order never causes a new revision."""
    return [{"name": name, "value": variables[name]} for name in sorted(variables)]


def log_configuration(group: aws.cloudwatch.LogGroup, region: str) -> dict[str, Any]:
    """Send output to a log group, without blocking: lines are dropped when the buffer is full."""
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
    """A health check that allows for a cold start: ten failures, spread over the time that ``startPeriod`` does not cover.

    The drawback is that a hung engine is replaced equally slowly. The gateway detects it within seconds and stops sending
    requests to it. An engine that exits stops its task immediately.
    """
    interval = math.ceil((startup_timeout_seconds - START_PERIOD_SECONDS) / RETRIES)
    return {
        "command": ["CMD", *health_command(port, timeout_seconds=8)],
        "startPeriod": START_PERIOD_SECONDS,
        "interval": min(max(interval, 15), LONGEST_INTERVAL_SECONDS),
        "timeout": 10,
        "retries": RETRIES,
    }
