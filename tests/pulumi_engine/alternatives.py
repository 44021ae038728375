"""For every setting another value that it may be given on a deployed stack, and the stacks that this is tried on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

ACCOUNT = "123456789012"
REGISTRY = f"{ACCOUNT}.dkr.ecr.us-east-1.amazonaws.com"
CERTIFICATE = f"arn:aws:acm:us-east-1:{ACCOUNT}:certificate/12345678-1234-1234-1234-123456789012"
KMS_KEY = f"arn:aws:kms:us-east-1:{ACCOUNT}:key/12345678-1234-1234-1234-123456789012"
FILE_SYSTEM = "fs-0123456789abcdef0"
HUB_LOGIN = f"arn:aws:secretsmanager:us-east-1:{ACCOUNT}:secret:ecr-pullthroughcache/hub-AbCdEf"

# A stack's name in the table -> what it says beside Pulumi.dev.yaml.
STACKS: dict[str, dict[str, Any]] = {
    "dev": {},
    "domain": {"domain": "llm.example.com"},
    "vpc": {
        "vpcId": "vpc-0123456789abcdef0",
        "subnetIds": ["subnet-a", "subnet-b"],
        "loadBalancerSubnetIds": ["subnet-public-a", "subnet-public-b"],
        "allowedCidrs": ["203.0.113.0/24"],
    },
}


@dataclass(frozen=True)
class Alternative:
    """Another value of a setting.

    Attributes:
        value: what it is changed to, and back from.
        with_it: what must change together with it.
        given: what the stack says besides, before and after: without it the setting has no effect.
        planted: what the cloud holds besides: id -> kind and inputs.
        stacks: where it is tried.
    """

    value: Any
    with_it: Mapping[str, Any] = field(default_factory=dict)
    given: Mapping[str, Any] = field(default_factory=dict)
    planted: Mapping[str, dict[str, Any]] = field(default_factory=dict)
    stacks: tuple[str, ...] = tuple(STACKS)

    def change(self, key: str) -> dict[str, Any]:
        """Every setting that changes."""
        return {key: self.value, **self.with_it}


PICTURES = {"model": "Qwen/Qwen2.5-VL-7B-Instruct", "gpu": "l40s"}
RESERVED = {"capacity": "reservation", "capacityReservationId": "cr-0123456789abcdef0"}

# Of a key with two, the second is for the stacks that the first leaves out.
ALTERNATIVES: dict[str, tuple[Alternative, ...]] = {
    "model": (Alternative("Qwen/Qwen3-1.7B"),),
    "modelRevision": (Alternative("cdbee75f17c01a7cc42f958dc650907174af0554"),),
    "servedModelName": (Alternative("assistant"),),
    "maxModelLen": (Alternative(8192),),
    "quantization": (Alternative("fp8"),),
    "kvCacheDtype": (Alternative("bfloat16"),),
    "speculative": (Alternative("ngram:3"),),
    "enablePrefixCaching": (Alternative(False),),
    "performanceMode": (Alternative("throughput"),),
    "loraAdapters": (Alternative(["sql=example/sql-lora"]),),
    "maxLoraRank": (Alternative(32, given={"loraAdapters": ["sql=example/sql-lora"]}),),
    "imageLimit": (Alternative(2, given=PICTURES),),
    "videoLimit": (Alternative(0, given=PICTURES),),
    "mediaHosts": (Alternative(["images.corp.internal"], given=PICTURES),),
    "hubEndpoint": (Alternative("https://hf-mirror.example"),),
    "reasoningParser": (Alternative("qwen3"),),
    "toolCallParser": (Alternative("none"),),
    "tokenizerMode": (Alternative("hf"),),
    "baseModel": (Alternative("Qwen/Qwen3-4B-Instruct-2507"),),
    "gpuMemoryUtilization": (Alternative(0.9),),
    "maxNumSeqs": (Alternative(64),),
    "maxNumBatchedTokens": (Alternative(4096),),
    "fastBoot": (Alternative("eager"),),
    "engineArgs": (Alternative(["--seed=1"]),),
    "engineEnvironment": (Alternative(["VLLM_LOGGING_LEVEL=DEBUG"]),),
    "engineImage": (Alternative(f"{REGISTRY}/ours/engine:1.2"),),
    "dockerHubCredentialsArn": (Alternative(HUB_LOGIN),),
    "target": (Alternative("kubernetes"),),
    "gpu": (Alternative("l4"),),
    "gpuCount": (Alternative(4),),
    "dataParallelSize": (Alternative(4, given={"gpuCount": 4}),),
    "instanceTypes": (Alternative(["g5.2xlarge"]),),
    "capacity": (Alternative("spot"),),
    "capacityReservationId": (Alternative("cr-0fedcba9876543210", given=RESERVED),),
    "warmPool": (Alternative(1),),
    "sharedMemoryGib": (Alternative(4),),
    "weightsThroughput": (Alternative("elastic"),),
    "weightsFileSystemId": (
        Alternative(FILE_SYSTEM, planted={FILE_SYSTEM: {"kind": "FileSystem", "encrypted": True}}),
    ),
    "minReplicas": (Alternative(1),),
    "maxReplicas": (Alternative(2),),
    "scaleDownMinutes": (Alternative(30),),
    "startupTimeoutMinutes": (Alternative(30),),
    "scaleOutCooldownMinutes": (Alternative(15, given={"maxReplicas": 2}),),
    "concurrencyPerReplica": (Alternative(32),),
    "gatewayImage": (Alternative(f"{REGISTRY}/ours/gateway:1.2"),),
    "gatewayCount": (Alternative(2),),
    "gatewayCpu": (Alternative(1024, given={"gatewayMemoryMib": 2048}),),
    "gatewayMemoryMib": (Alternative(2048),),
    "port": (Alternative(8443),),
    "allowedOrigins": (Alternative(["https://app.example.com"]),),
    "gatewayEnvironment": (Alternative(["GATEWAY_MAX_TOKENS=4096"]),),
    "apiKeys": (Alternative("alice=sk-alice-1,bob=sk-bob-2"),),
    "apiKeysDocument": (Alternative('{"alice": {"key": "sk-alice-1", "priority": 5}}'),),
    "hfToken": (Alternative("hf_alternative"),),
    "certificateArn": (Alternative(CERTIFICATE),),
    "domain": (Alternative("chat.example.com"),),
    "hostedZone": (
        Alternative("example.com", given={"domain": "llm.eu.example.com"}, stacks=("domain",)),
        Alternative("example.com", with_it={"domain": "llm.eu.example.com"}, stacks=("dev", "vpc")),
    ),
    "hostedZoneId": (
        Alternative("Z0OTHERZONE", stacks=("domain",)),
        Alternative("Z0OTHERZONE", with_it={"domain": "llm.example.com"}, stacks=("dev", "vpc")),
    ),
    "allowedSecurityGroupIds": (Alternative(["sg-0123456789abcdef0"], stacks=("vpc",)),),
    "allowedCidrs": (Alternative(["198.51.100.0/24"]),),
    "allowHttpFromAnywhere": (Alternative(True),),
    "wafRequestsPerFiveMinutes": (Alternative(500),),
    "accessLogs": (Alternative(True),),
    "vpcId": (
        Alternative("vpc-0123456789abcdef0", with_it={"subnetIds": ["subnet-a", "subnet-b"]}, stacks=("dev", "domain")),
        Alternative(
            "vpc-0fedcba9876543210",
            with_it={
                "subnetIds": ["subnet-c", "subnet-d"],
                "loadBalancerSubnetIds": ["subnet-public-c", "subnet-public-d"],
            },
            stacks=("vpc",),
        ),
    ),
    "subnetIds": (Alternative(["subnet-a", "subnet-b", "subnet-c"], stacks=("vpc",)),),
    "loadBalancerSubnetIds": (Alternative(["subnet-public-a", "subnet-public-b", "subnet-public-c"], stacks=("vpc",)),),
    "natGateways": (Alternative("per-zone"),),
    "flowLogs": (Alternative("all"),),
    "kubernetesNamespace": (Alternative("inference"),),
    "kubernetesIngressClass": (Alternative("nginx"),),
    "kubernetesStorageClass": (Alternative("efs"),),
    "dashboard": (Alternative(False),),
    "kmsKeyArn": (Alternative(KMS_KEY),),
    "logRetentionDays": (Alternative(90),),
    "ttlHours": (Alternative(12),),
    "monthlyBudgetUsd": (Alternative(500, given={"alarmEmail": "ops@example.com"}),),
    "alarmEmail": (Alternative("ops@example.com"),),
    "owner": (Alternative("platform"),),
    "protect": (Alternative(True),),
    "resultsBucket": (Alternative("example-results"),),
    "verifyMaxSlowdownPercent": (Alternative(20),),
    "verifyMaxTailSlowdownPercent": (Alternative(40),),
    "verifyMaxCostIncreasePercent": (Alternative(20),),
    "verifyMaxColdStartSlowdownPercent": (Alternative(40),),
    "verifyMaxSuccessRateDropPercent": (Alternative(2),),
}


@dataclass(frozen=True)
class Loss:
    """What a change of a setting may replace or delete, and why it must."""

    kinds: frozenset[str]
    reason: str


SCHEME = Loss(
    frozenset({"load balancer"}),
    "where it makes an internal load balancer public, or a public one internal: AWS cannot change a load balancer's scheme",
)
# Settings that replace or delete a load balancer, file system, access point, secret or service.
JUSTIFIED: dict[str, Loss] = {
    "domain": SCHEME,
    "certificateArn": SCHEME,
    "hostedZone": SCHEME,
    "hostedZoneId": SCHEME,
    "allowedCidrs": SCHEME,
    "kmsKeyArn": Loss(
        frozenset({"file system", "access point"}), "AWS cannot encrypt a file system with another key than its first"
    ),
    "weightsFileSystemId": Loss(
        frozenset({"file system", "access point"}),
        "where another file system is adopted, the stack's own goes with the weights on it, unless `protect` keeps it",
    ),
    "hfToken": Loss(frozenset({"secret"}), "where it is removed, its secret goes with it"),
}


def alternative(key: str, stack: str) -> Alternative | None:
    """The other value of a setting on a stack; None where it cannot be set there."""
    return next((found for found in ALTERNATIVES[key] if stack in found.stacks), None)
