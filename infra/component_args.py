"""The arguments of the components. Generated from infra/settings.py by `python -m infra.arguments`: edit that file."""

from collections.abc import Sequence
from typing import TypedDict

import pulumi


class VllmEndpointArgs(TypedDict, total=False):
    """Arguments of `VllmEndpoint`, an endpoint on AWS: ECS runs vLLM on GPU instances."""

    model: str
    """Model to serve: a Hugging Face Hub id (org/name), s3://BUCKET/PREFIX, or the path of a folder in engineImage; for make local, also a folder of this machine. Default: Qwen/Qwen3-4B-Instruct-2507."""
    model_revision: str
    """Branch, tag or commit of the model; empty: the Hub's main branch."""
    base_model: str
    """Hub id of the model that model is a fine-tune of, if model's config.json cannot be read or its name does not name its family; memory and parsers are then planned for it."""
    served_model_name: str
    """Names that clients may send as `model`, separated by commas; responses contain the first. Empty: the Hub id, or the last part of a path."""
    hub_endpoint: str
    """URL of a mirror of the Hugging Face Hub, for planning, downloads and the engine (HF_ENDPOINT); empty: https://huggingface.co."""
    max_model_len: int
    """Context length (prompt plus output), in tokens; 0: the model's own limit, or less if two such sequences do not fit in the KV cache."""
    weights_gib: float
    """Size of the model's weights as loaded, over all GPUs, in GiB, before quantization by vLLM, if the plan estimates it wrongly; 0: read from the Hub's list of files, or computed from config.json."""
    kv_bytes_per_token: int
    """Bytes that each token adds to the KV cache, over all GPUs, if the plan estimates them wrongly; 0: computed from config.json."""
    quantization: str
    """Weight quantization; empty: the checkpoint's own; auto: quantize a 16-bit checkpoint to FP8 on GPUs with FP8 support (l4, l40s, h100 and newer), for about 25% more tokens per second at slightly lower precision."""
    kv_cache_dtype: str
    """Data type of the KV cache; fp8 halves its size (not supported on T4, A10G and A100). Default: auto."""
    speculative: str
    """Speculative decoding: empty (none), ngram[:TOKENS], mtp[:TOKENS], DRAFT_MODEL[:TOKENS], eagle:MODEL[:TOKENS], eagle3:MODEL[:TOKENS], or a JSON object for vLLM's --speculative-config."""
    enable_prefix_caching: bool
    """Reuse the KV cache of prompts that share a prefix. Default: true."""
    performance_mode: str
    """vLLM's --performance-mode: balanced, interactivity (a CUDA graph for each batch up to 32) or throughput (batch limits doubled). Default: balanced."""
    lora_adapters: Sequence[str]
    """LoRA adapters, each NAME=HUB_ID, NAME=HUB_ID@REVISION or NAME=PATH (a path in the engine's container); clients send NAME as `model`."""
    max_lora_rank: int
    """Maximum rank of loraAdapters: 8, 16, 32, 64, 128 or 256. Default: 16."""
    image_limit: int
    """Maximum number of images per request, for vision models. Default: 5."""
    video_limit: int
    """Maximum number of videos per request, for vision models. Default: 1."""
    media_hosts: Sequence[str]
    """Private-network hosts from which images and videos may be fetched by URL, in addition to all public hosts."""
    reasoning_parser: str
    """vLLM's reasoning parser, such as qwen3, which returns the model's reasoning apart from its answer; empty: chosen for known families of models; none: it stays in the answer."""
    tool_call_parser: str
    """vLLM's tool call parser, such as hermes; empty: chosen for known families of models; none: requests with tools are rejected."""
    tokenizer_mode: str
    """vLLM's tokenizer mode, such as mistral; empty: chosen for known families of models; none: vLLM's own default."""
    gpu_memory_utilization: float
    """Fraction of GPU memory that vLLM may use, 0.3 to 0.98. Default: 0.92."""
    max_num_seqs: int
    """Maximum sequences per batch; 0: vLLM's default for the GPU."""
    max_num_batched_tokens: int
    """Maximum tokens per batch; 0: vLLM's default for the GPU."""
    fast_boot: str
    """true: store vLLM's compile cache with the weights; false: compile at every start; eager: never compile (starts at most 8 s faster, with a quarter of the throughput). Default: true."""
    engine_args: Sequence[str]
    """Additional arguments for `vllm serve`, one word an item, such as [--seed, 1]; those that a setting sets are rejected."""
    engine_environment: Sequence[str]
    """Additional environment variables for the engine, each NAME=value; no secrets."""
    engine_image: str
    """Container image of the engine; empty: the upstream vLLM image of the pinned version."""
    docker_hub_credentials_arn: pulumi.Input[str]
    """ARN of a secret with Docker Hub credentials, whose name starts with ecr-pullthroughcache/; the engine's image is then pulled once through an ECR pull-through cache instead of by each instance over the NAT gateway."""
    gpu: str
    """GPU class: t4, a10g, l4, l40s, rtx-pro-4500, rtx-pro-6000, a100, h100, h200, b200 or b300. Default: a10g."""
    gpu_count: int
    """GPUs per replica: 1, 2, 4 or 8. Used for tensor parallelism unless dataParallelSize is set. Default: 1."""
    data_parallel_size: int
    """Copies of the model per replica, each on gpuCount / dataParallelSize GPUs, behind one port: 1, 2, 4 or 8. For models that fit on fewer GPUs than the instance has. Default: 1."""
    instance_types: Sequence[str]
    """EC2 instance types in order of preference; empty: chosen from gpu and gpuCount."""
    capacity: str
    """How instances are purchased: on-demand, spot, reservation (a targeted capacity reservation) or capacity-block. Default: on-demand."""
    capacity_reservation_id: pulumi.Input[str]
    """Id of the capacity reservation (cr-...) for capacity: reservation or capacity-block."""
    warm_pool: int
    """Stopped instances in the warm pool, with the engine's image on disk; on-demand only."""
    shared_memory_gib: int
    """Shared memory (/dev/shm) of the engine's container, in GiB; 0: the plan decides."""
    weights_throughput: str
    """EFS throughput mode. bursting: reads are free, at up to 300 MiB/s; elastic: faster, at $0.03 per GB that a cold start reads. Default: bursting."""
    weights_file_system_id: str
    """Existing EFS file system to read weights from, such as one retained by a destroyed stack; it is never changed or deleted. Empty: the stack creates its own."""
    min_replicas: int
    """Minimum engine replicas; 0: scale to zero."""
    max_replicas: int
    """Maximum engine replicas. Default: 1."""
    scale_down_minutes: int
    """Minutes without requests after which replicas above minReplicas are stopped; 0: 10, or the expected duration of a cold start if that is longer."""
    wakes_per_day: int
    """Expected cold starts per day of a stack that scales to zero, for the monthly bill of the plan; it changes nothing that is deployed. Default: 4."""
    startup_timeout_minutes: int
    """Timeout of a cold start in minutes: instance, image, weights, load, compile; 0: 20, or twice the expected duration of a cold start if that is longer, up to 55."""
    scale_out_cooldown_minutes: int
    """Minutes to wait after adding a replica before adding another; 0: the expected duration of a cold start."""
    concurrency_per_replica: int
    """Maximum requests in flight per replica; the gateway queues the rest. Default: 16."""
    gateway_image: pulumi.Input[str]
    """Container image of the gateway; empty: built by Pulumi and pushed to the stack's own repository."""
    gateway_count: int
    """Number of gateways, spread over zones; they always run. Default: 1."""
    gateway_cpu: int
    """CPU units per gateway on Fargate: 256, 512, 1024, 2048, 4096, 8192 or 16384 (1024 is one vCPU). Default: 512."""
    gateway_memory_mib: int
    """Memory per gateway on Fargate, in MiB. Default: 1024."""
    port: int
    """Port of the endpoint; 0: 443 with a certificate, 80 without, 8000 with make local."""
    api_keys: pulumi.Input[str]
    """API keys: name=key pairs or one bare key, separated by commas; empty: one is generated."""
    api_keys_document: pulumi.Input[str]
    """API keys as one JSON document, with limits, expiry and priority per key (docs/keys.md); use instead of apiKeys."""
    allowed_origins: Sequence[str]
    """CORS origins whose web pages may call the endpoint, such as https://app.example.com; *: all; empty: none."""
    gateway_environment: Sequence[str]
    """Additional environment variables for the gateway, each NAME=value: gateway settings (docs/gateway.md), OTEL_EXPORTER_OTLP_ENDPOINT, a proxy; no secrets."""
    hf_token: pulumi.Input[str]
    """Hugging Face token, for gated models."""
    certificate_arn: pulumi.Input[str]
    """ARN of an ACM certificate for HTTPS, in the stack's region."""
    domain: str
    """Domain name of the endpoint, in a Route 53 zone of this account; a certificate is created unless certificateArn is set."""
    hosted_zone: str
    """Route 53 zone that contains domain; empty: the domain without its first label."""
    hosted_zone_id: pulumi.Input[str]
    """Id of the Route 53 zone that contains domain, for a zone that the name does not find; empty: found by its name."""
    allowed_cidrs: Sequence[str]
    """CIDR ranges that may connect to the load balancer, over plain HTTP unless certificateArn or domain is set. Empty: an internal load balancer, or with HTTPS, open to the internet."""
    allowed_security_group_ids: pulumi.Input[Sequence[pulumi.Input[str]]]
    """Security groups of vpcId whose members may connect to the load balancer, in addition to allowedCidrs. If it is internal and allowedCidrs is empty, only they may."""
    allow_http_from_anywhere: bool
    """Confirm that 0.0.0.0/0 or ::/0 in allowedCidrs may use plain HTTP; API keys are then sent over the internet unencrypted. Default: false."""
    waf_requests_per_five_minutes: int
    """Rate limit per client address in requests per five minutes, at least 10, enforced by AWS WAF; 0: no WAF."""
    access_logs: bool
    """Write the load balancer's access logs to an S3 bucket. Default: false."""
    vpc_id: pulumi.Input[str]
    """Existing VPC; empty: the stack creates one."""
    subnet_ids: pulumi.Input[Sequence[pulumi.Input[str]]]
    """Private subnets in vpcId, at least two, in different zones."""
    load_balancer_subnet_ids: pulumi.Input[Sequence[pulumi.Input[str]]]
    """Public subnets in vpcId for an internet-facing load balancer; empty: an internal one in subnetIds."""
    nat_gateways: str
    """NAT gateways in a VPC that the stack creates: none, single or per-zone. Default: single."""
    flow_logs: str
    """VPC flow logs in a VPC that the stack creates: none, reject (rejected connections only) or all. Default: reject."""
    dashboard: bool
    """Create a CloudWatch dashboard; the first three per account are free. Default: true."""
    kms_key_arn: pulumi.Input[str]
    """ARN of the KMS key that encrypts weights, disks, secrets, logs and images; empty: AWS managed keys."""
    log_retention_days: int
    """Retention of logs in days. Default: 30."""
    ttl_hours: int
    """Hours after a deploy at which the stack is scaled to zero; 0: never."""
    monthly_budget_usd: int
    """Monthly budget in US dollars; warnings are sent at 50, 80 and 100%; 0: no budget."""
    alarm_email: str
    """Email address for alarms and budget warnings."""
    owner: str
    """Person or team, for the Owner tag: letters, digits, spaces and _ . : / = + - @."""
    protect: bool
    """Retain the weight cache, logs and images when the stack is destroyed, and protect the load balancer from accidental deletion. Default: false."""
    results_bucket: pulumi.Input[str]
    """S3 bucket where make verify stores results; empty: a local folder."""
    verify_max_slowdown_percent: int
    """Maximum regression of throughput and of median latencies, in percent, before make verify fails. Default: 10."""
    verify_max_tail_slowdown_percent: int
    """Maximum regression of p99 latencies, in percent, before make verify fails. Default: 25."""
    verify_max_cost_increase_percent: int
    """Maximum increase of the cost per million tokens, in percent, before make verify fails. Default: 10."""
    verify_max_cold_start_slowdown_percent: int
    """Maximum increase of a measured cold start, in percent, before make verify fails. Default: 25."""
    verify_max_success_rate_drop_percent: int
    """Maximum drop of the request success rate, in percentage points, before make verify fails. Default: 1."""


class VllmEndpointOnKubernetesArgs(TypedDict, total=False):
    """Arguments of `VllmEndpointOnKubernetes`, an endpoint on a Kubernetes cluster."""

    model: str
    """Model to serve: a Hugging Face Hub id (org/name), s3://BUCKET/PREFIX, or the path of a folder in engineImage; for make local, also a folder of this machine. Default: Qwen/Qwen3-4B-Instruct-2507."""
    model_revision: str
    """Branch, tag or commit of the model; empty: the Hub's main branch."""
    base_model: str
    """Hub id of the model that model is a fine-tune of, if model's config.json cannot be read or its name does not name its family; memory and parsers are then planned for it."""
    served_model_name: str
    """Names that clients may send as `model`, separated by commas; responses contain the first. Empty: the Hub id, or the last part of a path."""
    hub_endpoint: str
    """URL of a mirror of the Hugging Face Hub, for planning, downloads and the engine (HF_ENDPOINT); empty: https://huggingface.co."""
    max_model_len: int
    """Context length (prompt plus output), in tokens; 0: the model's own limit, or less if two such sequences do not fit in the KV cache."""
    weights_gib: float
    """Size of the model's weights as loaded, over all GPUs, in GiB, before quantization by vLLM, if the plan estimates it wrongly; 0: read from the Hub's list of files, or computed from config.json."""
    kv_bytes_per_token: int
    """Bytes that each token adds to the KV cache, over all GPUs, if the plan estimates them wrongly; 0: computed from config.json."""
    quantization: str
    """Weight quantization; empty: the checkpoint's own; auto: quantize a 16-bit checkpoint to FP8 on GPUs with FP8 support (l4, l40s, h100 and newer), for about 25% more tokens per second at slightly lower precision."""
    kv_cache_dtype: str
    """Data type of the KV cache; fp8 halves its size (not supported on T4, A10G and A100). Default: auto."""
    speculative: str
    """Speculative decoding: empty (none), ngram[:TOKENS], mtp[:TOKENS], DRAFT_MODEL[:TOKENS], eagle:MODEL[:TOKENS], eagle3:MODEL[:TOKENS], or a JSON object for vLLM's --speculative-config."""
    enable_prefix_caching: bool
    """Reuse the KV cache of prompts that share a prefix. Default: true."""
    performance_mode: str
    """vLLM's --performance-mode: balanced, interactivity (a CUDA graph for each batch up to 32) or throughput (batch limits doubled). Default: balanced."""
    lora_adapters: Sequence[str]
    """LoRA adapters, each NAME=HUB_ID, NAME=HUB_ID@REVISION or NAME=PATH (a path in the engine's container); clients send NAME as `model`."""
    max_lora_rank: int
    """Maximum rank of loraAdapters: 8, 16, 32, 64, 128 or 256. Default: 16."""
    image_limit: int
    """Maximum number of images per request, for vision models. Default: 5."""
    video_limit: int
    """Maximum number of videos per request, for vision models. Default: 1."""
    media_hosts: Sequence[str]
    """Private-network hosts from which images and videos may be fetched by URL, in addition to all public hosts."""
    reasoning_parser: str
    """vLLM's reasoning parser, such as qwen3, which returns the model's reasoning apart from its answer; empty: chosen for known families of models; none: it stays in the answer."""
    tool_call_parser: str
    """vLLM's tool call parser, such as hermes; empty: chosen for known families of models; none: requests with tools are rejected."""
    tokenizer_mode: str
    """vLLM's tokenizer mode, such as mistral; empty: chosen for known families of models; none: vLLM's own default."""
    gpu_memory_utilization: float
    """Fraction of GPU memory that vLLM may use, 0.3 to 0.98. Default: 0.92."""
    max_num_seqs: int
    """Maximum sequences per batch; 0: vLLM's default for the GPU."""
    max_num_batched_tokens: int
    """Maximum tokens per batch; 0: vLLM's default for the GPU."""
    fast_boot: str
    """true: store vLLM's compile cache with the weights; false: compile at every start; eager: never compile (starts at most 8 s faster, with a quarter of the throughput). Default: true."""
    engine_args: Sequence[str]
    """Additional arguments for `vllm serve`, one word an item, such as [--seed, 1]; those that a setting sets are rejected."""
    engine_environment: Sequence[str]
    """Additional environment variables for the engine, each NAME=value; no secrets."""
    engine_image: str
    """Container image of the engine; empty: the upstream vLLM image of the pinned version."""
    gpu: str
    """GPU class: t4, a10g, l4, l40s, rtx-pro-4500, rtx-pro-6000, a100, h100, h200, b200 or b300. Default: a10g."""
    gpu_count: int
    """GPUs per replica: 1, 2, 4 or 8. Used for tensor parallelism unless dataParallelSize is set. Default: 1."""
    data_parallel_size: int
    """Copies of the model per replica, each on gpuCount / dataParallelSize GPUs, behind one port: 1, 2, 4 or 8. For models that fit on fewer GPUs than the instance has. Default: 1."""
    instance_types: Sequence[str]
    """EC2 instance types in order of preference; empty: chosen from gpu and gpuCount."""
    shared_memory_gib: int
    """Shared memory (/dev/shm) of the engine's container, in GiB; 0: the plan decides."""
    min_replicas: int
    """Minimum engine replicas; 0: scale to zero."""
    max_replicas: int
    """Maximum engine replicas. Default: 1."""
    scale_down_minutes: int
    """Minutes without requests after which replicas above minReplicas are stopped; 0: 10, or the expected duration of a cold start if that is longer."""
    wakes_per_day: int
    """Expected cold starts per day of a stack that scales to zero, for the monthly bill of the plan; it changes nothing that is deployed. Default: 4."""
    startup_timeout_minutes: int
    """Timeout of a cold start in minutes: instance, image, weights, load, compile; 0: 20, or twice the expected duration of a cold start if that is longer, up to 55."""
    scale_out_cooldown_minutes: int
    """Minutes to wait after adding a replica before adding another; 0: the expected duration of a cold start."""
    concurrency_per_replica: int
    """Maximum requests in flight per replica; the gateway queues the rest. Default: 16."""
    gateway_image: pulumi.Input[str]
    """Container image of the gateway; empty: built by Pulumi and pushed to the stack's own repository."""
    gateway_count: int
    """Number of gateways, spread over zones; they always run. Default: 1."""
    gateway_memory_mib: int
    """Memory per gateway on Fargate, in MiB. Default: 1024."""
    port: int
    """Port of the endpoint; 0: 443 with a certificate, 80 without, 8000 with make local."""
    api_keys: pulumi.Input[str]
    """API keys: name=key pairs or one bare key, separated by commas; empty: one is generated."""
    api_keys_document: pulumi.Input[str]
    """API keys as one JSON document, with limits, expiry and priority per key (docs/keys.md); use instead of apiKeys."""
    allowed_origins: Sequence[str]
    """CORS origins whose web pages may call the endpoint, such as https://app.example.com; *: all; empty: none."""
    gateway_environment: Sequence[str]
    """Additional environment variables for the gateway, each NAME=value: gateway settings (docs/gateway.md), OTEL_EXPORTER_OTLP_ENDPOINT, a proxy; no secrets."""
    hf_token: pulumi.Input[str]
    """Hugging Face token, for gated models."""
    certificate_arn: pulumi.Input[str]
    """ARN of an ACM certificate for HTTPS, in the stack's region."""
    domain: str
    """Domain name of the endpoint, in a Route 53 zone of this account; a certificate is created unless certificateArn is set."""
    allowed_cidrs: Sequence[str]
    """CIDR ranges that may connect to the load balancer, over plain HTTP unless certificateArn or domain is set. Empty: an internal load balancer, or with HTTPS, open to the internet."""
    allow_http_from_anywhere: bool
    """Confirm that 0.0.0.0/0 or ::/0 in allowedCidrs may use plain HTTP; API keys are then sent over the internet unencrypted. Default: false."""
    kubernetes_namespace: str
    """Namespace that the stack creates (target kubernetes). Default: vllm."""
    kubernetes_ingress_class: str
    """IngressClass of the Ingress; empty: the cluster's default (target kubernetes)."""
    kubernetes_storage_class: pulumi.Input[str]
    """StorageClass of the weight cache; must support ReadWriteMany for more than one replica; empty: the cluster's default (target kubernetes)."""
    owner: str
    """Person or team, for the Owner tag: letters, digits, spaces and _ . : / = + - @."""
    protect: bool
    """Retain the weight cache, logs and images when the stack is destroyed, and protect the load balancer from accidental deletion. Default: false."""
    verify_max_slowdown_percent: int
    """Maximum regression of throughput and of median latencies, in percent, before make verify fails. Default: 10."""
    verify_max_tail_slowdown_percent: int
    """Maximum regression of p99 latencies, in percent, before make verify fails. Default: 25."""
    verify_max_cost_increase_percent: int
    """Maximum increase of the cost per million tokens, in percent, before make verify fails. Default: 10."""
    verify_max_cold_start_slowdown_percent: int
    """Maximum increase of a measured cold start, in percent, before make verify fails. Default: 25."""
    verify_max_success_rate_drop_percent: int
    """Maximum drop of the request success rate, in percentage points, before make verify fails. Default: 1."""
