"""The boot script of a GPU instance, which configures the ECS agent. It contains no secrets."""

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
    # An instance of the warm pool has the image on its disk, so the 10 GB are pulled only once.
    "ECS_IMAGE_PULL_BEHAVIOR": "prefer-cached",
    # Pull the small image with the entrypoint's code and the engine's image in parallel.
    "ECS_PULL_DEPENDENT_CONTAINERS_UPFRONT": "true",
    # Unpacking the engine's largest layer takes minutes without network traffic.
    "ECS_IMAGE_PULL_INACTIVITY_TIMEOUT": "15m",
    # On a Spot interruption notice, the agent drains the instance and stops its task.
    "ECS_ENABLE_SPOT_INSTANCE_DRAINING": "true",
    # Logs are written with the task's execution role, so the instance's role needs no permission for them.
    "ECS_ENABLE_AWSLOGS_EXECUTIONROLE_OVERRIDE": "true",
    "ECS_AWSVPC_BLOCK_IMDS": "true",
    "ECS_DISABLE_PRIVILEGED": "true",
    "ECS_ENGINE_TASK_CLEANUP_WAIT_DURATION": "10m",
}
WARM_HOOK = "image-on-disk"
WARM_HOOK_TIMEOUT_SECONDS = 1200  # twice the time to pull and unpack the image

# The instance store (NVMe), if the instance type has one, for weights that do not fit in memory. It is erased at each stop.
# A failure here does not prevent the instance from joining its cluster.
_NVME = """\
disk=$(lsblk -dpno NAME,MODEL | awk '/Instance Storage/ {print $1; exit}') || true
if [ -n "$disk" ] && mkfs.xfs -q -f "$disk" && mkdir -p /mnt/nvme && mount -o noatime "$disk" /mnt/nvme; then
  install -d -m 1777 /mnt/nvme/weights
fi
"""

# Runs at each boot: it pulls the image before the instance enters the pool; afterwards the image is already on disk.
_WARM = """\
cat > /var/lib/cloud/scripts/per-boot/warm.sh <<'END'
#!/bin/bash
set -uo pipefail
command -v aws > /dev/null || dnf install -y -q awscli-2
metadata() {{
  local token
  token=$(curl -sf -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 60' http://169.254.169.254/latest/api/token)
  curl -sf -H "X-aws-ec2-metadata-token: $token" "http://169.254.169.254/latest/meta-data/$1"
}}
systemctl start docker
registry='{registry}'
if [ -n "$registry" ]; then
  aws ecr get-login-password --region {region} | docker login --username AWS --password-stdin "$registry"
fi
docker image inspect '{image}' > /dev/null 2>&1 || docker pull -q '{image}'
aws autoscaling complete-lifecycle-action --region {region} --auto-scaling-group-name '{group}' \\
  --lifecycle-hook-name {hook} --lifecycle-action-result CONTINUE --instance-id "$(metadata instance-id)"
END
chmod 755 /var/lib/cloud/scripts/per-boot/warm.sh
/var/lib/cloud/scripts/per-boot/warm.sh
"""


def user_data(cluster_name: str, region: str, warm_image: str) -> str:
    """The boot script, base64-encoded as a launch template requires.

    Args:
        cluster_name: name of the ECS cluster and of the Auto Scaling group.
        region: their region.
        warm_image: image to pull before the instance is stopped in a warm pool; empty: no warm pool.
    """
    settings = {"ECS_CLUSTER": cluster_name, **AGENT_SETTINGS}
    if warm_image:
        settings["ECS_WARM_POOLS_CHECK"] = "true"  # ECS must not treat a stopped instance as lost
    lines = "\n".join(f"{name}={value}" for name, value in settings.items())
    script = f"#!/bin/bash\nset -euo pipefail\ncat >> /etc/ecs/ecs.config <<'END'\n{lines}\nEND\n"
    script += _NVME
    if warm_image:
        registry = warm_image.partition("/")[0] if ".dkr.ecr." in warm_image else ""
        script += _WARM.format(image=warm_image, registry=registry, region=region, group=cluster_name, hook=WARM_HOOK)
    return base64.b64encode(script.encode()).decode()
