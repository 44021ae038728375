"""The stack's services and their tasks."""

import time
from typing import Any

import pytest

from smoke_tests.aws.deployed import Deployed

STEADY_TIMEOUT_SECONDS = 300.0
POLL_SECONDS = 5.0


def _unsteady(service: dict[str, Any]) -> str:
    """Why a service is not steady; empty if it is."""
    rollouts = [deployment.get("rolloutState", "COMPLETED") for deployment in service["deployments"]]
    if service["status"] != "ACTIVE":
        return f"its status is {service['status']}"
    if len(rollouts) != 1 or rollouts[0] != "COMPLETED":
        return f"{len(rollouts)} deployments are {', '.join(rollouts)}"
    if service["runningCount"] != service["desiredCount"] or service["pendingCount"]:
        wanted, running, pending = service["desiredCount"], service["runningCount"], service["pendingCount"]
        return f"{running} of {wanted} tasks run, {pending} are pending"
    return ""


@pytest.mark.parametrize("output", ["gatewayServiceName", "engineServiceName"])
def test_service_is_steady(deployed: Deployed, output: str) -> None:
    deadline = time.monotonic() + STEADY_TIMEOUT_SECONDS
    while why := _unsteady(service := deployed.service(output)):
        if time.monotonic() >= deadline:
            events = " | ".join(event["message"] for event in service.get("events", ())[:2])
            pytest.fail(f"{service['serviceName']} is not steady: {why}. {events}")
        time.sleep(POLL_SECONDS)


def test_engine_tasks_run_on_the_gpu_that_was_asked_for(deployed: Deployed) -> None:
    family = str(deployed.outputs["instanceType"]).partition(".")[0]
    ecs = deployed.client("ecs")
    arns = ecs.list_container_instances(cluster=deployed.cluster)["containerInstanceArns"]
    hosts = ecs.describe_container_instances(cluster=deployed.cluster, containerInstances=arns) if arns else {}
    ids = [host["ec2InstanceId"] for host in hosts.get("containerInstances", ()) if host["status"] == "ACTIVE"]
    if int(deployed.service("engineServiceName")["runningCount"]):
        assert ids, f"engine tasks run, but no instance is in cluster {deployed.cluster}"
    reservations = deployed.client("ec2").describe_instances(InstanceIds=ids)["Reservations"] if ids else []
    types = sorted({instance["InstanceType"] for found in reservations for instance in found["Instances"]})
    wrong = [kind for kind in types if kind.partition(".")[0] != family]
    assert not wrong, f"instances are {', '.join(wrong)}, not {family} ({deployed.outputs.get('gpu')})"


def test_an_engine_task_takes_every_gpu_that_it_was_planned_with(deployed: Deployed) -> None:
    containers = deployed.task_definition("engineServiceName")["containerDefinitions"]
    taken = [need["value"] for c in containers for need in c.get("resourceRequirements", ()) if need["type"] == "GPU"]
    assert taken == [str(deployed.outputs["gpuCount"])], (
        f"GPUs of a task: {taken}, planned: {deployed.outputs['gpuCount']}"
    )


def test_engine_is_not_reachable_from_outside(deployed: Deployed) -> None:
    network = deployed.service("engineServiceName")["networkConfiguration"]["awsvpcConfiguration"]
    assert network.get("assignPublicIp", "DISABLED") == "DISABLED", "engine tasks get public addresses"
    gateways = deployed.service("gatewayServiceName")["networkConfiguration"]["awsvpcConfiguration"]["securityGroups"]
    groups = deployed.client("ec2").describe_security_groups(GroupIds=network["securityGroups"])["SecurityGroups"]
    for rule in (rule for group in groups for rule in group["IpPermissions"]):
        open_to = [r.get("CidrIp") or r.get("CidrIpv6") for r in (*rule["IpRanges"], *rule.get("Ipv6Ranges", ()))]
        open_to += [listed["PrefixListId"] for listed in rule.get("PrefixListIds", ())]
        open_to += [pair["GroupId"] for pair in rule["UserIdGroupPairs"] if pair["GroupId"] not in gateways]
        assert not open_to, f"the engine's port {rule.get('FromPort', 'any')} is open to {', '.join(open_to)}"
