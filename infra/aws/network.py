"""The network of a stack: a new VPC, or an existing one from the settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

from infra.aws.context import Context
from infra.aws.existing_network import ExistingNetwork
from infra.refusal import refuse
from infra.settings import NatGateways

VPC_CIDR = "10.64.0.0/16"
UNKNOWN_CIDR = "network"  # in names, in place of the CIDR block of a VPC that another resource creates
SERVING_ZONES = 2  # the minimum for a load balancer; gateways and NAT gateways use the same zones
GPU_ZONES = 3  # a third zone is free, and increases the chance of finding a GPU


@dataclass(frozen=True)
class NetworkArgs:
    """The inputs of the network.

    Attributes:
        context: account, region, names and tags.
        zones: availability zones to use, at least two, those that offer the GPU first.
        gpu_zones: the zones among them that offer the GPU.
        instance_types: the instance types, for the error message.
        nat_gateways: how private subnets reach the internet.
        existing: an existing network; if it is set, no network is created and zones are ignored.
    """

    context: Context
    zones: Sequence[str]
    gpu_zones: Sequence[str]
    nat_gateways: NatGateways
    instance_types: Sequence[str] = ()
    existing: ExistingNetwork | None = None


class Network(pulumi.ComponentResource):
    """A VPC with public subnets for the load balancer and NAT gateways only, and private subnets for everything else.

    Attributes:
        vpc_id: the VPC.
        vpc_cidr: its CIDR range.
        private_subnet_ids: subnets of gateways, engine and mount targets, one per zone.
        gpu_subnet_ids: the private subnets in zones that offer the GPU.
        public_subnet_ids: subnets of an internet-facing load balancer.
        mount_subnets: the private subnets by descriptive name.
        client_cidr: ``vpc_cidr`` as text, known before the network exists.
        public_way: resources that must exist before anything in a public subnet is reachable, and must be deleted after
            it.
    """

    vpc_id: pulumi.Input[str]
    vpc_cidr: pulumi.Input[str]
    private_subnet_ids: Sequence[pulumi.Input[str]]
    gpu_subnet_ids: pulumi.Input[Sequence[str]]
    public_subnet_ids: Sequence[pulumi.Input[str]]
    mount_subnets: Mapping[str, pulumi.Input[str]]
    client_cidr: str
    public_way: Sequence[pulumi.Resource] = ()

    def __init__(self, name: str, args: NetworkArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        if not args.existing and len(args.zones) < SERVING_ZONES:
            raise ValueError(f"a network needs {SERVING_ZONES} zones, got {list(args.zones)}")
        super().__init__("vllm:aws:Network", name, None, opts)
        self._name, self._args = name, args
        self._child = pulumi.ResourceOptions(parent=self)
        if args.existing:
            self.vpc_id, self.vpc_cidr = args.existing.vpc_id, args.existing.cidr_block
            self.private_subnet_ids = args.existing.private_subnet_ids
            self.gpu_subnet_ids = args.existing.gpu_subnet_ids
            self.public_subnet_ids = args.existing.load_balancer_subnet_ids
            zones, cidr = args.existing.zones, args.existing.cidr_block
            self.mount_subnets = {
                zones.get(i, i) if isinstance(i, str) else str(number): i
                for number, i in enumerate(args.existing.private_subnet_ids)
            }
            self.client_cidr = cidr if isinstance(cidr, str) else UNKNOWN_CIDR
        else:
            self._make()
        self.register_outputs({"vpcId": self.vpc_id})

    def _make(self) -> None:
        args, name = self._args, self._name
        vpc = aws.ec2.Vpc(
            name,
            cidr_block=VPC_CIDR,
            enable_dns_support=True,
            enable_dns_hostnames=True,  # required for Cloud Map's private DNS names and EFS's mount target names
            tags=self._tags(),
            opts=self._child,
        )
        self.vpc_id, self.vpc_cidr, self.client_cidr = vpc.id, vpc.cidr_block, VPC_CIDR
        # Every VPC has a default security group. Resources started without another group get it, so it must allow nothing.
        aws.ec2.DefaultSecurityGroup(
            f"{name}-default", vpc_id=vpc.id, ingress=[], egress=[], tags=self._tags("default"), opts=self._child
        )
        internet = aws.ec2.InternetGateway(f"{name}-internet", vpc_id=vpc.id, tags=self._tags(), opts=self._child)
        public = [
            self._subnet(vpc, f"public-{i}", zone, f"10.64.{i}.0/24")
            for i, zone in enumerate(args.zones[:SERVING_ZONES])
        ]
        self.public_subnet_ids = [subnet.id for subnet in public]
        table = aws.ec2.RouteTable(f"{name}-public", vpc_id=vpc.id, tags=self._tags("public"), opts=self._child)
        route = aws.ec2.Route(
            f"{name}-public",
            route_table_id=table.id,
            destination_cidr_block="0.0.0.0/0",
            gateway_id=internet.id,
            opts=self._child,
        )
        self.public_way = [internet, route, *self._associate("public", table, public)]
        nats = self._nat_gateways(public, internet)
        private = [
            self._subnet(vpc, f"private-{i}", zone, f"10.64.{(i + 1) * 16}.0/20")
            for i, zone in enumerate(args.zones[:GPU_ZONES])
        ]
        self.private_subnet_ids = [subnet.id for subnet in private]
        self.mount_subnets = {str(i): subnet.id for i, subnet in enumerate(private)}
        self.gpu_subnet_ids = self._offering(private)
        tables = [self._private_table(vpc, i, subnet, nats) for i, subnet in enumerate(private)]
        # The endpoint is free, and image layers (stored by ECR in S3) then do not pass the NAT gateway, which bills per GB.
        aws.ec2.VpcEndpoint(
            f"{name}-s3",
            vpc_id=vpc.id,
            service_name=f"com.amazonaws.{args.context.region}.s3",
            vpc_endpoint_type="Gateway",
            route_table_ids=[found.id for found in tables],
            tags=self._tags("s3"),
            opts=self._child,
        )

    def _tags(self, suffix: str = "") -> dict[str, str]:
        return self._args.context.tags("network", f"{self._name}-{suffix}" if suffix else self._name)

    def _subnet(self, vpc: aws.ec2.Vpc, suffix: str, zone: str, cidr_block: str) -> aws.ec2.Subnet:
        return aws.ec2.Subnet(
            f"{self._name}-{suffix}",
            vpc_id=vpc.id,
            cidr_block=cidr_block,
            availability_zone=zone,
            map_public_ip_on_launch=False,
            tags=self._tags(suffix),
            # If AWS later offers the GPU in another zone, the subnets of a running stack must not be replaced.
            opts=pulumi.ResourceOptions(parent=self, ignore_changes=["availabilityZone"]),
        )

    def _associate(
        self, suffix: str, table: aws.ec2.RouteTable, subnets: Sequence[aws.ec2.Subnet]
    ) -> list[pulumi.Resource]:
        return [
            aws.ec2.RouteTableAssociation(
                f"{self._name}-{suffix}-{i}", route_table_id=table.id, subnet_id=subnet.id, opts=self._child
            )
            for i, subnet in enumerate(subnets)
        ]

    def _nat_gateways(
        self, public: Sequence[aws.ec2.Subnet], internet: aws.ec2.InternetGateway
    ) -> list[aws.ec2.NatGateway]:
        count = {NatGateways.NONE: 0, NatGateways.SINGLE: 1, NatGateways.PER_ZONE: SERVING_ZONES}
        found = []
        for i, subnet in enumerate(public[: count[self._args.nat_gateways]]):
            # An internet gateway cannot be detached while public addresses are mapped behind it, so they are deleted first.
            after_internet = pulumi.ResourceOptions(parent=self, depends_on=[internet])
            address = aws.ec2.Eip(
                f"{self._name}-nat-{i}", domain="vpc", tags=self._tags(f"nat-{i}"), opts=after_internet
            )
            found.append(
                aws.ec2.NatGateway(
                    f"{self._name}-nat-{i}",
                    allocation_id=address.id,
                    subnet_id=subnet.id,
                    tags=self._tags(f"nat-{i}"),
                    opts=after_internet,
                )
            )
        return found

    def _private_table(
        self, vpc: aws.ec2.Vpc, i: int, subnet: aws.ec2.Subnet, nats: Sequence[aws.ec2.NatGateway]
    ) -> aws.ec2.RouteTable:
        name = f"{self._name}-private-{i}"
        table = aws.ec2.RouteTable(name, vpc_id=vpc.id, tags=self._tags(f"private-{i}"), opts=self._child)
        aws.ec2.RouteTableAssociation(name, route_table_id=table.id, subnet_id=subnet.id, opts=self._child)
        if nats:
            aws.ec2.Route(
                name,
                route_table_id=table.id,
                destination_cidr_block="0.0.0.0/0",
                nat_gateway_id=nats[i % len(nats)].id,
                opts=self._child,
            )
        return table

    def _offering(self, private: Sequence[aws.ec2.Subnet]) -> pulumi.Output[Sequence[str]]:
        """The private subnets in zones that offer the GPU, by the actual zone of each subnet.

        A stack's subnets cannot move, so after a change of the GPU, none of them may be in a zone that offers it. This is
        rejected at preview, because AWS does not accept an Auto Scaling group without subnets.
        """
        args, offering = self._args, set(self._args.gpu_zones)

        def chosen(found: Sequence[Sequence[str]]) -> list[str]:
            ids = [subnet_id for subnet_id, zone in found if zone in offering]
            if not ids:
                refuse(
                    f"gpu: {', '.join(args.instance_types)}: offered in {', '.join(sorted(offering))}, but the subnets of this "
                    f"stack are in {', '.join(sorted(zone for _, zone in found))} and cannot move. Set gpu (or instanceTypes) to "
                    "one that is offered there, or deploy it as a second stack",
                    args.context.parent,
                )
            return ids

        pairs = pulumi.Output.all(*[pulumi.Output.all(subnet.id, subnet.availability_zone) for subnet in private])
        return pairs.apply(chosen)
