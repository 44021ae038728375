"""Somebody else's program: a VPC and a DNS zone of its own, an endpoint in each of two regions."""

import os
import sys

import pulumi
import pulumi_aws as aws
import pulumi_random as random

sys.path.insert(0, os.environ["SCENE_ROOT"])

from infra.aws.endpoint import VllmEndpoint

config = pulumi.Config()
vpc = aws.ec2.Vpc("main", cidr_block="10.20.0.0/16", enable_dns_hostnames=True)
internet = aws.ec2.InternetGateway("main", vpc_id=vpc.id)
subnets = [
    aws.ec2.Subnet(f"private-{zone}", vpc_id=vpc.id, cidr_block=f"10.20.{n}.0/24", availability_zone=f"us-east-1{zone}")
    for n, zone in enumerate("ab")
]
zone = aws.route53.Zone("main", name="example.com")
office = aws.ec2.SecurityGroup("office", vpc_id=vpc.id)
keys = random.RandomPassword("keys", length=40, special=False)
frankfurt = aws.Provider(  # in another account
    "frankfurt",
    region="eu-central-1",
    assume_roles=[aws.ProviderAssumeRoleArgs(role_arn="arn:aws:iam::210987654321:role/deploy")],
)

chat = VllmEndpoint(
    "chat",
    model="Qwen/Qwen3-4B-Instruct-2507",
    gpu="a10g",
    scale_down_minutes=config.get_int("scaleDownMinutes") or 10,
    vpc_id=vpc.id,
    subnet_ids=[subnet.id for subnet in subnets],
    domain="llm.example.com",
    hosted_zone_id=zone.id,
    allowed_security_group_ids=[office.id],
    api_keys=keys.result.apply(lambda text: f"team=sk-{text}"),
    gateway_image="registry.example.com/gateway:1",
    protect=config.get_bool("protect") or False,
)
pulumi.export("chatUrl", chat.openai_base_url)
pulumi.export("chatKeySecret", chat.api_keys_secret_arn)
pulumi.export("chat", chat.details)
if config.get_bool("batch") is not False:
    batch = VllmEndpoint(
        "batch",
        {"model": "Qwen/Qwen3-4B-Instruct-2507", "gpu": "l4"},
        opts=pulumi.ResourceOptions(provider=frankfurt),
        gateway_image="registry.example.com/gateway:1",
    )
    pulumi.export("batchUrl", batch.openai_base_url)
    pulumi.export("batchRegion", batch.region)
