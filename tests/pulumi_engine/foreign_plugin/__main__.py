"""Somebody else's program, with no code of ours: the components come from the plugin, as an SDK of any language gets them."""

import json
from typing import Any

import pulumi
import pulumi_aws as aws
import pulumi_random as random

config = pulumi.Config()


class VllmEndpoint(pulumi.ComponentResource):
    """As much of a generated SDK as this program uses."""

    openaiBaseUrl: pulumi.Output[str]  # noqa: N815 - a generated SDK translates it
    region: pulumi.Output[str]
    details: pulumi.Output[dict[str, Any]]

    def __init__(self, name: str, opts: pulumi.ResourceOptions | None = None, **values: Any) -> None:
        outputs = dict.fromkeys(("openaiBaseUrl", "region", "details"))
        super().__init__("vllm-endpoint:index:VllmEndpoint", name, {**values, **outputs}, opts, remote=True)


vpc = aws.ec2.Vpc("main", cidr_block="10.20.0.0/16", enable_dns_hostnames=True)
internet = aws.ec2.InternetGateway("main", vpc_id=vpc.id)
subnets = [
    aws.ec2.Subnet(f"private-{zone}", vpc_id=vpc.id, cidr_block=f"10.20.{n}.0/24", availability_zone=f"us-east-1{zone}")
    for n, zone in enumerate("ab")
]
zone = aws.route53.Zone("main", name="example.com")
keys = random.RandomPassword("keys", length=40, special=False)
frankfurt = aws.Provider("frankfurt", region="eu-central-1")
image = {"gatewayImage": "registry.example.com/gateway:1"}

arguments: dict[str, Any] = {
    "model": "Qwen/Qwen3-4B-Instruct-2507",
    "gpu": "a10g",
    "scaleDownMinutes": 10,
    "vpcId": vpc.id,
    "subnetIds": [subnet.id for subnet in subnets],
    "domain": "llm.example.com",
    "hostedZoneId": zone.id,
    "apiKeys": keys.result.apply(lambda text: f"team=sk-{text}"),
    "hfToken": pulumi.Output.secret("hf_hidden"),
    **image,
}
changed = json.loads(config.get("arguments") or "{}")  # a test's: {"kmsKeyArn": {"of": "vpcId"}} is an output
arguments |= {key: arguments[value["of"]] if isinstance(value, dict) else value for key, value in changed.items()}
chat = VllmEndpoint("chat", **arguments)
pulumi.export("chatUrl", chat.openaiBaseUrl)
pulumi.export("chat", chat.details)
if config.get_bool("batch") is not False:
    batch = VllmEndpoint(
        "batch", gpu="l4", apiKeys="team=sk-plain", **image, opts=pulumi.ResourceOptions(provider=frankfurt)
    )
    pulumi.export("batchUrl", batch.openaiBaseUrl)
    pulumi.export("batchRegion", batch.region)
