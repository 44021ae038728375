"""The gateway's permissions in the cluster: to scale up the engine's Deployment, and to diagnose why it does not start."""

from __future__ import annotations

from dataclasses import dataclass

import pulumi
from pulumi_kubernetes import core, rbac

from infra.kubernetes import engine
from infra.kubernetes.pods import COMPONENTS, Labels

NAME = "gateway"


@dataclass(frozen=True)
class GatewayAccessArgs:
    """The inputs; everything is in one namespace."""

    namespace: pulumi.Input[str]
    labels: Labels


class GatewayAccess(pulumi.ComponentResource):
    """A service account with the permissions that `image/gateway/capacity/kubernetes.py` requires.

    ``service_account``: its name.
    """

    service_account: pulumi.Output[str]

    def __init__(self, name: str, args: GatewayAccessArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(f"{COMPONENTS}:GatewayAccess", name, None, opts)
        children = pulumi.ResourceOptions(parent=self)
        logical = args.labels.logical(NAME)
        metadata = args.labels.metadata(NAME, args.namespace, name=NAME)
        account = core.v1.ServiceAccount(
            logical, metadata=metadata, automount_service_account_token=False, opts=children
        )
        self.service_account = account.metadata.apply(lambda metadata: str(metadata.name))
        role = rbac.v1.Role(
            logical,
            metadata=metadata,
            rules=[
                _rule("apps", "deployments/scale", ["get", "patch"], engine.NAME),
                _rule("apps", "deployments", ["get"], engine.NAME),
                # The list verb cannot be restricted to names; pods contain only references to secrets.
                _rule("", "pods", ["list"]),
            ],
            opts=children,
        )
        rbac.v1.RoleBinding(
            logical,
            metadata=metadata,
            role_ref=rbac.v1.RoleRefArgs(
                api_group="rbac.authorization.k8s.io", kind="Role", name=role.metadata.apply(lambda of: str(of.name))
            ),
            subjects=[rbac.v1.SubjectArgs(kind="ServiceAccount", name=self.service_account, namespace=args.namespace)],
            opts=children,
        )
        self.register_outputs({"service_account": self.service_account})


def _rule(group: str, resource: str, verbs: list[str], name: str | None = None) -> rbac.v1.PolicyRuleArgs:
    return rbac.v1.PolicyRuleArgs(
        api_groups=[group], resources=[resource], verbs=verbs, resource_names=[name] if name else None
    )
