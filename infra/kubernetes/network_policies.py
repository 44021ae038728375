"""Who may talk to whom. A cluster whose network plugin knows no policies ignores these."""

from __future__ import annotations

from dataclasses import dataclass

import pulumi
from pulumi_kubernetes import meta, networking

from infra.kubernetes import engine, gateway
from infra.kubernetes.pods import COMPONENTS, Labels


@dataclass(frozen=True)
class NetworkPoliciesArgs:
    """Ports are the pods', not the Services'."""

    namespace: pulumi.Input[str]
    labels: Labels
    engine_port: int
    gateway_port: int
    metrics_port: int


class NetworkPolicies(pulumi.ComponentResource):
    """The engine hears the gateway alone; the gateway hears everybody, its metrics port only the cluster's pods.

    There is no policy for all other pods of the namespace: a certificate's challenge may be answered by one.
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
                component,
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
    """Let the peers, or everybody where none is named, reach a port."""
    return networking.v1.NetworkPolicyIngressRuleArgs(
        from_=list(peers) or None, ports=[networking.v1.NetworkPolicyPortArgs(port=port, protocol="TCP")]
    )
