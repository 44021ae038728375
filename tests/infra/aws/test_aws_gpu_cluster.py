"""GPU instances: configuration, boot, launch and termination."""

import base64
import subprocess
from typing import Any

import pytest

from infra.aws.context import Context
from infra.aws.gpu_cluster import GpuCluster, GpuClusterArgs
from infra.identity import Identity
from infra.planning import make_plan
from infra.settings import PurchaseOption
from infra.stack_files import load_stack
from tests.infra.program import Program, arn, run_program


@pytest.fixture
def dev() -> Program:
    return run_program("dev")


def test_instances_cannot_be_asked_for_credentials_by_what_runs_on_them(dev: Program) -> None:
    assert dev.one("LaunchTemplate").inputs["metadataOptions"] == {
        "httpEndpoint": "enabled",
        "httpTokens": "required",
        "httpPutResponseHopLimit": 1,
    }


def test_the_root_volume_is_encrypted_and_fast_enough_to_unpack_the_image(dev: Program) -> None:
    (volume,) = dev.one("LaunchTemplate").inputs["blockDeviceMappings"]
    assert volume["deviceName"] == "/dev/xvda"
    assert volume["ebs"] == {
        "volumeType": "gp3",
        "volumeSize": 100,
        "throughput": 500,
        "iops": 3000,
        "encrypted": "true",
        "deleteOnTermination": "true",
    }


def test_the_image_is_the_newest_for_gpus(dev: Program) -> None:
    (asked,) = [args for token, args in dev.invoked if token.endswith("getParameter")]
    assert asked["name"] == "/aws/service/ecs/optimized-ami/amazon-linux-2023/gpu/recommended/image_id"
    template = dev.one("LaunchTemplate").inputs
    assert template["imageId"] == "ami-0123456789abcdef0"
    assert template["iamInstanceProfile"]["arn"] == arn("aws:iam/instanceProfile:InstanceProfile", "vllm-dev-gpu")
    assert dev.one("InstanceProfile").inputs["role"] == "vllm-dev-role-instance-1a2b3c4"


def test_the_agent_joins_the_cluster_and_keeps_the_image(dev: Program) -> None:
    script = base64.b64decode(dev.one("LaunchTemplate").inputs["userData"]).decode()
    settings = dict(line.split("=", 1) for line in script.splitlines() if line.startswith("ECS_"))
    assert settings == {
        "ECS_CLUSTER": "vllm-dev-gpu-1a2b3c4",
        "ECS_IMAGE_PULL_BEHAVIOR": "prefer-cached",
        "ECS_PULL_DEPENDENT_CONTAINERS_UPFRONT": "true",
        "ECS_IMAGE_PULL_INACTIVITY_TIMEOUT": "15m",
        "ECS_ENABLE_SPOT_INSTANCE_DRAINING": "true",
        "ECS_ENABLE_AWSLOGS_EXECUTIONROLE_OVERRIDE": "true",
        "ECS_AWSVPC_BLOCK_IMDS": "true",
        "ECS_DISABLE_PRIVILEGED": "true",
        "ECS_ENGINE_TASK_CLEANUP_WAIT_DURATION": "10m",
    }
    assert script.startswith("#!/bin/bash\nset -euo pipefail\ncat >> /etc/ecs/ecs.config <<")


def test_the_agents_role_may_act_in_its_own_cluster_alone(dev: Program) -> None:
    policy = dev.one("RolePolicy", "agent")
    assert policy.inputs["role"] == "vllm-dev-role-instance-id"
    statements = {s["Sid"]: (set(s["Action"]), s["Resource"]) for s in policy.document()["Statement"]}
    cluster = arn("aws:ecs/cluster:Cluster", "vllm-dev-gpu")
    instances = "arn:aws:ecs:us-east-1:123456789012:container-instance/vllm-dev-gpu-1a2b3c4/*"
    assert statements == {
        "FindEndpoint": ({"ecs:DiscoverPollEndpoint"}, ["*"]),
        "JoinCluster": (
            {
                "ecs:RegisterContainerInstance",
                "ecs:DeregisterContainerInstance",
                "ecs:SubmitTaskStateChange",
                "ecs:SubmitContainerStateChange",
                "ecs:SubmitAttachmentStateChanges",
            },
            [cluster],
        ),
        "RunTasks": ({"ecs:Poll", "ecs:StartTelemetrySession", "ecs:UpdateContainerInstancesState"}, [instances]),
    }


def test_what_the_group_launches_is_tagged(dev: Program) -> None:
    tags = dev.one("LaunchTemplate").tags()
    specifications = dev.one("LaunchTemplate").inputs["tagSpecifications"]
    assert {s["resourceType"]: s["tags"] for s in specifications} == dict.fromkeys(
        ("instance", "volume", "network-interface"), tags
    )
    group = dev.one("Group")
    assert group.tags() == {**tags, "AmazonECSManaged": ""}
    assert all(tag["propagateAtLaunch"] for tag in group.inputs["tags"])


def mixed(program: Program) -> tuple[dict[str, Any], list[str]]:
    policy = program.one("Group").inputs["mixedInstancesPolicy"]
    template = policy["launchTemplate"]
    assert template["launchTemplateSpecification"] == {
        "launchTemplateId": f"{program.one('LaunchTemplate').name}-id",
        "version": "7",
    }
    return policy["instancesDistribution"], [o["instanceType"] for o in template["overrides"]]


def test_several_types_are_tried_in_the_plans_order(dev: Program) -> None:
    distribution, types = mixed(dev)
    assert types == ["g5.xlarge", "g5.2xlarge", "g5.4xlarge"]
    assert distribution["onDemandAllocationStrategy"] == "prioritized"
    assert distribution["onDemandPercentageAboveBaseCapacity"] == 100
    assert "launchTemplate" not in dev.one("Group").inputs
    assert dev.one("Group").inputs["capacityRebalance"] is False


def test_spot() -> None:
    program = run_program("dev", capacity="spot")
    distribution, types = mixed(program)
    assert types[0] == "g5.xlarge"
    assert distribution["onDemandPercentageAboveBaseCapacity"] == distribution["onDemandBaseCapacity"] == 0
    assert distribution["spotAllocationStrategy"] == "capacity-optimized-prioritized"
    assert program.one("Group").inputs["capacityRebalance"] is True


def test_a_reservation_is_targeted() -> None:
    program = run_program("dev", capacity="reservation", capacityReservationId="cr-1", instanceTypes=["g5.2xlarge"])
    template = program.one("LaunchTemplate").inputs
    assert template["instanceType"] == "g5.2xlarge"
    target = template["capacityReservationSpecification"]["capacityReservationTarget"]
    assert target == {"capacityReservationId": "cr-1"}
    assert program.one("Group").inputs["launchTemplate"] == {"id": "vllm-dev-gpu-id", "version": "7"}
    assert "mixedInstancesPolicy" not in program.one("Group").inputs


def test_a_capacity_block_is_a_reservation_of_its_own_kind() -> None:
    program = run_program("prod", capacity="capacity-block", capacityReservationId="cr-1")
    template = program.one("LaunchTemplate").inputs
    assert template["instanceMarketOptions"] == {"marketType": "capacity-block"}
    target = template["capacityReservationSpecification"]["capacityReservationTarget"]
    assert target == {"capacityReservationId": "cr-1"}
    assert "mixedInstancesPolicy" not in program.one("Group").inputs
    assert "instanceMarketOptions" not in run_program("prod").one("LaunchTemplate").inputs


def boot_script(program: Program) -> str:
    return base64.b64decode(program.one("LaunchTemplate").inputs["userData"]).decode()


def test_a_warm_pool_holds_so_many_stopped_instances_of_one_type_with_the_image() -> None:
    program = run_program("dev", warmPool=2, maxReplicas=4)
    group = program.one("Group").inputs
    assert group["warmPool"] == {
        "poolState": "Stopped",
        "minSize": 2,
        "maxGroupPreparedCapacity": 2,
        "instanceReusePolicy": {"reuseOnScaleIn": False},
    }
    assert group["forceDeleteWarmPool"] is True
    assert group["launchTemplate"]["id"] == "vllm-dev-gpu-id"
    assert "mixedInstancesPolicy" not in group
    hook = program.one("LifecycleHook").inputs
    assert hook["lifecycleTransition"] == "autoscaling:EC2_INSTANCE_LAUNCHING"
    assert hook["autoscalingGroupName"] == group["name"] == "vllm-dev-gpu-1a2b3c4"
    script = boot_script(program)
    assert "ECS_WARM_POOLS_CHECK=true" in script.splitlines()
    assert f"docker pull -q '{make_plan(load_stack('dev')).engine.image}'" in script
    assert f"--auto-scaling-group-name '{group['name']}'" in script
    assert f"--lifecycle-hook-name {hook['name']} " in script
    assert subprocess.run(["bash", "-n"], input=script, text=True, check=False).returncode == 0
    (statement,) = program.one("RolePolicy", "-warm").document()["Statement"]
    assert statement["Action"] == ["autoscaling:CompleteLifecycleAction"]
    assert statement["Resource"] == [
        f"arn:aws:autoscaling:us-east-1:123456789012:autoScalingGroup:*:autoScalingGroupName/{group['name']}"
    ]
    # The pool fills as soon as the group exists, before the hook's own resource does.
    assert {key: hook[key] for key in group["initialLifecycleHooks"][0]} == group["initialLifecycleHooks"][0]


def test_without_a_warm_pool_an_instance_says_nothing_to_the_group(dev: Program) -> None:
    assert "warmPool" not in dev.one("Group").inputs
    assert dev.all("LifecycleHook") == []
    assert "lifecycle" not in boot_script(dev)


def test_a_warm_pool_logs_in_where_the_image_is_private() -> None:
    registry = "123456789012.dkr.ecr.us-east-1.amazonaws.com"
    program = run_program("dev", warmPool=1, engineImage=f"{registry}/team/vllm:v1")
    assert f"registry='{registry}'" in boot_script(program)
    allowed = {s["Sid"] for s in program.one("RolePolicy", "-warm").document()["Statement"]}
    assert allowed == {"SayWarm", "LogInToRegistry", "PullImage"}


def test_the_group_can_always_be_set_to_zero_and_is_not_set_by_a_deploy() -> None:
    for stack, most in (("dev", 1), ("prod", 2)):
        group = run_program(stack).one("Group")
        assert (group.inputs["minSize"], group.inputs["maxSize"]) == (0, most)
        assert group.inputs["name"] == f"vllm-{stack}-gpu-1a2b3c4"
        assert "desiredCapacity" not in group.inputs
        assert group.ignore_changes == ("desiredCapacity", "initialLifecycleHooks")
        assert group.inputs["waitForCapacityTimeout"] == "0"
        assert group.inputs["forceDelete"] is True
        assert group.inputs["suspendedProcesses"] == ["AZRebalance"]
        assert "GroupDesiredCapacity" in group.inputs["enabledMetrics"]


def provider(program: Program) -> dict[str, Any]:
    return dict(program.one("CapacityProvider").inputs["autoScalingGroupProvider"])


def test_instances_are_drained_before_they_end(dev: Program) -> None:
    assert provider(dev)["managedDraining"] == "ENABLED"
    assert provider(dev)["autoScalingGroupArn"] == arn("aws:autoscaling/group:Group", "vllm-dev-gpu")
    assert provider(dev)["managedScaling"] == {
        "status": "ENABLED",
        "targetCapacity": 100,
        "minimumScalingStepSize": 1,
        "maximumScalingStepSize": 1,
        "instanceWarmupPeriod": make_plan(load_stack("dev")).replicas.expected_cold_start_seconds,
    }


@pytest.mark.parametrize(
    ("stack", "values", "protected"),
    [("dev", {}, False), ("dev", {"maxReplicas": 3}, False), ("prod", {}, True), ("prod", {"maxReplicas": 1}, False)],
)
def test_busy_instances_are_protected_where_some_always_run(
    stack: str, values: dict[str, Any], protected: bool
) -> None:
    program = run_program(stack, **values)
    assert provider(program)["managedTerminationProtection"] == ("ENABLED" if protected else "DISABLED")
    assert program.one("Group").inputs["protectFromScaleIn"] is protected


def test_the_cluster_has_gpus_and_fargate(dev: Program) -> None:
    inputs = dev.one("ClusterCapacityProviders").inputs
    assert inputs["capacityProviders"] == ["vllm-dev-gpu-1a2b3c4", "FARGATE"]


def test_a_reservation_without_its_id_is_a_mistake_of_the_caller() -> None:
    context = Context(Identity("dev"), "us-east-1", "123456789012", "aws")
    plan = make_plan(load_stack("dev")).replicas
    args: Any = {"image": None, "subnet_ids": [], "security_group_id": "sg-1", "role": None, "kms_key_arn": ""}
    with pytest.raises(ValueError, match="set both or neither"):
        GpuCluster("c", GpuClusterArgs(context, plan, PurchaseOption.RESERVATION, "", 0, **args))
    with pytest.raises(ValueError, match="requires on-demand instances"):
        GpuCluster("c", GpuClusterArgs(context, plan, PurchaseOption.SPOT, "", 1, **args))
