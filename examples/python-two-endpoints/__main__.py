"""A VPC of its own with an endpoint in it, and a second endpoint in another region."""

import sys
from pathlib import Path

import pulumi
import pulumi_aws as aws

# The clone that this example is in. Outside a clone, `pulumi package add REPOSITORY@VERSION` generates an SDK, and the
# component is imported from `pulumi_vllm_endpoint`.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from infra.aws.endpoint import VllmEndpoint

ZONES = ("us-east-1a", "us-east-1b")
DOMAIN = "llm.example.com"
PARENT_DOMAIN = "example.com"

# The network: two private subnets, and one public subnet for the way out.
vpc = aws.ec2.Vpc("main", cidr_block="10.20.0.0/16", enable_dns_hostnames=True)
internet = aws.ec2.InternetGateway("main", vpc_id=vpc.id)
public = aws.ec2.Subnet("public", vpc_id=vpc.id, cidr_block="10.20.0.0/24", availability_zone=ZONES[0])
public_routes = aws.ec2.RouteTable(
    "public", vpc_id=vpc.id, routes=[aws.ec2.RouteTableRouteArgs(cidr_block="0.0.0.0/0", gateway_id=internet.id)]
)
public_association = aws.ec2.RouteTableAssociation("public", subnet_id=public.id, route_table_id=public_routes.id)
nat = aws.ec2.NatGateway(
    "main",
    subnet_id=public.id,
    allocation_id=aws.ec2.Eip("nat", domain="vpc").id,
    opts=pulumi.ResourceOptions(depends_on=[public_association]),
)
private_routes = aws.ec2.RouteTable(
    "private", vpc_id=vpc.id, routes=[aws.ec2.RouteTableRouteArgs(cidr_block="0.0.0.0/0", nat_gateway_id=nat.id)]
)
private = []
for number, name in enumerate(ZONES, start=1):
    subnet = aws.ec2.Subnet(f"private-{name}", vpc_id=vpc.id, cidr_block=f"10.20.{number}.0/24", availability_zone=name)
    aws.ec2.RouteTableAssociation(f"private-{name}", subnet_id=subnet.id, route_table_id=private_routes.id)
    private.append(subnet)
zone = aws.route53.Zone("main", name=PARENT_DOMAIN)

# An internal endpoint in that network, over HTTPS.
chat = VllmEndpoint(
    "chat",
    model="Qwen/Qwen3-4B-Instruct-2507",
    gpu="a10g",
    min_replicas=0,
    vpc_id=vpc.id,
    subnet_ids=[subnet.id for subnet in private],
    domain=DOMAIN,
    hosted_zone_id=zone.id,
    owner="platform",
)

# A second one, in another region and a VPC that it creates.
frankfurt = aws.Provider("frankfurt", region="eu-central-1")
batch = VllmEndpoint(
    "batch",
    model="Qwen/Qwen3-8B",
    gpu="l4",
    scale_down_minutes=15,
    opts=pulumi.ResourceOptions(provider=frankfurt),
)

pulumi.export("chatUrl", chat.openai_base_url)
pulumi.export("batchUrl", batch.openai_base_url)
pulumi.export("chatKeySecret", chat.api_keys_secret_arn)
pulumi.export("usdPerHour", pulumi.Output.all(chat.usd_per_hour_active, batch.usd_per_hour_active).apply(sum))
