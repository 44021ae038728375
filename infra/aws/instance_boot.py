"""What a GPU instance does when it boots: it tells the ECS agent how to behave. No secret is in here."""

from __future__ import annotations

import base64

AGENT_ACTIONS_ON_CLUSTER = (
    "ecs:RegisterContainerInstance",
    "ecs:DeregisterContainerInstance",
    "ecs:SubmitTaskStateChange",
    "ecs:SubmitContainerStateChange",
    "ecs:SubmitAttachmentStateChanges",
)
AGENT_ACTIONS_ON_INSTANCES = ("ecs:Poll", "ecs:StartTelemetrySession", "ecs:UpdateContainerInstancesState")

AGENT_SETTINGS = {
    # A warm instance keeps the image on its disk: the 10 GB are pulled once.
    "ECS_IMAGE_PULL_BEHAVIOR": "prefer-cached",
    # Unpacking the engine's largest layer goes on without network traffic for minutes.
    "ECS_IMAGE_PULL_INACTIVITY_TIMEOUT": "15m",
    # On a Spot notice the agent drains the instance and its task is told to stop.
    "ECS_ENABLE_SPOT_INSTANCE_DRAINING": "true",
    # Logs are written as the task's execution role, so that the instance's needs no right to them.
    "ECS_ENABLE_AWSLOGS_EXECUTIONROLE_OVERRIDE": "true",
    "ECS_AWSVPC_BLOCK_IMDS": "true",
    "ECS_DISABLE_PRIVILEGED": "true",
    "ECS_ENGINE_TASK_CLEANUP_WAIT_DURATION": "10m",
}


def user_data(cluster_name: str) -> str:
    """The boot script, base64 as a launch template wants it."""
    settings = {"ECS_CLUSTER": cluster_name, **AGENT_SETTINGS}
    lines = "\n".join(f"{name}={value}" for name, value in settings.items())
    script = f"#!/bin/bash\nset -euo pipefail\ncat >> /etc/ecs/ecs.config <<'END'\n{lines}\nEND\n"
    return base64.b64encode(script.encode()).decode()
