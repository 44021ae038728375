"""Security groups: load balancer -> gateway -> engine -> weights; all other inbound traffic is denied."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pulumi
import pulumi_aws as aws

from infra.aws.context import Context
from infra.inputs import Input, is_output

HTTPS_PORT = 443
NFS_PORT = 2049


@dataclass(frozen=True)
class SecurityGroupsArgs:
    """The ports, and the networks that may connect.

    Attributes:
        context: account, region, names and tags.
        vpc_id: the VPC.
        listener_ports: ports of the load balancer.
        client_cidrs: networks that may connect to them, by their CIDR as text, so that a network has the same rule
            whichever setting it comes from.
        client_groups: security groups whose members may connect to them. If the list itself is an output, its rules are
            created once it is known, so that a preview may not show them.
        former_labels: former names of each network's rule, by the same CIDR.
        gateway_port: the gateway's port.
        engine_port: vLLM's port.
        hub_port: port of the model hub or its mirror.
    """

    context: Context
    vpc_id: pulumi.Input[str]
    listener_ports: Sequence[int]
    client_cidrs: Mapping[str, pulumi.Input[str]]
    gateway_port: int
    engine_port: int
    hub_port: int = HTTPS_PORT
    former_labels: Mapping[str, Sequence[str]] = field(default_factory=dict)
    client_groups: Input[tuple[Input[str], ...]] = ()


class SecurityGroups(pulumi.ComponentResource):
    """Five groups that reference each other, so that only the load balancer's inbound rules contain CIDR ranges.

    ``instance`` is the group of the GPU instances. The engine's task has its own network interface, through which the ECS
    agent also mounts EFS, so the instance's group needs neither port 8000 nor NFS.
    """

    def __init__(self, name: str, args: SecurityGroupsArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        if not (args.client_cidrs or args.client_groups):
            raise ValueError("client_cidrs and client_groups: empty, so no client could connect to the load balancer")
        super().__init__("vllm:aws:SecurityGroups", name, None, opts)
        self._name, self._args = name, args
        self.load_balancer = self._group("load-balancer", "What clients reach", "load-balancer")
        self.gateway = self._group("gateway", "Reached from the load balancer alone", "gateway")
        self.engine = self._group("engine", "Reached from the gateway alone", "engine")
        self.instance = self._group("instance", "Reached by nobody", "capacity")
        self.weights = self._group("weights", "Reached from the engine alone", "weights")
        for port in args.listener_ports:
            for label, cidr in args.client_cidrs.items():
                self._let_in_clients(port, label, cidr)
        self._let_in_groups(args.client_groups)
        self._connect("clients", self.load_balancer, self.gateway, args.gateway_port)
        self._connect("requests", self.gateway, self.engine, args.engine_port)
        self._connect("nfs", self.engine, self.weights, NFS_PORT)
        ways = [
            (self.gateway, "gateway-https", "AWS APIs, container image", HTTPS_PORT),
            (self.engine, "engine-https", "Model hub", HTTPS_PORT),
            (self.instance, "instance-https", "AWS APIs, container image", HTTPS_PORT),
        ]
        if args.hub_port != HTTPS_PORT:
            ways.append((self.engine, "engine-hub", "Mirror of the model hub", args.hub_port))
        for group, suffix, why, port in ways:
            aws.vpc.SecurityGroupEgressRule(
                f"{name}-{suffix}",
                security_group_id=group.id,
                description=why,
                ip_protocol="tcp",
                from_port=port,
                to_port=port,
                cidr_ipv4="0.0.0.0/0",
                tags=args.context.tags("network"),
                opts=pulumi.ResourceOptions(parent=self),
            )
        self.register_outputs({})

    def _group(self, suffix: str, description: str, component: str) -> aws.ec2.SecurityGroup:
        name = f"{self._name}-{suffix}"
        return aws.ec2.SecurityGroup(
            name,
            description=description,
            vpc_id=self._args.vpc_id,
            tags=self._args.context.tags(component, name),
            opts=pulumi.ResourceOptions(parent=self),
        )

    def _let_in_clients(self, port: int, label: str, cidr: pulumi.Input[str]) -> None:
        v6 = isinstance(cidr, str) and ":" in cidr
        aws.vpc.SecurityGroupIngressRule(
            f"{self._name}-clients-{port}-{label}",
            security_group_id=self.load_balancer.id,
            description="Clients",
            ip_protocol="tcp",
            from_port=port,
            to_port=port,
            cidr_ipv4=None if v6 else cidr,
            cidr_ipv6=cidr if v6 else None,
            tags=self._args.context.tags("load-balancer"),
            opts=pulumi.ResourceOptions(
                parent=self,
                aliases=[
                    pulumi.Alias(name=f"{self._name}-clients-{port}-{former}")
                    for former in self._args.former_labels.get(label, ())
                ],
            ),
        )

    def _let_in_groups(self, groups: Any) -> None:
        if is_output(groups):
            groups.apply(self._let_in_groups)
            return
        for port in self._args.listener_ports:
            for number, group in enumerate(groups):
                label = group if isinstance(group, str) else f"group-{number}"
                aws.vpc.SecurityGroupIngressRule(
                    f"{self._name}-clients-{port}-{label}",
                    security_group_id=self.load_balancer.id,
                    description="Clients",
                    ip_protocol="tcp",
                    from_port=port,
                    to_port=port,
                    referenced_security_group_id=group,
                    tags=self._args.context.tags("load-balancer"),
                    opts=pulumi.ResourceOptions(parent=self),
                )

    def _connect(self, suffix: str, source: aws.ec2.SecurityGroup, target: aws.ec2.SecurityGroup, port: int) -> None:
        """Allow ``source`` to connect to ``target`` on one port: an egress and an ingress rule."""
        tags, child = self._args.context.tags("network"), pulumi.ResourceOptions(parent=self)
        aws.vpc.SecurityGroupEgressRule(
            f"{self._name}-{suffix}-out",
            security_group_id=source.id,
            referenced_security_group_id=target.id,
            ip_protocol="tcp",
            from_port=port,
            to_port=port,
            tags=tags,
            opts=child,
        )
        aws.vpc.SecurityGroupIngressRule(
            f"{self._name}-{suffix}-in",
            security_group_id=target.id,
            referenced_security_group_id=source.id,
            ip_protocol="tcp",
            from_port=port,
            to_port=port,
            tags=tags,
            opts=child,
        )
