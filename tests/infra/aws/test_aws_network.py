"""The network: public and private subnets, and allowed connections."""

from typing import Any

import pytest

from infra.aws.context import Context
from infra.aws.network import Network, NetworkArgs
from infra.aws.security_groups import SecurityGroups, SecurityGroupsArgs
from infra.identity import Identity
from infra.settings import NatGateways
from tests.infra.program import Program, Registered, run_program

CONTEXT = Context(Identity("dev"), "us-east-1", "123456789012", "aws")


@pytest.fixture
def dev() -> Program:
    return run_program("dev")


def test_private_subnets_lie_first_where_the_gpu_is_offered(dev: Program) -> None:
    subnets = [(s.name, s.inputs["availabilityZone"], s.inputs["cidrBlock"]) for s in dev.all("Subnet")]
    assert sorted(subnets) == [
        ("vllm-dev-network-private-0", "us-east-1b", "10.64.16.0/20"),
        ("vllm-dev-network-private-1", "us-east-1d", "10.64.32.0/20"),
        ("vllm-dev-network-private-2", "us-east-1a", "10.64.48.0/20"),
        ("vllm-dev-network-public-0", "us-east-1b", "10.64.0.0/24"),
        ("vllm-dev-network-public-1", "us-east-1d", "10.64.1.0/24"),
    ]
    for subnet in dev.all("Subnet"):
        assert subnet.inputs["mapPublicIpOnLaunch"] is False
        assert subnet.ignore_changes == ("availabilityZone",)


def test_gpu_instances_start_only_where_their_type_is_offered(dev: Program) -> None:
    assert dev.one("Group").inputs["vpcZoneIdentifiers"] == [
        "vllm-dev-network-private-0-id",
        "vllm-dev-network-private-1-id",
    ]


def test_names_resolve_inside_the_vpc(dev: Program) -> None:
    vpc = dev.one("Vpc").inputs
    assert (vpc["enableDnsSupport"], vpc["enableDnsHostnames"], vpc["cidrBlock"]) == (True, True, "10.64.0.0/16")


def routes(program: Program) -> dict[str, tuple[str | None, str | None]]:
    """By name: (internet gateway, NAT gateway) that everything unknown goes to."""
    found = {}
    for route in program.all("Route"):
        assert route.inputs["destinationCidrBlock"] == "0.0.0.0/0"
        assert route.inputs["routeTableId"] == f"{route.name}-id"
        found[route.name] = (route.inputs.get("gatewayId"), route.inputs.get("natGatewayId"))
    return found


def test_only_public_subnets_reach_the_internet_directly(dev: Program) -> None:
    nat = (None, "vllm-dev-network-nat-0-id")
    assert routes(dev) == {
        "vllm-dev-network-public": ("vllm-dev-network-internet-id", None),
        "vllm-dev-network-private-0": nat,
        "vllm-dev-network-private-1": nat,
        "vllm-dev-network-private-2": nat,
    }
    tables = {r.inputs["subnetId"]: r.inputs["routeTableId"] for r in dev.all("RouteTableAssociation")}
    assert tables == {
        "vllm-dev-network-public-0-id": "vllm-dev-network-public-id",
        "vllm-dev-network-public-1-id": "vllm-dev-network-public-id",
        **{f"vllm-dev-network-private-{i}-id": f"vllm-dev-network-private-{i}-id" for i in range(3)},
    }
    (gateway,) = dev.all("NatGateway")
    assert gateway.inputs["subnetId"] == "vllm-dev-network-public-0-id"


def test_a_nat_gateway_a_zone() -> None:
    prod = run_program("prod")
    assert [n.inputs["subnetId"] for n in prod.all("NatGateway")] == [
        f"vllm-prod-network-public-{i}-id" for i in (0, 1)
    ]
    private = {name: nat for name, (_, nat) in routes(prod).items() if nat}
    assert private == {
        "vllm-prod-network-private-0": "vllm-prod-network-nat-0-id",
        "vllm-prod-network-private-1": "vllm-prod-network-nat-1-id",
        "vllm-prod-network-private-2": "vllm-prod-network-nat-0-id",
    }


def test_public_addresses_go_before_the_internet_gateway_is_detached(dev: Program) -> None:
    """AWS does not detach an internet gateway with mapped public addresses."""
    internet = dev.one("InternetGateway")
    for kind in ("Eip", "NatGateway"):
        assert internet.urn in dev.one(kind).depends_on


def test_s3_is_reached_without_the_nat_gateway(dev: Program) -> None:
    endpoint = dev.one("VpcEndpoint").inputs
    assert (endpoint["serviceName"], endpoint["vpcEndpointType"]) == ("com.amazonaws.us-east-1.s3", "Gateway")
    assert endpoint["routeTableIds"] == [f"vllm-dev-network-private-{i}-id" for i in range(3)]


def test_the_default_security_group_is_closed(dev: Program) -> None:
    group = dev.one("DefaultSecurityGroup").inputs
    assert group.get("ingress", []) == group.get("egress", []) == []


def test_an_existing_network_is_used_and_nothing_is_made_in_it() -> None:
    program = run_program(
        "dev", vpcId="vpc-1", subnetIds=["subnet-a", "subnet-b"], loadBalancerSubnetIds=["subnet-c", "subnet-d"],
        allowedCidrs=["203.0.113.0/24"],
    )  # fmt: skip
    for kind in ("Vpc", "Subnet", "NatGateway", "RouteTable", "VpcEndpoint", "InternetGateway"):
        assert program.all(kind) == []
    assert program.one("LoadBalancer").inputs["subnets"] == ["subnet-c", "subnet-d"]
    assert program.one("LoadBalancer").inputs["internal"] is False
    assert program.one("Group").inputs["vpcZoneIdentifiers"] == ["subnet-b"]  # only there is the GPU offered
    assert sorted(t.inputs["subnetId"] for t in program.all("MountTarget")) == ["subnet-a", "subnet-b"]
    assert {g.inputs["vpcId"] for g in program.all("SecurityGroup")} == {"vpc-1"}


def test_inside_an_existing_network_the_load_balancer_is_internal() -> None:
    program = run_program("dev", vpcId="vpc-1", subnetIds=["subnet-a", "subnet-b"])
    balancer = program.one("LoadBalancer").inputs
    assert (balancer["internal"], balancer["subnets"]) == (True, ["subnet-a", "subnet-b"])
    assert rules(program)["vllm-dev-sg-load-balancer"] == {(80, "172.31.0.0/16")}
    assert "loadBalancerSubnetIds" in program.outputs["howToOpen"]["before"]


def rules(program: Program, direction: str = "Ingress") -> dict[str, set[tuple[int, str]]]:
    """By group: (port, peer) of every rule; a rule with a range of ports or another protocol fails."""
    groups = {f"{g.name}-id": g.name for g in program.all("SecurityGroup")}
    found: dict[str, set[tuple[int, str]]] = {name: set() for name in groups.values()}
    for rule in program.all(f"SecurityGroup{direction}Rule"):
        inputs = rule.inputs
        assert (inputs["fromPort"], inputs["ipProtocol"]) == (inputs["toPort"], "tcp")
        peer = groups.get(inputs.get("referencedSecurityGroupId", ""), "")
        found[groups[inputs["securityGroupId"]]].add(
            (inputs["fromPort"], peer or inputs.get("cidrIpv4") or inputs["cidrIpv6"])
        )
    return found


def test_each_part_is_reached_from_the_one_before_it_alone(dev: Program) -> None:
    assert rules(dev) == {
        "vllm-dev-sg-load-balancer": {(80, "10.64.0.0/16")},
        "vllm-dev-sg-gateway": {(8080, "vllm-dev-sg-load-balancer")},
        "vllm-dev-sg-engine": {(8000, "vllm-dev-sg-gateway")},
        "vllm-dev-sg-weights": {(2049, "vllm-dev-sg-engine")},
        "vllm-dev-sg-instance": set(),
    }


def test_each_part_reaches_only_what_it_needs(dev: Program) -> None:
    internet = (443, "0.0.0.0/0")
    assert rules(dev, "Egress") == {
        "vllm-dev-sg-load-balancer": {(8080, "vllm-dev-sg-gateway")},
        "vllm-dev-sg-gateway": {(8000, "vllm-dev-sg-engine"), internet},
        "vllm-dev-sg-engine": {(2049, "vllm-dev-sg-weights"), internet},
        "vllm-dev-sg-weights": set(),
        "vllm-dev-sg-instance": {internet},
    }


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"allowedCidrs": ["203.0.113.0/24", "2001:db8::/32"]}, {(80, "203.0.113.0/24"), (80, "2001:db8::/32")}),
        ({"domain": "llm.example.com"}, {(443, "0.0.0.0/0"), (80, "0.0.0.0/0")}),
        ({"domain": "llm.example.com", "allowedCidrs": ["203.0.113.0/24"]}, {(443, "203.0.113.0/24"), (80, "203.0.113.0/24")}),
        ({"allowedCidrs": ["203.0.113.0/24"], "port": 8443}, {(8443, "203.0.113.0/24")}),
    ],
)  # fmt: skip
def test_clients_come_from_named_networks_or_over_https(values: dict[str, Any], expected: set[tuple[int, str]]) -> None:
    assert rules(run_program("dev", **values))["vllm-dev-sg-load-balancer"] == expected


def groups_of(resource: Registered) -> list[str]:
    configuration = resource.inputs.get("networkConfiguration") or resource.inputs
    return list(configuration.get("securityGroups") or configuration["vpcSecurityGroupIds"])


def test_every_network_interface_is_in_the_group_of_its_part(dev: Program) -> None:
    assert groups_of(dev.one("LoadBalancer")) == ["vllm-dev-sg-load-balancer-id"]
    assert groups_of(dev.one("aws:ecs/service:Service", "gateway")) == ["vllm-dev-sg-gateway-id"]
    assert groups_of(dev.one("aws:ecs/service:Service", "engine")) == ["vllm-dev-sg-engine-id"]
    assert groups_of(dev.one("LaunchTemplate")) == ["vllm-dev-sg-instance-id"]
    assert {tuple(groups_of(t)) for t in dev.all("MountTarget")} == {("vllm-dev-sg-weights-id",)}
    for service in dev.all("aws:ecs/service:Service"):
        assert service.inputs["networkConfiguration"]["assignPublicIp"] is False
        assert all("private" in subnet for subnet in service.inputs["networkConfiguration"]["subnets"])


def test_guards() -> None:
    with pytest.raises(ValueError, match="needs 2 zones"):
        Network("n", NetworkArgs(CONTEXT, ("us-east-1a",), (), NatGateways.SINGLE))
    with pytest.raises(ValueError, match="no client could connect"):
        SecurityGroups("s", SecurityGroupsArgs(CONTEXT, "vpc-1", (80,), {}, 8080, 8000))
