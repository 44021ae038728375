"""ECS, Cloud Map and ECR."""

from collections.abc import Iterator

from botocore.exceptions import ClientError

from smoke_tests.teardown.items import Item
from smoke_tests.teardown.prices import GB, hourly
from smoke_tests.teardown.region_scan import Kind, RegionScan, present


def _clusters(scan: RegionScan) -> Iterator[Item]:
    for arn in scan.cluster_arns:
        described = scan.client("ecs").describe_clusters(clusters=[arn], include=["TAGS"])["clusters"]
        for cluster in described:
            yield from present(scan.item("ECS cluster", arn, cluster["clusterName"], cluster.get("tags")))


def _remove_cluster(scan: RegionScan, item: Item) -> None:
    ecs = scan.client("ecs")
    for instance in scan.pages("ecs", "list_container_instances", "containerInstanceArns", cluster=item.identifier):
        ecs.deregister_container_instance(cluster=item.identifier, containerInstance=instance, force=True)
    ecs.put_cluster_capacity_providers(
        cluster=item.identifier, capacityProviders=[], defaultCapacityProviderStrategy=[]
    )
    ecs.delete_cluster(cluster=item.identifier)


def _services(scan: RegionScan) -> Iterator[Item]:
    for cluster in scan.cluster_arns:
        arns = list(scan.pages("ecs", "list_services", "serviceArns", cluster=cluster))
        for start in range(0, len(arns), 10):
            some = arns[start : start + 10]
            for service in scan.client("ecs").describe_services(cluster=cluster, services=some)["services"]:
                if service["status"] == "INACTIVE":
                    continue
                going = service["status"] == "DRAINING" and not service["runningCount"]
                yield from present(
                    scan.item(
                        "ECS service", service["serviceArn"], service["serviceName"], part_of="its cluster",
                        going=going, note=f"{service['runningCount']} of {service['desiredCount']} tasks run",
                    )
                )  # fmt: skip


def _cluster_in(arn: str) -> str:
    """The name of the cluster in a service's or a task's ARN."""
    return arn.split("/")[1]


def _remove_service(scan: RegionScan, item: Item) -> None:
    scan.client("ecs").delete_service(cluster=_cluster_in(item.identifier), service=item.identifier, force=True)


def _tasks(scan: RegionScan) -> Iterator[Item]:
    for cluster in scan.cluster_arns:
        arns = list(scan.pages("ecs", "list_tasks", "taskArns", cluster=cluster))
        for start in range(0, len(arns), 100):
            some = arns[start : start + 100]
            for task in scan.client("ecs").describe_tasks(cluster=cluster, tasks=some)["tasks"]:
                going = task["lastStatus"] in ("DEPROVISIONING", "STOPPED") or task["desiredStatus"] == "STOPPED"
                on_fargate = task.get("launchType") == "FARGATE" or "FARGATE" in task.get("capacityProviderName", "")
                price = 0.0
                if on_fargate:
                    price = hourly("fargate_vcpu_hour", int(task.get("cpu") or 0) / 1024)
                    price += hourly("fargate_gb_hour", int(task.get("memory") or 0) / 1024)
                arn, note = task["taskArn"], "on Fargate" if on_fargate else "on an instance"
                yield from present(
                    scan.item("ECS task", arn, usd_per_hour=price, part_of="its cluster", going=going, note=note)
                )


def _remove_task(scan: RegionScan, item: Item) -> None:
    scan.client("ecs").stop_task(cluster=_cluster_in(item.identifier), task=item.identifier, reason="teardown")


def _task_definitions(scan: RegionScan) -> Iterator[Item]:
    """Active task definitions. Deregistered ones stay listed indefinitely and cost nothing."""
    ecs, prefix = scan.client("ecs"), scan.identity.prefix
    for family in scan.pages("ecs", "list_task_definition_families", "families", familyPrefix=prefix, status="ACTIVE"):
        for arn in scan.pages(
            "ecs", "list_task_definitions", "taskDefinitionArns", familyPrefix=family, status="ACTIVE"
        ):
            described = ecs.describe_task_definition(taskDefinition=arn, include=["TAGS"])
            if described["taskDefinition"]["family"] == family:
                yield from present(scan.item("task definition", arn, family, described.get("tags")))


def _remove_task_definition(scan: RegionScan, item: Item) -> None:
    scan.client("ecs").deregister_task_definition(taskDefinition=item.identifier)


def _capacity_providers(scan: RegionScan) -> Iterator[Item]:
    ecs = scan.client("ecs")
    arguments: dict[str, str] = {}
    while True:  # this listing has no paginator in boto3
        answer = ecs.describe_capacity_providers(include=["TAGS"], **arguments)
        for provider in answer["capacityProviders"]:
            if provider.get("status", "ACTIVE") == "ACTIVE":
                name = provider["name"]
                yield from present(scan.item("capacity provider", name, name, provider.get("tags")))
        if not answer.get("nextToken"):
            return
        arguments["nextToken"] = answer["nextToken"]


def _remove_capacity_provider(scan: RegionScan, item: Item) -> None:
    provider = scan.client("ecs").delete_capacity_provider(capacityProvider=item.identifier)["capacityProvider"]
    if provider.get("updateStatus") == "DELETE_FAILED":  # AWS reports this with status 200, and keeps the provider
        reason = provider.get("updateStatusReason", "")
        raise ClientError({"Error": {"Code": "DELETE_FAILED", "Message": reason}}, "DeleteCapacityProvider")


def _scalable_targets(scan: RegionScan) -> Iterator[Item]:
    clusters = {arn.rpartition("/")[2] for arn in scan.cluster_arns}
    for target in scan.pages(
        "application-autoscaling", "describe_scalable_targets", "ScalableTargets", ServiceNamespace="ecs"
    ):
        identifier = target["ResourceId"]
        part_of = "its cluster" if _cluster_in(identifier) in clusters else ""
        yield from present(scan.item("scalable target", identifier, identifier, part_of=part_of))


def _remove_scalable_target(scan: RegionScan, item: Item) -> None:
    scan.client("application-autoscaling").deregister_scalable_target(
        ServiceNamespace="ecs", ResourceId=item.identifier, ScalableDimension="ecs:service:DesiredCount"
    )


def _namespaces(scan: RegionScan) -> Iterator[Item]:
    discovery = scan.client("servicediscovery")
    for namespace in scan.pages("servicediscovery", "list_namespaces", "Namespaces"):
        tags = discovery.list_tags_for_resource(ResourceARN=namespace["Arn"])["Tags"]
        price = hourly("hosted_zone_month") if namespace["Type"] == "DNS_PRIVATE" else 0.0
        yield from present(
            scan.item("Cloud Map namespace", namespace["Id"], namespace["Name"], tags, usd_per_hour=price)
        )


def _remove_namespace(scan: RegionScan, item: Item) -> None:
    discovery = scan.client("servicediscovery")
    inside = [{"Name": "NAMESPACE_ID", "Values": [item.identifier], "Condition": "EQ"}]
    for service in scan.pages("servicediscovery", "list_services", "Services", Filters=inside):
        for instance in scan.pages("servicediscovery", "list_instances", "Instances", ServiceId=service["Id"]):
            discovery.deregister_instance(ServiceId=service["Id"], InstanceId=instance["Id"])
        discovery.delete_service(Id=service["Id"])
    discovery.delete_namespace(Id=item.identifier)


def _repositories(scan: RegionScan) -> Iterator[Item]:
    ecr = scan.client("ecr")
    for repository in scan.pages("ecr", "describe_repositories", "repositories"):
        name = repository["repositoryName"]
        tags = ecr.list_tags_for_resource(resourceArn=repository["repositoryArn"])["tags"]
        if not scan.item("ECR repository", name, name, tags):
            continue
        images = list(scan.pages("ecr", "describe_images", "imageDetails", repositoryName=name))
        size = sum(image.get("imageSizeInBytes") or 0 for image in images)
        yield from present(
            scan.item(
                "ECR repository", name, name, tags,
                usd_per_hour=hourly("ecr_gb_month", size / GB), note=f"{len(images)} images, {size / GB:.1f} GB",
            )
        )  # fmt: skip


def _remove_repository(scan: RegionScan, item: Item) -> None:
    scan.client("ecr").delete_repository(repositoryName=item.identifier, force=True)


def _cache_rules(scan: RegionScan) -> Iterator[Item]:
    for rule in scan.pages("ecr", "describe_pull_through_cache_rules", "pullThroughCacheRules"):
        prefix = rule["ecrRepositoryPrefix"]
        yield from present(scan.item("pull-through cache", prefix, prefix))


def _remove_cache_rule(scan: RegionScan, item: Item) -> None:
    scan.client("ecr").delete_pull_through_cache_rule(ecrRepositoryPrefix=item.identifier)


KINDS = (
    Kind("ECS service", _services, _remove_service, arns=("ecs:service",)),
    Kind("ECS task", _tasks, _remove_task, arns=("ecs:task", "ecs:container-instance")),
    Kind("scalable target", _scalable_targets, _remove_scalable_target, arns=("application-autoscaling",)),
    Kind("ECS cluster", _clusters, _remove_cluster, arns=("ecs:cluster",)),
    Kind("capacity provider", _capacity_providers, _remove_capacity_provider, arns=("ecs:capacity-provider",)),
    Kind("task definition", _task_definitions, _remove_task_definition, arns=("ecs:task-definition",)),
    Kind("Cloud Map namespace", _namespaces, _remove_namespace, arns=("servicediscovery",)),
    Kind("ECR repository", _repositories, _remove_repository, arns=("ecr",)),
    Kind("pull-through cache", _cache_rules, _remove_cache_rule),
)
