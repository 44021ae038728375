"""An EKS cluster made by pulumi-eks, with a vLLM endpoint on it. `pulumi install` generates `pulumi_vllm_endpoint`."""

import pulumi
import pulumi_eks as eks
import pulumi_kubernetes as kubernetes
from pulumi_vllm_endpoint import VllmEndpointOnKubernetes

# The cluster needs NVIDIA's device plugin, and a StorageClass for the weights (ReadWriteMany for more than one replica).
cluster = eks.Cluster("llm", instance_type="g5.xlarge", min_size=1, max_size=2, desired_capacity=1)
provider = kubernetes.Provider("llm", kubeconfig=cluster.kubeconfig_json)

chat = VllmEndpointOnKubernetes(
    "chat",
    model="Qwen/Qwen3-4B-Instruct-2507",
    gpu="a10g",
    min_replicas=1,
    gateway_image="ghcr.io/example/vllm-endpoint-gateway:0.1.0",
    opts=pulumi.ResourceOptions(provider=provider),
)

pulumi.export("url", chat.openai_base_url)
pulumi.export("namespace", chat.namespace)
