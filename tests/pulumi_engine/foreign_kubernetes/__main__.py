"""Somebody else's program: two endpoints on the cluster of a provider of its own."""

import os
import sys

import pulumi
import pulumi_kubernetes as kubernetes
import pulumi_random as random

sys.path.insert(0, os.environ["SCENE_ROOT"])

from infra.kubernetes.endpoint import VllmEndpointOnKubernetes

config = pulumi.Config()
cluster = kubernetes.Provider("cluster", kubeconfig="{}")
keys = random.RandomPassword("keys", length=40, special=False)
for name in ("chat", "batch"):
    endpoint = VllmEndpointOnKubernetes(
        name,
        {"gateway_image": "registry.example.com/gateway:1", "gateway_count": config.get_int(f"{name}Gateways") or 1},
        opts=pulumi.ResourceOptions(provider=cluster),
        api_keys=keys.result.apply(lambda text: f"team=sk-{text}"),
    )
    pulumi.export(f"{name}Url", endpoint.openai_base_url)
    pulumi.export(f"{name}Namespace", endpoint.namespace)
