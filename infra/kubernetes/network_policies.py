"""NetworkPolicies for allowed connections. Clusters whose network plugin does not support policies ignore them."""

from __future__ import annotations

from dataclasses import dataclass

import pulumi
from pulumi_kubernetes import meta, networking

from infra.kubernetes import engine, gateway
from infra.kubernetes.pods import COMPONENTS, Labels


@dataclass(frozen=True)
class NetworkPoliciesArgs:
    """The inputs; ports are those of the pods, not of the Services."""

    namespace: pulumi.Input[str]
    labels: Labels
    engine_port: int
    gateway_port: int
    metrics_port: int


class NetworkPolicies(pulumi.ComponentResource):
    """Only the gateway may connect to the engine. Anyone may connect to the gateway; its metrics port accepts pods only.

    Other pods of the namespace have no policy, because one of them may answer a certificate's ACME challenge.
    """

    def __init__(self, name: str, args: NetworkPoliciesArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(f"{COMPONENTS}:NetworkPolicies", name, None, opts)
        gateways = networking.v1.NetworkPolicyPeerArgs(
            pod_selector=meta.v1.LabelSelectorArgs(match_labels=args.labels.of(gateway.NAME))
        )
        any_pod = networking.v1.NetworkPolicyPeerArgs(namespace_selector=meta.v1.LabelSelectorArgs())
        rules = {
            engine.NAME: [_rule(args.engine_port, gateways)],
            gateway.NAME: [_rule(args.gateway_port), _rule(args.metrics_port, any_pod)],
        }
        for component, ingress in rules.items():
            networking.v1.NetworkPolicy(
                args.labels.logical(component),
                metadata=args.labels.metadata(component, args.namespace, name=component),
                spec=networking.v1.NetworkPolicySpecArgs(
                    pod_selector=meta.v1.LabelSelectorArgs(match_labels=args.labels.of(component)),
                    policy_types=["Ingress"],
                    ingress=ingress,
                ),
                opts=pulumi.ResourceOptions(parent=self),
            )
        self.register_outputs({})


def _rule(port: int, *peers: networking.v1.NetworkPolicyPeerArgs) -> networking.v1.NetworkPolicyIngressRuleArgs:
    """Allow the peers, or everyone if there are no peers, to connect to a port."""
    return networking.v1.NetworkPolicyIngressRuleArgs(
        from_=list(peers) or None, ports=[networking.v1.NetworkPolicyPortArgs(port=port, protocol="TCP")]
    )
