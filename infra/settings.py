"""Stack configuration, typed and validated: the one place that knows the config keys.

A key is spelt in camelCase in ``Pulumi.<stack>.yaml`` (``vllm-endpoint:maxModelLen``) and in snake_case here.
Every key that Pulumi's project file declares needs a default, so "not set" is written as ``""``, ``0`` or ``[]`` there
and means "the plan decides".
"""

from __future__ import annotations

import ipaddress
import json
import re
import unicodedata
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr
from pydantic.alias_generators import to_camel

from image.gateway import keys_document
from image.gateway.cors import parse_origins

PROJECT = "vllm-endpoint"


class Gpu(StrEnum):
    """GPU classes that AWS rents and vLLM runs on."""

    A10G = "a10g"
    L4 = "l4"
    L40S = "l40s"
    A100 = "a100"
    H100 = "h100"
    H200 = "h200"


class Target(StrEnum):
    """Where the plan is rendered."""

    ECS = "ecs"
    KUBERNETES = "kubernetes"


class PurchaseOption(StrEnum):
    """How GPU instances are bought."""

    ON_DEMAND = "on-demand"
    SPOT = "spot"
    RESERVATION = "reservation"
    CAPACITY_BLOCK = "capacity-block"

    @property
    def reserved(self) -> bool:
        """Whether it takes a capacity reservation's id."""
        return self in (PurchaseOption.RESERVATION, PurchaseOption.CAPACITY_BLOCK)


class FastBoot(StrEnum):
    """What is done to shorten the start of an engine."""

    COMPILE_CACHE = "true"
    OFF = "false"
    EAGER = "eager"


class NatGateways(StrEnum):
    """How private subnets reach the internet in a network that the stack makes."""

    NONE = "none"
    SINGLE = "single"
    PER_ZONE = "per-zone"


class FlowLogs(StrEnum):
    """Which connections of a network that is made are logged."""

    NONE = "none"
    REJECT = "reject"
    ALL = "all"


class WeightsThroughput(StrEnum):
    """How EFS bills reading the weights."""

    BURSTING = "bursting"
    ELASTIC = "elastic"


def _lower(value: object) -> object:
    # YAML reads `fastBoot: true` as a boolean; Pulumi hands the same value over as the string "true".
    return str(value).strip().lower() if isinstance(value, bool | str) else value


def _digits(value: object) -> object:
    # Pulumi hands numbers over as text, which a Literal does not read by itself.
    return int(value) if isinstance(value, str) and value.isdecimal() else value


def _key_pairs(value: object) -> object:
    if not isinstance(value, str):
        return value
    pairs: dict[str, str] = {}
    for item in filter(None, (part.strip() for part in value.split(","))):
        name, separator, key = item.partition("=")
        name, key = (name.strip(), key.strip()) if separator else ("default", item)
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", name) or not key:
            raise ValueError("each entry is name=key or a bare key, separated by commas")
        if name in pairs:
            raise ValueError(f"the name {name} is given twice")
        pairs[name] = key
    return pairs


def _stripped(value: object) -> object:
    # A token piped from a file ends in a newline, which no header may hold.
    return value.strip() if isinstance(value, str) else value


def _names(value: str) -> str:
    names = [part.strip() for part in value.split(",")]
    if value and not all(names):
        raise ValueError("has an empty name; separate names by single commas")
    if len(set(names)) < len(names):
        raise ValueError("names one twice")
    return ",".join(names)


def _origins(value: tuple[str, ...]) -> tuple[str, ...]:
    return parse_origins(",".join(value)) if value else ()


# Secrets Manager keeps no longer ones.
_LONGEST_SECRET_BYTES = 65_536


def _keys_document(value: SecretStr) -> SecretStr:
    text = value.get_secret_value()
    if text:
        try:
            keys_document.parse(text)
        except keys_document.KeysError as error:
            raise ValueError(f"{'; '.join(error.problems)}, as docs/keys.md describes") from None
        if len(text.encode()) > _LONGEST_SECRET_BYTES:
            raise ValueError(f"is longer than the {_LONGEST_SECRET_BYTES:,} bytes of a secret")
    return value


def _network_address(value: str) -> str:
    try:
        ipaddress.ip_network(value, strict=False)
    except ValueError:
        raise ValueError("which is not a network; each is an address and its prefix, such as 203.0.113.0/24") from None
    return value


def _tag_value(value: str) -> str:
    # What every AWS service takes in a tag; IAM refuses anything else, half-way through a deploy.
    wrong = sorted({c for c in value if unicodedata.category(c)[0] not in "LNZ" and c not in "_.:/=+-@"})
    if wrong:
        raise ValueError(f"with {' '.join(wrong)}; AWS tags take letters, digits, spaces and _ . : / = + - @")
    return value


Keys = Annotated[dict[str, SecretStr], BeforeValidator(_key_pairs)]
Text = Annotated[str, BeforeValidator(_stripped)]
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
    """One stack's settings; every field is a config key."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", alias_generator=to_camel, populate_by_name=True, use_enum_values=False,
        hide_input_in_errors=True, protected_namespaces=(),
    )  # fmt: skip

    # What is served
    model: Text = Field(
        "Qwen/Qwen3-4B-Instruct-2507", min_length=1, description="Model to serve: a Hugging Face hub id, org/name."
    )
    model_revision: Text = Field("", description="Branch, tag or commit of the model; empty: the hub's main branch.")
    served_model_name: Annotated[Text, AfterValidator(_names)] = Field(
        "",
        description="Names that clients may send as `model`, separated by commas; answers carry the first. Empty: the hub id.",
    )
    max_model_len: int = Field(
        0,
        ge=0,
        description="Longest prompt plus answer, in tokens; 0: the model's own limit, or less where two such sequences do not fit in the KV cache.",
    )
    quantization: Literal["", "auto", "fp8", "awq", "gptq", "compressed-tensors", "bitsandbytes"] = Field(
        "",
        description="Weight quantization done or expected by vLLM; empty: as the checkpoint says; auto: a 16-bit checkpoint's weights in FP8 on GPUs that multiply FP8 (l4, l40s, h100, h200), a quarter more tokens a second for slightly rounded weights.",
    )
    kv_cache_dtype: Literal["auto", "fp8", "fp8_e4m3", "fp8_e5m2", "bfloat16"] = Field(
        "auto", description="Type of the KV cache; fp8 halves it (not on A10G)."
    )
    speculative: Text = Field(
        "",
        description="Speculative decoding: empty (none), ngram[:TOKENS], mtp[:TOKENS], DRAFT_MODEL[:TOKENS], eagle:MODEL[:TOKENS], eagle3:MODEL[:TOKENS], or a JSON object for vLLM's --speculative-config.",
    )
    enable_prefix_caching: bool = Field(True, description="Reuse the KV cache of prompts that begin alike.")
    performance_mode: Literal["balanced", "interactivity", "throughput"] = Field(
        "balanced",
        description="vLLM's --performance-mode: balanced, interactivity (a CUDA graph for each batch up to 32) or throughput (batch limits doubled).",
    )
    lora_adapters: tuple[Adapter, ...] = Field(
        (),
        max_length=16,
        description="LoRA adapters, each NAME=HUB_ID or NAME=PATH in the engine; clients send NAME as `model`.",
    )
    max_lora_rank: LoraRank = Field(16, description="Largest rank of loraAdapters: 8, 16, 32, 64, 128 or 256.")
    image_limit: int = Field(5, ge=0, le=64, description="Images a request may hold, where the model sees.")
    video_limit: int = Field(1, ge=0, le=16, description="Videos a request may hold, where the model sees.")
    media_hosts: tuple[Annotated[Text, Field(pattern=r"^[a-z0-9][a-z0-9.:-]*$")], ...] = Field(
        (),
        max_length=64,
        description="Hosts of a private network that pictures and videos may be fetched from by URL, beside all public ones.",
    )
    tool_call_parser: Text = Field(
        "",
        pattern=r"^[a-z0-9_.]*$",
        description="vLLM's parser of tool calls, such as hermes; empty: the model's where it is known (Qwen2.5, Qwen3, Llama 3.1); none: requests with tools are refused.",
    )
    gpu_memory_utilization: float = Field(
        0.92, ge=0.3, le=0.98, description="Share of a GPU's memory that vLLM may use, 0.3 to 0.98."
    )
    max_num_seqs: int = Field(0, ge=0, le=4096, description="Sequences in one batch; 0: vLLM's default for the GPU.")
    max_num_batched_tokens: int = Field(
        0, ge=0, le=131072, description="Tokens in one batch; 0: vLLM's default for the GPU."
    )
    fast_boot: Annotated[FastBoot, BeforeValidator(_lower)] = Field(
        FastBoot.COMPILE_CACHE,
        description="true: keep vLLM's compile cache beside the weights; false: compile at each start; eager: never compile (starts at most 8 s sooner, and serves a quarter of the tokens).",
    )
    engine_args: tuple[Text, ...] = Field(
        (), description="More arguments for `vllm serve`, given last, so that they win."
    )
    engine_environment: tuple[Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*=.*$")], ...] = Field(
        (), description="More environment variables for the engine, each NAME=value; no secrets."
    )
    engine_image: Text = Field(
        "", description="Container image of the engine; empty: the upstream vLLM image of the pinned version."
    )

    docker_hub_credentials_arn: Text = Field(
        "",
        pattern=r"^$|^arn:aws[a-z-]*:secretsmanager:[a-z0-9-]+:\d{12}:secret:ecr-pullthroughcache/.+",
        description="Secret with Docker Hub credentials, its name beginning with ecr-pullthroughcache/; the engine's image then comes through ECR, once, and not to each instance over the NAT gateway.",
    )

    # Where it runs
    target: Target = Field(Target.ECS, description="ecs or kubernetes.")
    gpu: Annotated[Gpu, BeforeValidator(_lower)] = Field(
        Gpu.A10G, description="GPU class: a10g, l4, l40s, a100, h100 or h200."
    )
    gpu_count: Annotated[Literal[1, 2, 4, 8], BeforeValidator(_digits)] = Field(
        1, description="GPUs of one replica, used tensor-parallel unless dataParallelSize says otherwise: 1, 2, 4 or 8."
    )
    data_parallel_size: GpuShare = Field(
        1,
        description="Copies of the model in one replica, each on gpuCount / dataParallelSize GPUs, behind one port: 1, 2, 4 or 8. For models that fit on fewer GPUs than the instance has.",
    )
    instance_types: tuple[Text, ...] = Field(
        (), description="EC2 instance types in order of preference; empty: chosen from gpu and gpuCount."
    )
    capacity: PurchaseOption = Field(
        PurchaseOption.ON_DEMAND,
        description="on-demand, spot, reservation (a capacity reservation that is targeted) or capacity-block.",
    )
    capacity_reservation_id: Text = Field(
        "", description="The capacity reservation (cr-...) that capacity: reservation or capacity-block uses."
    )
    warm_pool: int = Field(
        0, ge=0, le=16, description="Stopped instances kept ready, with the engine's image on disk; on-demand only."
    )

    shared_memory_gib: int = Field(
        0, ge=0, le=256, description="Shared memory (/dev/shm) of the engine's container, in GiB; 0: the plan decides."
    )

    weights_throughput: WeightsThroughput = Field(
        WeightsThroughput.BURSTING,
        description="bursting: EFS reads weights for nothing, at up to 300 MiB/s; elastic: faster, and $0.03 for each GB that a cold start reads.",
    )

    weights_file_system_id: Text = Field(
        "",
        pattern=r"^$|^fs-([0-9a-f]{8}|[0-9a-f]{17})$",
        description="EFS file system with the weights that a destroyed stack kept; it is used, never changed or deleted. Empty: the stack makes its own.",
    )

    # How many, and when none
    min_replicas: int = Field(0, ge=0, le=64, description="Engine replicas that always run; 0: scales to zero.")
    max_replicas: int = Field(1, ge=1, le=64, description="Most engine replicas.")
    scale_down_minutes: int = Field(
        10, ge=1, le=1440, description="Minutes without a request after which replicas above minReplicas are stopped."
    )
    startup_timeout_minutes: int = Field(
        20, ge=2, le=55, description="Minutes that a cold start may take: instance, image, weights, load, compile."
    )
    scale_out_cooldown_minutes: int = Field(
        0,
        ge=0,
        le=120,
        description="Minutes to wait after adding a replica before adding another; 0: as long as a cold start is expected to take.",
    )
    concurrency_per_replica: int = Field(
        16, ge=1, le=4096, description="Requests in flight at one replica; more wait in the gateway."
    )

    # The front door
    gateway_image: Text = Field(
        "",
        description="Container image of the gateway; empty: built by Pulumi and pushed to the stack's own repository.",
    )
    gateway_count: int = Field(1, ge=1, le=16, description="Gateways that always run, spread over zones.")
    gateway_cpu: int = Field(
        512,
        ge=256,
        le=16384,
        description="CPU of a gateway on Fargate: 256, 512, 1024, 2048, 4096, 8192 or 16384 (1024 is one vCPU).",
    )
    gateway_memory_mib: int = Field(1024, ge=512, le=122880, description="Memory of a gateway on Fargate, in MiB.")
    port: int = Field(
        0,
        ge=0,
        le=65535,
        description="Port of the endpoint; 0: 443 with a certificate, 80 without, 8000 on this machine.",
    )
    api_keys: Keys = Field(
        default_factory=dict,
        description="API keys that are accepted: name=key pairs or one bare key, separated by commas; empty: one is generated.",
    )
    api_keys_document: Annotated[SecretStr, BeforeValidator(_stripped), AfterValidator(_keys_document)] = Field(
        SecretStr(""),
        description="API keys as one JSON document, with limits, expiry and priority of each (docs/keys.md); instead of apiKeys.",
    )
    allowed_origins: Annotated[tuple[Text, ...], AfterValidator(_origins)] = Field(
        (),
        max_length=64,
        description="Origins whose web pages may use the endpoint from a browser, such as https://app.example.com; *: all; empty: none.",
    )
    gateway_environment: tuple[Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*=.*$")], ...] = Field(
        (),
        description="More environment variables for the gateway, each NAME=value: its own settings (docs/gateway.md), OTEL_EXPORTER_OTLP_ENDPOINT, a proxy; no secrets.",
    )
    hf_token: Annotated[SecretStr, BeforeValidator(_stripped)] = Field(
        SecretStr(""), description="Hugging Face token, for gated models."
    )
    certificate_arn: Text = Field(
        "", pattern=r"^$|^arn:aws[a-z-]*:acm:", description="ACM certificate for HTTPS, in the stack's region."
    )
    domain: Text = Field(
        "",
        pattern=r"^$|^([a-z0-9-]+\.)+[a-z]{2,}$",
        description="Domain name of the endpoint in a Route 53 zone of this account; a certificate is made for it unless certificateArn names one.",
    )
    hosted_zone: Text = Field(
        "",
        pattern=r"^$|^([a-z0-9-]+\.)+[a-z]{2,}$",
        description="Route 53 zone that holds domain; empty: the domain without its first label.",
    )
    allowed_cidrs: tuple[Cidr, ...] = Field(
        (),
        description="Networks that may reach the load balancer; without certificateArn or domain they reach it over plain HTTP. Empty: internal load balancer, or the world over HTTPS.",
    )

    allow_http_from_anywhere: bool = Field(
        False,
        description="Say once more that 0.0.0.0/0 or ::/0 in allowedCidrs may use plain HTTP; API keys then cross the internet in the clear.",
    )

    waf_requests_per_five_minutes: int = Field(
        0,
        ge=0,
        le=2_000_000_000,
        description="Requests that one address may send in five minutes before a web application firewall blocks it, at least 10; 0: no firewall.",
    )
    access_logs: bool = Field(False, description="Log every request to the load balancer in an S3 bucket.")

    # The network
    vpc_id: Text = Field("", pattern=r"^$|^vpc-", description="Existing VPC; empty: one is made.")
    subnet_ids: tuple[Annotated[str, Field(pattern=r"^subnet-")], ...] = Field(
        (), description="Private subnets in vpcId, at least two, in different zones."
    )
    load_balancer_subnet_ids: tuple[Annotated[str, Field(pattern=r"^subnet-")], ...] = Field(
        (),
        description="Public subnets in vpcId for a load balancer that faces the internet; empty: subnetIds, internal.",
    )
    nat_gateways: NatGateways = Field(
        NatGateways.SINGLE, description="NAT gateways of a network that is made: none, single or per-zone."
    )

    flow_logs: FlowLogs = Field(
        FlowLogs.REJECT,
        description="Connections that are logged in a network that is made: none, reject (those refused) or all.",
    )

    # Kubernetes
    kubernetes_namespace: Text = Field(
        "vllm",
        pattern=r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$",
        description="Namespace, made by the stack (target kubernetes).",
    )
    kubernetes_ingress_class: Text = Field(
        "", description="IngressClass of the Ingress; empty: the cluster's default (target kubernetes)."
    )
    kubernetes_storage_class: Text = Field(
        "",
        description="StorageClass of the weight cache, ReadWriteMany where replicas exceed one; empty: the cluster's default (target kubernetes).",
    )

    # Watching
    dashboard: bool = Field(True, description="Make a CloudWatch dashboard; an account's first three are free.")
    kms_key_arn: Text = Field(
        "",
        pattern=r"^$|^arn:aws[a-z-]*:kms:[a-z0-9-]+:\d{12}:key/",
        description="KMS key that weights, disks, secrets, logs and images are encrypted with; empty: AWS's own keys.",
    )
    log_retention_days: LogRetentionDays = Field(30, description="Days for which logs are kept.")

    # Safeguards
    ttl_hours: int = Field(
        0, ge=0, le=8760, description="Hours after a deploy at which AWS itself turns the stack to zero; 0: never."
    )
    monthly_budget_usd: int = Field(
        0, ge=0, description="Budget of a month in US dollars; AWS warns at 50, 80 and 100%; 0: none."
    )
    alarm_email: Text = Field(
        "",
        pattern=r"^$|^[^@\s]+@[^@\s]+\.[^@\s]+$",
        description="Address that alarms and budget warnings are mailed to.",
    )
    owner: Annotated[Text, AfterValidator(_tag_value)] = Field(
        "",
        max_length=128,
        description="Person or team, for the Owner tag: letters, digits, spaces and _ . : / = + - @.",
    )
    protect: bool = Field(
        False,
        description="Keep the weight cache, logs and images at destroy, and refuse to delete the load balancer by accident.",
    )

    # make verify
    results_bucket: Text = Field(
        "",
        pattern=r"^$|^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$",
        description="S3 bucket that make verify keeps its results in; empty: a folder of the machine that verifies.",
    )
    verify_max_slowdown_percent: int = Field(
        10, ge=0, le=1000, description="make verify fails where throughput, or the median of a time, got worse by more."
    )
    verify_max_tail_slowdown_percent: int = Field(
        25, ge=0, le=1000, description="make verify fails where the 99th percentile of a time got worse by more."
    )
    verify_max_cost_increase_percent: int = Field(
        10, ge=0, le=1000, description="make verify fails where a million tokens cost more by more than this."
    )
    verify_max_cold_start_slowdown_percent: int = Field(
        25, ge=0, le=1000, description="make verify fails where a cold start that was measured took longer by more."
    )
    verify_max_success_rate_drop_percent: int = Field(
        1, ge=0, le=100, description="make verify fails where the share of requests that succeed fell by more points."
    )

    @property
    def names(self) -> tuple[str, ...]:
        """The names that clients may send as ``model``; answers carry the first."""
        return tuple(self.served_model_name.split(",")) if self.served_model_name else (self.model,)

    @property
    def served_name(self) -> str:
        """The first of ``names``."""
        return self.names[0]

    @property
    def given_keys(self) -> str:
        """The keys document that the stack file gives, a secret; empty: none, so that one key is generated."""
        keys = {name: key.get_secret_value() for name, key in self.api_keys.items()}
        return self.api_keys_document.get_secret_value() or (json.dumps(keys, sort_keys=True) if keys else "")

    @property
    def keys_setting(self) -> str:
        """The key of the stack file that gives the keys; empty: none does."""
        return "apiKeysDocument" if self.api_keys_document.get_secret_value() else "apiKeys" if self.api_keys else ""

    @property
    def tensor_parallel_size(self) -> int:
        """GPUs that one copy of the model is split over."""
        return max(1, self.gpu_count // self.data_parallel_size)

    @property
    def https(self) -> bool:
        """Whether the endpoint has a certificate."""
        return bool(self.certificate_arn or self.domain)

    @property
    def internal(self) -> bool:
        """Whether the load balancer is reachable from inside the network only."""
        existing_without_public = bool(self.vpc_id) and not self.load_balancer_subnet_ids
        return existing_without_public or not (self.https or self.allowed_cidrs)

    @property
    def endpoint_port(self) -> int:
        """The load balancer's port."""
        return self.port or (443 if self.https else 80)


def config_keys() -> dict[str, Any]:
    """The keys as Pulumi.yaml declares them: name -> description, default.

    No types: the engine would refuse a value of another type before this program runs, one key at a time and without
    what to set, and so would refuse `64` in a list, which `pulumi config set --path` writes as a number. Secret keys are
    not among them: Pulumi refuses a declared secret with a default, and requires one without.
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
    """The keys that hold a list."""
    fields = Settings.model_fields.items()
    return frozenset(to_camel(name) for name, field in fields if isinstance(field.default, tuple))


def secret_keys() -> frozenset[str]:
    """The keys that must be encrypted."""
    return frozenset(map(to_camel, SECRET_FIELDS))


SECRET_FIELDS = frozenset({"api_keys", "api_keys_document", "hf_token"})
