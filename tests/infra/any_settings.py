"""Hypothesis strategies for stack settings: every field, mostly with valid values."""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Literal, get_args, get_origin

from hypothesis import strategies as st
from pydantic.alias_generators import to_camel
from pydantic.fields import FieldInfo

from infra.planning.catalog.gpus import known_instance_types
from infra.planning.catalog.models import catalog
from infra.settings import Settings

VPC = {"vpcId": "vpc-0123456789abcdef0"}
CERTIFICATE = "arn:aws:acm:{}:123456789012:certificate/12345678-1234-1234-1234-123456789012"

# Fields whose type is too general to generate realistic values.
TEXTS: dict[str, st.SearchStrategy[Any]] = {
    "model": st.sampled_from([*sorted(catalog()), "acme/unknown"]),
    "model_revision": st.sampled_from(["main", "v1.0", "0123abc"]),
    "weights_file_system_id": st.sampled_from(["fs-0123456789abcdef0", "vol-1"]),
    "served_model_name": st.sampled_from(["chat", "ours/chat-v2", "a b", "chat,gpt-4o", "a,,b", "a,a"]),
    "speculative": st.sampled_from(
        ["ngram", "ngram:8", "mtp:2", "Qwen/Qwen3-0.6B:3", "eagle3:acme/head:3", '{"method": "ngram"}', "{", "fast"]
    ),
    "lora_adapters": st.lists(st.sampled_from(["sql=acme/sql-lora", "legal=/weights/legal", "x", "a b=c"]), max_size=3),
    "engine_args": st.lists(st.sampled_from(["--seed", "1", "--load-format=dummy", "--trust-remote-code"]), max_size=3),
    "engine_environment": st.lists(st.sampled_from(["NCCL_DEBUG=INFO", "A=b=c", "EMPTY=", "NO EQUALS"]), max_size=2),
    "engine_image": st.sampled_from(["example.com/vllm:1", "123456789012.dkr.ecr.us-east-1.amazonaws.com/vllm@sha256:0"]),
    "gateway_image": st.sampled_from(["example.com/gateway:1", "123456789012.dkr.ecr.eu-west-1.amazonaws.com/g:1"]),
    "instance_types": st.lists(st.sampled_from([*sorted(known_instance_types()), "t3.small"]), max_size=3),
    "capacity_reservation_id": st.sampled_from(["cr-0123456789abcdef0"]),
    "api_keys": st.sampled_from(["sk-1", "a=sk-1, b=sk-2", "a=1,a=2", "=", ",", "ключ=sk"]),
    "api_keys_document": st.sampled_from(['{"a": "sk-1"}', '{"a": [{"key": "sk-1", "health": true}, "sk-2"]}', "{", "a=sk-1", '{"a": {"prio": 1}}']),
    "allowed_origins": st.lists(st.sampled_from(["https://app.example.com", "*", "null", "app.example.com"]), max_size=2),
    "gateway_environment": st.lists(
        st.sampled_from(
            ["GATEWAY_MAX_TOKENS=100", "GATEWAY_MAX_TOKENS=x", "GATEWAY_COUNT=2", "TZ=UTC", "NO EQUALS", "OTEL_EXPORTER_OTLP_HEADERS=a=b"]
        ),
        max_size=2,
    ),
    "hf_token": st.sampled_from(["hf_1", " "]),
    "certificate_arn": st.sampled_from([CERTIFICATE.format("us-east-1"), CERTIFICATE.format("eu-west-1"), "arn:aws:s3:::x"]),
    "domain": st.sampled_from(["llm.example.com", "example.com", "LLM.example.com", "x"]),
    "hosted_zone": st.sampled_from(["example.com", "example"]),
    "hosted_zone_id": st.sampled_from(["Z0123456789", "example.com"]),
    "allowed_security_group_ids": st.lists(st.sampled_from(["sg-0123456789abcdef0", "group"]), max_size=2),
    "allowed_cidrs": st.lists(
        st.sampled_from(["203.0.113.0/24", "10.0.0.0/8", "2001:db8::/32", "0.0.0.0/0", "::/0", "999.1.1.1/99", "x"]),
        max_size=3,
    ),
    "vpc_id": st.sampled_from(["vpc-1", "vpc"]),
    "subnet_ids": st.lists(st.sampled_from(["subnet-a", "subnet-b", "subnet-c", "subnet-x", "net"]), max_size=4),
    "load_balancer_subnet_ids": st.lists(st.sampled_from(["subnet-a", "subnet-b", "subnet-x"]), max_size=3),
    "results_bucket": st.sampled_from(["acme-results", "No_Bucket"]),
    "media_hosts": st.lists(st.sampled_from(["media.internal", "10.0.0.7", "a b"]), max_size=2),
    "hub_endpoint": st.sampled_from(["https://hf-mirror.example", "http://hub.internal:8081", "mirror", "https://u:p@h"]),
    "base_model": st.sampled_from(["Qwen/Qwen3-8B", "acme/unknown", "two words"]),
    "reasoning_parser": st.sampled_from(["qwen3", "none", "deepseek-r1", "Bad Parser"]),
    "tokenizer_mode": st.sampled_from(["hf", "mistral", "none", "slow"]),
    "tool_call_parser": st.sampled_from(["hermes", "none", "Bad Parser"]),
    "kubernetes_namespace": st.sampled_from(["llm", "-llm"]),
    "kubernetes_ingress_class": st.sampled_from(["nginx"]),
    "kubernetes_storage_class": st.sampled_from(["efs"]),
    "alarm_email": st.sampled_from(["ops@example.com", "ops"]),
    "docker_hub_credentials_arn": st.sampled_from(
        ["arn:aws:secretsmanager:us-east-1:123456789012:secret:ecr-pullthroughcache/hub-AbCdEf", "hub"]
    ),
    "kms_key_arn": st.sampled_from(["arn:aws:kms:us-east-1:123456789012:key/1234abcd", "alias/ours"]),
    "owner": st.sampled_from(["ml", "x" * 200, "équipe"]),
    "fast_boot": st.sampled_from([True, "false", "eager", "maybe"]),
}  # fmt: skip
# Fields that are only valid together.
MODELS: list[dict[str, Any]] = [
    {},
    {"model": "Qwen/Qwen3-8B-AWQ", "gpu": "l4"},
    {"model": "Qwen/Qwen3-32B-FP8", "gpu": "h100"},
    {"model": "Qwen/Qwen3-32B-FP8", "gpu": "l40s", "gpuCount": 4, "maxModelLen": 32768},
    {"model": "Qwen/Qwen2.5-VL-72B-Instruct", "gpu": "h200", "gpuCount": 8, "imageLimit": 4, "scaleDownMinutes": 30},
    {"model": "tiiuae/falcon-7b-instruct", "maxModelLen": 0},
    {"model": "mistralai/Mixtral-8x7B-Instruct-v0.1", "gpu": "a100", "gpuCount": 4},
    {"model": "Qwen/Qwen3-4B", "gpu": "h200", "gpuCount": 8, "dataParallelSize": 8, "quantization": "auto"},
    {"loraAdapters": ["sql=acme/sql-lora", "legal=acme/legal"], "maxLoraRank": 64},
]
NETWORKS: list[dict[str, Any]] = [
    {},
    VPC | {"subnetIds": ["subnet-a", "subnet-b"]},
    VPC | {"subnetIds": ["subnet-b", "subnet-d"], "loadBalancerSubnetIds": ["subnet-a", "subnet-c"], "natGateways": "none"},
    {"natGateways": "per-zone"},
]  # fmt: skip
CAPACITIES: list[dict[str, Any]] = [
    {},
    {"maxReplicas": 4},
    {"minReplicas": 2, "maxReplicas": 2},
    {"capacity": "spot", "maxReplicas": 3},
    {"capacity": "reservation", "capacityReservationId": "cr-0123456789abcdef0"},
    {"warmPool": 2, "maxReplicas": 3, "minReplicas": 1},
]
DOORS: list[dict[str, Any]] = [
    {},
    {"domain": "llm.example.com"},
    {"certificateArn": CERTIFICATE.format("us-east-1"), "allowedCidrs": ["203.0.113.0/24"], "port": 8443},
    {"gatewayCount": 3, "gatewayCpu": 1024, "gatewayMemoryMib": 4096},
]


def strategy(name: str, field: FieldInfo) -> st.SearchStrategy[Any]:
    """Values of one field: within its type and bounds, and sometimes slightly outside."""
    if name in TEXTS:
        return TEXTS[name]
    kind = field.annotation
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        return st.sampled_from([*kind, "other"])
    if get_origin(kind) is Literal:
        return st.sampled_from([*get_args(kind), 3])
    if kind is bool:
        return st.booleans()
    bounds = {
        type(m).__name__: getattr(m, type(m).__name__.lower())
        for m in field.metadata
        if type(m).__name__ in ("Ge", "Le")
    }
    if kind is int:
        low, high = bounds.get("Ge", 0), min(bounds.get("Le", 5000), 5000)
        return st.one_of(st.integers(low, high), st.sampled_from([low, high, low - 1]))
    if kind is float:
        return st.floats(bounds["Ge"], bounds["Le"])
    raise AssertionError(f"{name}: say in TEXTS what people write there")


FIELDS = {to_camel(name): strategy(name, field) for name, field in Settings.model_fields.items()}


@st.composite
def any_settings(draw: st.DrawFn) -> dict[str, Any]:
    """Changes to a stack file: groups of related fields, then up to three single fields."""
    values: dict[str, Any] = {}
    for together in (MODELS, NETWORKS, CAPACITIES, DOORS):
        values |= draw(st.sampled_from(together))
    for key in draw(st.lists(st.sampled_from(sorted(FIELDS)), max_size=3, unique=True)):
        values[key] = draw(FIELDS[key])
    return values
