"""The resources that everything that runs depends on, derived only from a graph of resources.

A thing that runs in a subnet needs the subnet's way out, in a security group that group's rules, with a role that role's
policies, and so on. Resources come from the mocks (``of_program``) or from the state of Pulumi's engine (``of_state``);
how one names another is the same in both: by id, ARN or name.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.infra.program import Registered

RUNNERS = frozenset({
    "aws:ecs/service:Service", "aws:autoscaling/group:Group", "aws:scheduler/schedule:Schedule",
    "aws:lambda/function:Function", "aws:lb/loadBalancer:LoadBalancer", "aws:ec2/flowLog:FlowLog",
    "kubernetes:apps/v1:Deployment", "kubernetes:batch/v1:Job", "kubernetes:batch/v1:CronJob",
    "kubernetes:apps/v1:StatefulSet",
})  # fmt: skip
"""Types that run something, or begin to serve, as soon as they exist."""
PODS = {"Deployment": ("template",), "StatefulSet": ("template",), "Job": ("template",)}


@dataclass(frozen=True)
class Thing:
    """One resource: what it was given, what others call it, and what it waits for."""

    type: str
    urn: str
    id: str
    inputs: Mapping[str, Any]
    outputs: Mapping[str, Any]
    after: frozenset[str] = field(default_factory=frozenset)

    @property
    def kind(self) -> str:
        """The last word of its type."""
        return self.type.rpartition(":")[2]

    @property
    def name(self) -> str:
        """The resource's name in the program."""
        return self.urn.rpartition("::")[2]

    def called(self, reference: object) -> bool:
        """Whether ``reference``, an input of another resource, is this one's id, ARN or name."""
        known = (self.id, self.outputs.get("arn"), self.outputs.get("name"), self.inputs.get("name"))
        return bool(reference) and reference in known


@dataclass(frozen=True)
class Need:
    """``runner`` must not start before ``needed`` is there, nor outlive it."""

    runner: Thing
    needed: Thing
    why: str

    def __str__(self) -> str:
        return f"{self.runner.kind} {self.runner.name} needs {self.needed.kind} {self.needed.name} ({self.why})"


class Graph:
    """The resources of one stack."""

    def __init__(self, things: Iterable[Thing]) -> None:
        self.things = [thing for thing in things if not thing.type.startswith(("pulumi:", "vllm:", "vllm-endpoint:"))]
        self._by_urn = {thing.urn: thing for thing in self.things}

    def needs(self) -> list[Need]:
        """What each thing that runs needs; each need once."""
        found: dict[tuple[str, str], Need] = {}
        for runner in self.things:
            if runner.type in RUNNERS:
                for needed, why in self._needs_of(runner):
                    if needed.urn != runner.urn:
                        found.setdefault((runner.urn, needed.urn), Need(runner, needed, why))
        return list(found.values())

    def unmet(self) -> list[Need]:
        """The needs without a chain of dependencies, so that the runner could start before or be deleted after what it needs."""
        reached = {urn: self._reach(urn) for urn in {need.runner.urn for need in self.needs()}}
        return [need for need in self.needs() if need.needed.urn not in reached[need.runner.urn]]

    def _reach(self, urn: str) -> set[str]:
        seen: set[str] = set()
        ahead = [urn]
        while ahead:
            for further in self._by_urn[ahead.pop()].after & set(self._by_urn):
                if further not in seen:
                    seen.add(further)
                    ahead.append(further)
        return seen

    def all(self, *kinds: str) -> list[Thing]:
        """Every resource whose type's last word is one of these."""
        return [thing for thing in self.things if thing.kind in kinds]

    def _called(self, reference: object, *kinds: str) -> list[Thing]:
        return [thing for thing in self.all(*kinds) if thing.called(reference)]

    # -- each kind of runner ---------------------------------------------------------

    def _needs_of(self, runner: Thing) -> Iterator[tuple[Thing, str]]:
        of = {
            "Service": self._service, "Group": self._group, "Schedule": self._schedule, "Function": self._function,
            "LoadBalancer": self._load_balancer, "FlowLog": self._flow_log,
        }.get(runner.kind, self._pods)  # fmt: skip
        yield from of(runner)

    def _service(self, service: Thing) -> Iterator[tuple[Thing, str]]:
        given = service.inputs
        yield from self._network(given.get("networkConfiguration"))
        yield from self._task(given["taskDefinition"])
        for target in given.get("loadBalancers") or ():
            yield from self._front(target["targetGroupArn"])
        for registry in _list(given.get("serviceRegistries")):
            yield from ((thing, "its name") for thing in self._called(registry["registryArn"], "Service"))
        for use in given.get("capacityProviderStrategies") or ():
            yield from self._capacity(given["cluster"], use["capacityProvider"])

    def _capacity(self, cluster: str, provider: str) -> Iterator[tuple[Thing, str]]:
        names = {name for thing in self._called(cluster, "Cluster") for name in (thing.id, thing.outputs.get("name"))}
        for link in self.all("ClusterCapacityProviders"):
            if link.inputs["clusterName"] in names and provider in link.inputs["capacityProviders"]:
                yield link, "its capacity provider's place in the cluster"
        for found in self._called(provider, "CapacityProvider"):
            yield found, "its capacity provider"
            for group in self._called(found.inputs["autoScalingGroupProvider"]["autoScalingGroupArn"], "Group"):
                yield group, "the instances that it runs on"

    def _group(self, group: Thing) -> Iterator[tuple[Thing, str]]:
        for subnet in _list(group.inputs["vpcZoneIdentifiers"]):
            yield from self._way_out(subnet)
        mixed = group.inputs.get("mixedInstancesPolicy")
        used = mixed["launchTemplate"]["launchTemplateSpecification"] if mixed else group.inputs["launchTemplate"]
        for template in self._called(used.get("launchTemplateId") or used.get("id"), "LaunchTemplate"):
            yield template, "its launch template"
            for reference in template.inputs["vpcSecurityGroupIds"]:
                yield from self._rules(reference)
            for profile in self._called(template.inputs["iamInstanceProfile"]["arn"], "InstanceProfile"):
                yield profile, "its instance profile"
                yield from self._policies(profile.inputs["role"])

    def _schedule(self, schedule: Thing) -> Iterator[tuple[Thing, str]]:
        target = schedule.inputs["target"]
        yield from self._policies(target["roleArn"])
        yield from ((thing, "what it calls") for thing in self._called(target["arn"], "Function"))
        for function in self._called(target["arn"], "Function"):
            yield from self._function(function)
        if task := target.get("ecsParameters"):
            yield from self._task(task["taskDefinitionArn"])
            yield from self._network(task.get("networkConfiguration"))
        # A call of an AWS API names what it acts upon in its input.
        text = json.dumps(target.get("input") or "")
        for thing in self.all("Service", "Group", "Cluster"):
            if any(f'"{name}\\"' in text for name in _names(thing)):
                yield thing, "what it acts upon"

    def _function(self, function: Thing) -> Iterator[tuple[Thing, str]]:
        yield from self._policies(function.inputs["role"])
        written = (function.inputs.get("loggingConfig") or {}).get("logGroup")
        for group in self.all("LogGroup"):
            if group.called(written) or group.inputs.get("name") == f"/aws/lambda/{function.outputs.get('name')}":
                yield group, "where it logs"
        for thing in self.all("Service", "Group", "Cluster", "Budget"):
            values = (function.inputs.get("environment") or {}).get("variables", {}).values()
            if any(name in values for name in _names(thing)):
                yield thing, "what it acts upon"

    def _load_balancer(self, balancer: Thing) -> Iterator[tuple[Thing, str]]:
        for reference in balancer.inputs["securityGroups"]:
            yield from self._rules(reference)
        if not balancer.inputs.get("internal"):
            for subnet in balancer.inputs["subnets"]:
                yield from self._way_out(subnet)
        if logs := balancer.inputs.get("accessLogs"):
            for bucket in self._called(logs["bucket"], "Bucket"):
                yield bucket, "where it logs"
                yield from (
                    (p, "the right to log") for p in self.all("BucketPolicy") if bucket.called(p.inputs["bucket"])
                )

    def _flow_log(self, log: Thing) -> Iterator[tuple[Thing, str]]:
        yield from self._policies(log.inputs["iamRoleArn"])
        yield from ((thing, "where it logs") for thing in self._called(log.inputs["logDestination"], "LogGroup"))

    # -- what they have in common ------------------------------------------------------

    def _network(self, configuration: Mapping[str, Any] | None) -> Iterator[tuple[Thing, str]]:
        for subnet in (configuration or {}).get("subnets") or ():
            yield from self._way_out(subnet)
        for reference in (configuration or {}).get("securityGroups") or ():
            yield from self._rules(reference)

    def _way_out(self, subnet: str) -> Iterator[tuple[Thing, str]]:
        """Its route table's association, routes and endpoints, and what these lead to, to the internet gateway."""
        for association in self.all("RouteTableAssociation"):
            if association.inputs.get("subnetId") != subnet:
                continue
            yield association, "its subnet's route table"
            table = association.inputs["routeTableId"]
            for endpoint in self.all("VpcEndpoint"):
                if table in (endpoint.inputs.get("routeTableIds") or ()):
                    yield endpoint, "its subnet's endpoint"
            for route in self.all("Route"):
                if route.inputs["routeTableId"] == table:
                    yield route, "its subnet's route"
                    yield from self._gateway(route)

    def _gateway(self, route: Thing) -> Iterator[tuple[Thing, str]]:
        yield from ((found, "its way out") for found in self._called(route.inputs.get("gatewayId"), "InternetGateway"))
        for nat in self._called(route.inputs.get("natGatewayId"), "NatGateway"):
            yield nat, "its way out"
            yield from ((found, "its NAT's address") for found in self._called(nat.inputs["allocationId"], "Eip"))
            yield from self._way_out(nat.inputs["subnetId"])

    def _rules(self, group: str) -> Iterator[tuple[Thing, str]]:
        for rule in self.all("SecurityGroupIngressRule", "SecurityGroupEgressRule"):
            if group in (rule.inputs["securityGroupId"], rule.inputs.get("referencedSecurityGroupId")):
                yield rule, "its security group's rule"

    def _policies(self, reference: str) -> Iterator[tuple[Thing, str]]:
        for role in self._called(reference, "Role"):
            yield role, "its role"
            for policy in self.all("RolePolicy", "RolePolicyAttachment"):
                if role.called(policy.inputs["role"]):
                    yield policy, "its role's policy"

    def _task(self, reference: str) -> Iterator[tuple[Thing, str]]:
        for task in self._called(reference, "TaskDefinition"):
            yield task, "its task definition"
            for key in ("executionRoleArn", "taskRoleArn"):
                yield from self._policies(task.inputs[key])
            text = task.inputs["containerDefinitions"]
            for group in self.all("LogGroup"):
                if any(f'"awslogs-group": "{name}"' in text for name in _names(group)):
                    yield group, "where its containers log"
            for secret in self.all("Secret"):
                if str(secret.outputs["arn"]) in text:
                    yield secret, "a secret that it reads"
                    for version in self.all("SecretVersion"):
                        if secret.called(version.inputs["secretId"]):
                            yield version, "a secret's value"
            for repository in self.all("Repository"):
                if repository.outputs["repositoryUrl"] in text:
                    yield repository, "where its image is"
                    for rule in self.all("PullThroughCacheRule"):
                        if str(repository.inputs.get("name")).startswith(f"{rule.inputs['ecrRepositoryPrefix']}/"):
                            yield rule, "where its image comes through"
            for volume in task.inputs.get("volumes") or ():
                if file_system := (volume.get("efsVolumeConfiguration") or {}).get("fileSystemId"):
                    yield from self._file_system(file_system)

    def _file_system(self, reference: str) -> Iterator[tuple[Thing, str]]:
        for target in self.all("MountTarget"):
            if target.inputs["fileSystemId"] == reference:
                yield target, "a mount target of its volume"
                for group in target.inputs["securityGroups"]:
                    yield from self._rules(group)
        for policy in self.all("FileSystemPolicy"):
            if policy.inputs["fileSystemId"] == reference:
                yield policy, "its volume's policy"

    def _front(self, target_group: str) -> Iterator[tuple[Thing, str]]:
        for listener in self.all("Listener"):
            if any(action.get("targetGroupArn") == target_group for action in listener.inputs["defaultActions"]):
                yield listener, "its target group's listener"

    # -- Kubernetes ----------------------------------------------------------------------

    def _pods(self, runner: Thing) -> Iterator[tuple[Thing, str]]:
        metadata, spec = runner.inputs["metadata"], runner.inputs["spec"]
        template = (spec.get("jobTemplate", {}).get("spec") or spec)["template"]
        pod, labels = template["spec"], template["metadata"]["labels"]
        for space in self.all("Namespace"):
            if _object_name(space) == metadata["namespace"]:
                yield space, "its namespace"
        account = pod.get("serviceAccountName")
        mentioned = set(_strings(pod))
        for thing in self.all("PersistentVolumeClaim", "Secret", "ConfigMap"):
            if _object_name(thing) in mentioned:
                yield thing, "what its pods mount or read"
        for thing in self.all("ServiceAccount"):
            if _object_name(thing) == account:
                yield thing, "its service account"
        for binding in self.all("RoleBinding"):
            if any(subject["name"] == account for subject in binding.inputs["subjects"]):
                yield binding, "its service account's rights"
                for role in self.all("Role"):
                    if _object_name(role) == binding.inputs["roleRef"]["name"]:
                        yield role, "its service account's rights"
        for rule in self.all("NetworkPolicy"):
            chosen = (rule.inputs["spec"].get("podSelector") or {}).get("matchLabels") or {}
            if chosen.items() <= labels.items():
                yield rule, "who may reach its pods"


def of_program(resources: Sequence[Registered]) -> Graph:
    """The graph of a run under mocks. A component among the dependencies stands for its children."""
    children: dict[str, set[str]] = {}
    for resource in resources:
        children.setdefault(resource.parent, set()).add(resource.urn)
    components = {resource.urn for resource in resources if resource.type.startswith(("vllm:", "vllm-endpoint:"))}

    def expanded(urns: Iterable[str]) -> Iterator[str]:
        for urn in urns:
            yield from expanded(children.get(urn, ())) if urn in components else (urn,)

    return Graph(
        Thing(r.type, r.urn, r.identifier, r.inputs, r.outputs, frozenset(expanded(r.depends_on))) for r in resources
    )


def of_state(resources: Sequence[Mapping[str, Any]]) -> Graph:
    """The graph of a stack's exported state."""
    return Graph(
        Thing(
            r["type"],
            r["urn"],
            r.get("id", ""),
            r.get("inputs", {}),
            r.get("outputs", {}),
            frozenset(r.get("dependencies", ())).union(*(r.get("propertyDependencies") or {}).values()),
        )
        for r in resources
    )


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value] if value else []


def _names(thing: Thing) -> list[str]:
    return [name for name in (thing.outputs.get("name"), thing.inputs.get("name")) if name]


def _object_name(thing: Thing) -> str:
    named = {**(thing.inputs.get("metadata") or {}), **(thing.outputs.get("metadata") or {})}
    return str(named.get("name"))


def _strings(value: Any) -> Iterator[str]:
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _strings(item)
    if isinstance(value, str):
        yield value
