"""Typed, validated stack configuration: the single definition of the config keys.

Keys are camelCase in ``Pulumi.<stack>.yaml`` (``vllm-endpoint:maxModelLen``) and snake_case here.
Pulumi.yaml must declare a default for every key, so an unset value is written as ``""``, ``0`` or ``[]`` and means that
the plan decides.
"""

from __future__ import annotations

import ipaddress
import json
import re
import unicodedata
from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationInfo,
    field_validator,
)
from pydantic.alias_generators import to_camel

from image.engine.s3 import S3Address, is_in_s3, parse_address
from image.gateway import keys_document
from image.gateway.cors import parse_origins
from infra.engine_options import number
from infra.inputs import Input, is_output
from infra.web_address import AddressError
from infra.web_address import parse as parse_web_address

PROJECT = "vllm-endpoint"
_HOST = r"[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)"
IMAGE = (
    rf"^$|^((?:{_HOST}+|localhost)(?::\d+)?/|[A-Za-z0-9-]+:\d+/)?"
    r"[a-z0-9]+(?:[._/-]+[a-z0-9]+)*(?::\w[\w.-]*)?(?:@sha256:[0-9a-f]+)?$"
)
"""A container image's name: registry, repository, tag, digest."""


class Gpu(StrEnum):
    """GPU classes that are available on AWS and supported by vLLM."""

    T4 = "t4"
    A10G = "a10g"
    L4 = "l4"
    L40S = "l40s"
    RTX_PRO_4500 = "rtx-pro-4500"
    RTX_PRO_6000 = "rtx-pro-6000"
    A100 = "a100"
    H100 = "h100"
    H200 = "h200"
    B200 = "b200"
    B300 = "b300"


class Target(StrEnum):
    """The platform that the plan is deployed to."""

    ECS = "ecs"
    KUBERNETES = "kubernetes"


class PurchaseOption(StrEnum):
    """How GPU instances are purchased."""

    ON_DEMAND = "on-demand"
    SPOT = "spot"
    RESERVATION = "reservation"
    CAPACITY_BLOCK = "capacity-block"

    @property
    def reserved(self) -> bool:
        """Whether a capacity reservation's id is required."""
        return self in (PurchaseOption.RESERVATION, PurchaseOption.CAPACITY_BLOCK)


class FastBoot(StrEnum):
    """How engine startup is shortened."""

    COMPILE_CACHE = "true"
    OFF = "false"
    EAGER = "eager"


class NatGateways(StrEnum):
    """How private subnets reach the internet in a network that the stack creates."""

    NONE = "none"
    SINGLE = "single"
    PER_ZONE = "per-zone"


class FlowLogs(StrEnum):
    """Which connections are logged in a network that the stack creates."""

    NONE = "none"
    REJECT = "reject"
    ALL = "all"


class WeightsThroughput(StrEnum):
    """The throughput mode of EFS, which decides how reads are billed."""

    BURSTING = "bursting"
    ELASTIC = "elastic"


def _lower(value: object) -> object:
    # YAML parses `fastBoot: true` as a boolean; Pulumi passes the same value as the string "true".
    return str(value).strip().lower() if isinstance(value, bool | str) else value


def _json_text(value: object) -> object:
    # YAML parses a JSON object; Pulumi passes its text.
    return json.dumps(value) if isinstance(value, dict) else value


def _digits(value: object) -> object:
    # Pulumi passes numbers as strings, which a Literal does not convert.
    return int(value) if isinstance(value, str) and value.isdecimal() else value


def _key_pairs(value: object) -> object:
    if not isinstance(value, str):
        return value
    pairs: dict[str, str] = {}
    for item in filter(None, (part.strip() for part in value.split(","))):
        name, separator, key = item.partition("=")
        name, key = (name.strip(), key.strip()) if separator else ("default", item)
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", name) or not key:
            raise ValueError("each entry must be name=key or a bare key, separated by commas")
        if name in pairs:
            raise ValueError(f"the name {name} is duplicated")
        pairs[name] = key
    if value.strip() and not pairs:
        raise ValueError("contains no key; each entry must be name=key or a bare key, separated by commas")
    return pairs


def _stripped(value: object) -> object:
    # A token piped from a file ends in a newline, which is not allowed in an HTTP header.
    return value.strip() if isinstance(value, str) else value


# A request that arrives while nothing runs is held for as long, and the load balancer closes an idle connection after 4,000 s.
LONGEST_STARTUP_TIMEOUT_MINUTES = 55


def _startup_minutes(value: int) -> int:
    if value == 1:
        raise ValueError("is too short for any cold start; set 2 to 55, or 0 to let the plan decide")
    return value


def _printable(value: str) -> str:
    if not value.isprintable():
        raise ValueError("contains a line break or another character that cannot be printed; remove it")
    return value


def _names(value: str) -> str:
    names = [part.strip() for part in value.split(",")]
    if value and not all(names):
        raise ValueError("has an empty name; separate names by single commas")
    if len(set(names)) < len(names):
        raise ValueError("contains a duplicate name")
    if any(name.startswith("-") for name in names):
        raise ValueError("has a name that begins with a hyphen, which vLLM reads as an argument")
    return ",".join(names)


def _origins(value: tuple[str, ...]) -> tuple[str, ...]:
    return parse_origins(",".join(value)) if value else ()


# The maximum size of a secret in Secrets Manager.
_LONGEST_SECRET_BYTES = 65_536


def _keys_document(value: SecretStr) -> SecretStr:
    text = value.get_secret_value()
    if text:
        try:
            keys_document.parse(text)
        except keys_document.KeysError as error:
            raise ValueError(f"{'; '.join(error.problems)}, as docs/keys.md describes") from None
        if text.startswith("["):
            raise ValueError("is a JSON list; write an object of names and keys, as docs/keys.md describes")
        if len(text.encode()) > _LONGEST_SECRET_BYTES:
            raise ValueError(f"is longer than the {_LONGEST_SECRET_BYTES:,} bytes of a secret")
    return value


def _network_address(value: str) -> str:
    try:
        network = ipaddress.ip_network(value, strict=False)
    except ValueError:
        raise ValueError("which is not a network; use CIDR notation, such as 203.0.113.0/24") from None
    if network.network_address != ipaddress.ip_address(value.partition("/")[0]):
        raise ValueError(
            f"which is an address within a network; use {network}, or a single address with /{network.max_prefixlen}"
        )
    return value


def _tag_value(value: str) -> str:
    # The characters that every AWS service accepts in a tag; IAM rejects others halfway through a deploy.
    wrong = sorted({c for c in value if unicodedata.category(c)[0] not in "LNZ" and c not in "_.:/=+-@"})
    if wrong:
        raise ValueError(f"with {' '.join(wrong)}; AWS tags allow letters, digits, spaces and _ . : / = + - @")
    return value


def _model(value: str) -> str:
    if is_in_s3(value):
        try:
            parse_address(value)
        except ValueError as error:
            raise ValueError(f"which {error}") from None
        return value.rstrip("/")
    if "://" in value:
        raise ValueError("which is not supported; set a Hub id, s3://BUCKET/PREFIX, or a path in engineImage")
    return value


def _hub_endpoint(value: str) -> str:
    if not value:
        return ""
    try:
        address = parse_web_address(value)
    except AddressError:
        raise ValueError("which is not an http or https URL") from None
    if address.user:
        raise ValueError("which contains a user name or password; set hfToken instead")
    return address.url


Keys = Annotated[dict[str, SecretStr], BeforeValidator(_key_pairs)]
Words = Annotated[str, BeforeValidator(_stripped)]
Text = Annotated[Words, AfterValidator(_printable)]
Image = Annotated[Text, Field(pattern=IMAGE)]
Cidr = Annotated[
    str, Field(pattern=r"^(\d{1,3}\.){3}\d{1,3}/\d{1,2}$|^[0-9a-fA-F:]+/\d{1,3}$"), AfterValidator(_network_address)
]
LogRetentionDays = Annotated[
    Literal[1, 3, 5, 7, 14, 30, 60, 90, 120, 180, 365, 400, 731, 1827], BeforeValidator(_digits)
]
Adapter = Annotated[str, BeforeValidator(_stripped), Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*=[^\s=]+$")]
LoraRank = Annotated[Literal[8, 16, 32, 64, 128, 256], BeforeValidator(_digits)]
GpuShare = Annotated[Literal[1, 2, 4, 8], BeforeValidator(_digits)]


class Settings(BaseModel):
    """The settings of one stack; each field is a config key."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", alias_generator=to_camel, populate_by_name=True, use_enum_values=False,
        hide_input_in_errors=True, protected_namespaces=(),
    )  # fmt: skip

    # Model and engine
    model: Annotated[Text, AfterValidator(_model)] = Field(
        "Qwen/Qwen3-4B-Instruct-2507",
        min_length=1,
        max_length=255,
        description="Model to serve: a Hugging Face Hub id (org/name), s3://BUCKET/PREFIX, or the path of a folder in engineImage; for make local, also a folder of this machine.",
    )
    model_revision: Text = Field(
        "",
        pattern=r"^$|^[^-\s]\S*$",
        description="Branch, tag or commit of the model; empty: the Hub's main branch.",
    )
    base_model: Text = Field(
        "",
        description="Hub id of the model that model is a fine-tune of, if model's config.json cannot be read or its name does not name its family; memory and parsers are then planned for it.",
    )
    served_model_name: Annotated[Text, AfterValidator(_names)] = Field(
        "",
        description="Names that clients may send as `model`, separated by commas; responses contain the first. Empty: the Hub id, or the last part of a path.",
    )
    hub_endpoint: Annotated[Text, AfterValidator(_hub_endpoint)] = Field(
        "",
        description="URL of a mirror of the Hugging Face Hub, for planning, downloads and the engine (HF_ENDPOINT); empty: https://huggingface.co.",
    )
    max_model_len: int = Field(
        0,
        ge=0,
        description="Context length (prompt plus output), in tokens; 0: the model's own limit, or less if two such sequences do not fit in the KV cache.",
    )
    weights_gib: float = Field(
        0,
        ge=0,
        le=16384,
        description="Size of the model's weights as loaded, over all GPUs, in GiB, before quantization by vLLM, if the plan estimates it wrongly; 0: read from the Hub's list of files, or computed from config.json.",
    )
    kv_bytes_per_token: int = Field(
        0,
        ge=0,
        le=1 << 30,
        description="Bytes that each token adds to the KV cache, over all GPUs, if the plan estimates them wrongly; 0: computed from config.json.",
    )
    quantization: Literal["", "auto", "fp8", "awq", "gptq", "compressed-tensors", "bitsandbytes"] = Field(
        "",
        description="Weight quantization; empty: the checkpoint's own; auto: quantize a 16-bit checkpoint to FP8 on GPUs with FP8 support (l4, l40s, h100 and newer), for about 25% more tokens per second at slightly lower precision.",
    )
    kv_cache_dtype: Literal["auto", "fp8", "fp8_e4m3", "fp8_e5m2", "bfloat16"] = Field(
        "auto", description="Data type of the KV cache; fp8 halves its size (not supported on T4, A10G and A100)."
    )
    speculative: Annotated[Text, BeforeValidator(_json_text)] = Field(
        "",
        description="Speculative decoding: empty (none), ngram[:TOKENS], mtp[:TOKENS], DRAFT_MODEL[:TOKENS], eagle:MODEL[:TOKENS], eagle3:MODEL[:TOKENS], or a JSON object for vLLM's --speculative-config.",
    )
    enable_prefix_caching: bool = Field(True, description="Reuse the KV cache of prompts that share a prefix.")
    performance_mode: Literal["balanced", "interactivity", "throughput"] = Field(
        "balanced",
        description="vLLM's --performance-mode: balanced, interactivity (a CUDA graph for each batch up to 32) or throughput (batch limits doubled).",
    )
    lora_adapters: tuple[Adapter, ...] = Field(
        (),
        max_length=16,
        description="LoRA adapters, each NAME=HUB_ID, NAME=HUB_ID@REVISION or NAME=PATH (a path in the engine's container); clients send NAME as `model`.",
    )
    max_lora_rank: LoraRank = Field(16, description="Maximum rank of loraAdapters: 8, 16, 32, 64, 128 or 256.")
    image_limit: int = Field(5, ge=0, le=64, description="Maximum number of images per request, for vision models.")
    video_limit: int = Field(1, ge=0, le=16, description="Maximum number of videos per request, for vision models.")
    media_hosts: tuple[Annotated[Text, Field(pattern=r"^[a-z0-9][a-z0-9.:-]*$")], ...] = Field(
        (),
        max_length=64,
        description="Private-network hosts from which images and videos may be fetched by URL, in addition to all public hosts.",
    )
    reasoning_parser: Text = Field(
        "",
        pattern=r"^[a-z0-9_.-]*$",
        description="vLLM's reasoning parser, such as qwen3, which returns the model's reasoning apart from its answer; empty: chosen for known families of models; none: it stays in the answer.",
    )
    tool_call_parser: Text = Field(
        "",
        pattern=r"^[a-z0-9_.-]*$",
        description="vLLM's tool call parser, such as hermes; empty: chosen for known families of models; none: requests with tools are rejected.",
    )
    tokenizer_mode: Text = Field(
        "",
        pattern=r"^[a-z0-9_.-]*$",
        description="vLLM's tokenizer mode, such as mistral; empty: chosen for known families of models; none: vLLM's own default.",
    )
    gpu_memory_utilization: float = Field(
        0.92, ge=0.3, le=0.98, description="Fraction of GPU memory that vLLM may use, 0.3 to 0.98."
    )
    max_num_seqs: int = Field(
        0, ge=0, le=4096, description="Maximum sequences per batch; 0: vLLM's default for the GPU."
    )
    max_num_batched_tokens: int = Field(
        0, ge=0, le=131072, description="Maximum tokens per batch; 0: vLLM's default for the GPU."
    )
    fast_boot: Annotated[FastBoot, BeforeValidator(_lower)] = Field(
        FastBoot.COMPILE_CACHE,
        description="true: store vLLM's compile cache with the weights; false: compile at every start; eager: never compile (starts at most 8 s faster, with a quarter of the throughput).",
    )
    engine_args: tuple[Words, ...] = Field(
        (),
        description="Additional arguments for `vllm serve`, one word an item, such as [--seed, 1]; those that a setting sets are rejected.",
    )
    engine_environment: tuple[Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*=.*$")], ...] = Field(
        (), description="Additional environment variables for the engine, each NAME=value; no secrets."
    )
    engine_image: Image = Field(
        "", description="Container image of the engine; empty: the upstream vLLM image of the pinned version."
    )

    docker_hub_credentials_arn: Input[
        Annotated[
            Text, Field(pattern=r"^$|^arn:aws[a-z-]*:secretsmanager:[a-z0-9-]+:\d{12}:secret:ecr-pullthroughcache/.+")
        ]
    ] = Field(
        "",
        description="ARN of a secret with Docker Hub credentials, whose name starts with ecr-pullthroughcache/; the engine's image is then pulled once through an ECR pull-through cache instead of by each instance over the NAT gateway.",
    )

    # Platform and GPUs
    target: Target = Field(Target.ECS, description="Platform to deploy to: ecs or kubernetes.")
    gpu: Annotated[Gpu, BeforeValidator(_lower)] = Field(
        Gpu.A10G,
        description="GPU class: t4, a10g, l4, l40s, rtx-pro-4500, rtx-pro-6000, a100, h100, h200, b200 or b300.",
    )
    gpu_count: Annotated[Literal[1, 2, 4, 8], BeforeValidator(_digits)] = Field(
        1, description="GPUs per replica: 1, 2, 4 or 8. Used for tensor parallelism unless dataParallelSize is set."
    )
    data_parallel_size: GpuShare = Field(
        1,
        description="Copies of the model per replica, each on gpuCount / dataParallelSize GPUs, behind one port: 1, 2, 4 or 8. For models that fit on fewer GPUs than the instance has.",
    )
    instance_types: tuple[Text, ...] = Field(
        (), description="EC2 instance types in order of preference; empty: chosen from gpu and gpuCount."
    )
    capacity: PurchaseOption = Field(
        PurchaseOption.ON_DEMAND,
        description="How instances are purchased: on-demand, spot, reservation (a targeted capacity reservation) or capacity-block.",
    )
    capacity_reservation_id: Input[Annotated[Text, Field(pattern=r"^$|^cr-[0-9a-z]+$")]] = Field(
        "", description="Id of the capacity reservation (cr-...) for capacity: reservation or capacity-block."
    )
    warm_pool: int = Field(
        0,
        ge=0,
        le=16,
        description="Stopped instances in the warm pool, with the engine's image on disk; on-demand only.",
    )

    shared_memory_gib: int = Field(
        0, ge=0, le=256, description="Shared memory (/dev/shm) of the engine's container, in GiB; 0: the plan decides."
    )

    weights_throughput: WeightsThroughput = Field(
        WeightsThroughput.BURSTING,
        description="EFS throughput mode. bursting: reads are free, at up to 300 MiB/s; elastic: faster, at $0.03 per GB that a cold start reads.",
    )

    weights_file_system_id: Text = Field(
        "",
        pattern=r"^$|^fs-([0-9a-f]{8}|[0-9a-f]{17})$",
        description="Existing EFS file system to read weights from, such as one retained by a destroyed stack; it is never changed or deleted. Empty: the stack creates its own.",
    )

    # Scaling
    min_replicas: int = Field(0, ge=0, le=64, description="Minimum engine replicas; 0: scale to zero.")
    max_replicas: int = Field(1, ge=1, le=64, description="Maximum engine replicas.")
    scale_down_minutes: int = Field(
        0,
        ge=0,
        le=1440,
        description="Minutes without requests after which replicas above minReplicas are stopped; 0: 10, or the expected duration of a cold start if that is longer.",
    )
    wakes_per_day: int = Field(
        4,
        ge=0,
        le=288,
        description="Expected cold starts per day of a stack that scales to zero, for the monthly bill of the plan; it changes nothing that is deployed.",
    )
    startup_timeout_minutes: Annotated[int, AfterValidator(_startup_minutes)] = Field(
        0,
        ge=0,
        le=LONGEST_STARTUP_TIMEOUT_MINUTES,
        description="Timeout of a cold start in minutes: instance, image, weights, load, compile; 0: 20, or twice the expected duration of a cold start if that is longer, up to 55.",
    )
    scale_out_cooldown_minutes: int = Field(
        0,
        ge=0,
        le=120,
        description="Minutes to wait after adding a replica before adding another; 0: the expected duration of a cold start.",
    )
    concurrency_per_replica: int = Field(
        16, ge=1, le=4096, description="Maximum requests in flight per replica; the gateway queues the rest."
    )

    # Gateway and load balancer
    gateway_image: Input[Image] = Field(
        "",
        description="Container image of the gateway; empty: built by Pulumi and pushed to the stack's own repository.",
    )
    gateway_count: int = Field(1, ge=1, le=16, description="Number of gateways, spread over zones; they always run.")
    gateway_cpu: int = Field(
        512,
        ge=256,
        le=16384,
        description="CPU units per gateway on Fargate: 256, 512, 1024, 2048, 4096, 8192 or 16384 (1024 is one vCPU).",
    )
    gateway_memory_mib: int = Field(1024, ge=512, le=122880, description="Memory per gateway on Fargate, in MiB.")
    port: int = Field(
        0,
        ge=0,
        le=65535,
        description="Port of the endpoint; 0: 443 with a certificate, 80 without, 8000 with make local.",
    )
    api_keys: Input[Keys] = Field(
        default_factory=dict,
        description="API keys: name=key pairs or one bare key, separated by commas; empty: one is generated.",
    )
    api_keys_document: Input[Annotated[SecretStr, BeforeValidator(_stripped), AfterValidator(_keys_document)]] = Field(
        SecretStr(""),
        description="API keys as one JSON document, with limits, expiry and priority per key (docs/keys.md); use instead of apiKeys.",
    )
    allowed_origins: Annotated[tuple[Text, ...], AfterValidator(_origins)] = Field(
        (),
        max_length=64,
        description="CORS origins whose web pages may call the endpoint, such as https://app.example.com; *: all; empty: none.",
    )
    gateway_environment: tuple[Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*=.*$")], ...] = Field(
        (),
        description="Additional environment variables for the gateway, each NAME=value: gateway settings (docs/gateway.md), OTEL_EXPORTER_OTLP_ENDPOINT, a proxy; no secrets.",
    )
    hf_token: Input[Annotated[SecretStr, BeforeValidator(_stripped)]] = Field(
        SecretStr(""), description="Hugging Face token, for gated models."
    )
    certificate_arn: Input[Annotated[Text, Field(pattern=r"^$|^arn:aws[a-z-]*:acm:")]] = Field(
        "",
        description="ARN of an ACM certificate for HTTPS, in the stack's region.",
    )
    domain: Text = Field(
        "",
        pattern=r"^$|^([a-z0-9]([a-z0-9-]*[a-z0-9])?\.)+[a-z]{2,}$",
        description="Domain name of the endpoint, in a Route 53 zone of this account; a certificate is created unless certificateArn is set.",
    )
    hosted_zone: Text = Field(
        "",
        pattern=r"^$|^([a-z0-9]([a-z0-9-]*[a-z0-9])?\.)+[a-z]{2,}$",
        description="Route 53 zone that contains domain; empty: the domain without its first label.",
    )
    hosted_zone_id: Input[Annotated[Text, Field(pattern=r"^$|^Z[A-Z0-9]+$")]] = Field(
        "",
        description="Id of the Route 53 zone that contains domain, for a zone that the name does not find; empty: found by its name.",
    )
    allowed_cidrs: tuple[Cidr, ...] = Field(
        (),
        description="CIDR ranges that may connect to the load balancer, over plain HTTP unless certificateArn or domain is set. Empty: an internal load balancer, or with HTTPS, open to the internet.",
    )
    allowed_security_group_ids: Input[tuple[Input[Annotated[str, Field(pattern=r"^sg-")]], ...]] = Field(
        (),
        description="Security groups of vpcId whose members may connect to the load balancer, in addition to allowedCidrs. If it is internal and allowedCidrs is empty, only they may.",
    )

    allow_http_from_anywhere: bool = Field(
        False,
        description="Confirm that 0.0.0.0/0 or ::/0 in allowedCidrs may use plain HTTP; API keys are then sent over the internet unencrypted.",
    )

    waf_requests_per_five_minutes: int = Field(
        0,
        ge=0,
        le=2_000_000_000,
        description="Rate limit per client address in requests per five minutes, at least 10, enforced by AWS WAF; 0: no WAF.",
    )
    access_logs: bool = Field(False, description="Write the load balancer's access logs to an S3 bucket.")

    # Network
    vpc_id: Input[Annotated[Text, Field(pattern=r"^$|^vpc-")]] = Field(
        "", description="Existing VPC; empty: the stack creates one."
    )
    subnet_ids: Input[tuple[Input[Annotated[str, Field(pattern=r"^subnet-")]], ...]] = Field(
        (), description="Private subnets in vpcId, at least two, in different zones."
    )
    load_balancer_subnet_ids: Input[tuple[Input[Annotated[str, Field(pattern=r"^subnet-")]], ...]] = Field(
        (),
        description="Public subnets in vpcId for an internet-facing load balancer; empty: an internal one in subnetIds.",
    )
    nat_gateways: NatGateways = Field(
        NatGateways.SINGLE, description="NAT gateways in a VPC that the stack creates: none, single or per-zone."
    )

    flow_logs: FlowLogs = Field(
        FlowLogs.REJECT,
        description="VPC flow logs in a VPC that the stack creates: none, reject (rejected connections only) or all.",
    )

    # Kubernetes
    kubernetes_namespace: Text = Field(
        "vllm",
        pattern=r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$",
        description="Namespace that the stack creates (target kubernetes).",
    )
    kubernetes_ingress_class: Text = Field(
        "", description="IngressClass of the Ingress; empty: the cluster's default (target kubernetes)."
    )
    kubernetes_storage_class: Input[Text] = Field(
        "",
        description="StorageClass of the weight cache; must support ReadWriteMany for more than one replica; empty: the cluster's default (target kubernetes).",
    )

    # Monitoring and encryption
    dashboard: bool = Field(True, description="Create a CloudWatch dashboard; the first three per account are free.")
    kms_key_arn: Input[Annotated[Text, Field(pattern=r"^$|^arn:aws[a-z-]*:kms:[a-z0-9-]+:\d{12}:key/")]] = Field(
        "",
        description="ARN of the KMS key that encrypts weights, disks, secrets, logs and images; empty: AWS managed keys.",
    )
    log_retention_days: LogRetentionDays = Field(30, description="Retention of logs in days.")

    # Safeguards
    ttl_hours: int = Field(
        0, ge=0, le=8760, description="Hours after a deploy at which the stack is scaled to zero; 0: never."
    )
    monthly_budget_usd: int = Field(
        0, ge=0, description="Monthly budget in US dollars; warnings are sent at 50, 80 and 100%; 0: no budget."
    )
    alarm_email: Text = Field(
        "",
        pattern=r"^$|^[^@\s]+@[^@\s]+\.[^@\s]+$",
        description="Email address for alarms and budget warnings.",
    )
    owner: Annotated[Text, AfterValidator(_tag_value)] = Field(
        "",
        max_length=128,
        description="Person or team, for the Owner tag: letters, digits, spaces and _ . : / = + - @.",
    )
    protect: bool = Field(
        False,
        description="Retain the weight cache, logs and images when the stack is destroyed, and protect the load balancer from accidental deletion.",
    )

    # make verify
    results_bucket: Input[Annotated[Text, Field(pattern=r"^$|^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$")]] = Field(
        "",
        description="S3 bucket where make verify stores results; empty: a local folder.",
    )
    verify_max_slowdown_percent: int = Field(
        10,
        ge=0,
        le=1000,
        description="Maximum regression of throughput and of median latencies, in percent, before make verify fails.",
    )
    verify_max_tail_slowdown_percent: int = Field(
        25, ge=0, le=1000, description="Maximum regression of p99 latencies, in percent, before make verify fails."
    )
    verify_max_cost_increase_percent: int = Field(
        10,
        ge=0,
        le=1000,
        description="Maximum increase of the cost per million tokens, in percent, before make verify fails.",
    )
    verify_max_cold_start_slowdown_percent: int = Field(
        25,
        ge=0,
        le=1000,
        description="Maximum increase of a measured cold start, in percent, before make verify fails.",
    )
    verify_max_success_rate_drop_percent: int = Field(
        1,
        ge=0,
        le=100,
        description="Maximum drop of the request success rate, in percentage points, before make verify fails.",
    )

    @field_validator("*", mode="before")
    @classmethod
    def _no_boolean_for_a_number(cls, value: object, info: ValidationInfo) -> object:
        # Python counts true as 1.
        if isinstance(value, bool) and cls.model_fields[str(info.field_name)].annotation in (int, float):
            raise ValueError("should be a number, not true or false")
        return value

    @property
    def names(self) -> tuple[str, ...]:
        """The names that clients may send as ``model``; responses contain the first."""
        if self.served_model_name:
            return tuple(self.served_model_name.split(","))
        return (self.model if is_hub_id(self.model) else self.model.rstrip("/").rpartition("/")[2] or self.model,)

    @property
    def bucket(self) -> S3Address | None:
        """The folder in S3 that contains the model; None if it is elsewhere."""
        return parse_address(self.model) if is_in_s3(self.model) else None

    @property
    def model_in_image(self) -> bool:
        """Whether the model is a folder in the engine's image."""
        return self.model.startswith("/") and bool(self.engine_image)

    @property
    def revision(self) -> str:
        """The revision of the model on the Hub; empty for a model that is elsewhere."""
        return self.model_revision or ("main" if is_hub_id(self.model) else "")

    @property
    def served_name(self) -> str:
        """The first of ``names``."""
        return self.names[0]

    @property
    def given_keys(self) -> str:
        """The keys document from the stack file, a secret; empty: none, so that one key is generated.

        For keys that are outputs, see `infra.component.keys_of`.
        """
        if is_output(self.api_keys_document) or is_output(self.api_keys):
            return ""
        document, keys = secret_text(self.api_keys_document), self.api_keys
        return document or keys_text(keys if isinstance(keys, dict) else {})

    @property
    def keys_setting(self) -> str:
        """The setting that contains the keys; empty: none does."""
        document = self.api_keys_document
        if is_output(document) or secret_text(document):
            return "apiKeysDocument"
        return "apiKeys" if is_output(self.api_keys) or self.api_keys else ""

    @property
    def tensor_parallel_size(self) -> int:
        """GPUs that each layer of one copy of the model is sharded across."""
        return max(1, self.gpu_count // (self.data_parallel_size * self.pipeline_parallel_size))

    @property
    def pipeline_parallel_size(self) -> int:
        """Groups of layers of one copy of the model, each on its own GPUs; engineArgs sets it."""
        return max(1, int(number(self.engine_args, "--pipeline-parallel-size", 1)))

    @property
    def cpu_offload_gib(self) -> float:
        """GiB of weights per GPU that stay in the instance's memory; engineArgs sets it."""
        return number(self.engine_args, "--cpu-offload-gb", 0)

    @property
    def https(self) -> bool:
        """Whether the endpoint has a certificate."""
        return bool(self.certificate_arn or self.domain)

    @property
    def internal(self) -> bool:
        """Whether the load balancer is reachable only from inside the network."""
        existing_without_public = bool(self.vpc_id) and not self.load_balancer_subnet_ids
        return existing_without_public or not (self.https or self.allowed_cidrs)

    @property
    def endpoint_port(self) -> int:
        """The load balancer's port."""
        return self.port or (443 if self.https else 80)


def is_hub_id(model: str) -> bool:
    """Whether a model is named as on the Hub: ``name`` or ``org/name``."""
    return bool(re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)?", model))


def keys_text(keys: Mapping[str, SecretStr]) -> str:
    """The keys document of these keys; empty: there are none."""
    found = {name: key.get_secret_value() for name, key in keys.items()}
    return json.dumps(found, sort_keys=True) if found else ""


def secret_text(value: object) -> str:
    """The text of a secret that is not an output; empty for an output."""
    return value.get_secret_value() if isinstance(value, SecretStr) else ""


def config_keys() -> dict[str, Any]:
    """The keys as Pulumi.yaml declares them: name -> description, default.

    Types are not declared. Pulumi would reject a value of the wrong type before this program runs, one key at a time and
    without a suggestion. It would also reject `64` in a list of strings, which `pulumi config set --path` writes as a
    number. Secret keys are not declared: Pulumi rejects a declared secret with a default, and requires a value for one
    without.
    """
    declared: dict[str, Any] = {}
    for name, field in Settings.model_fields.items():
        if name in SECRET_FIELDS:
            continue
        default = field.get_default(call_default_factory=True)
        value: object = list(default) if isinstance(default, tuple) else default
        if not isinstance(value, bool | int | list):
            value = str(value)
        declared[to_camel(name)] = {"description": field.description, "default": value}
    return declared


def list_keys() -> frozenset[str]:
    """The keys whose values are lists."""
    fields = Settings.model_fields.items()
    return frozenset(to_camel(name) for name, field in fields if isinstance(field.default, tuple))


def secret_keys() -> frozenset[str]:
    """The keys that must be encrypted."""
    return frozenset(map(to_camel, SECRET_FIELDS))


SECRET_FIELDS = frozenset({"api_keys", "api_keys_document", "hf_token"})
