"""``protect: true``: nothing that serves is deleted or replaced, whichever command asks for it.

Pulumi looks at the protection of a resource only when its turn to be deleted comes, and deletes against dependencies: by
the time a destroy reaches a protected load balancer, the services, scaling and alarms in front of it are gone. So there is a
guard that depends on everything and is protected itself: its turn comes first, and nothing is deleted after a refusal.
A replacement is refused resource by resource; those that clients notice are protected each.
"""

from __future__ import annotations

import pulumi

# Replaced only by a change that takes the endpoint, its address or its weights away. Task definitions, secrets' values,
# rules and schedules are replaced by everyday changes.
SERVING = frozenset({
    "aws:autoscaling/group:Group",
    "aws:ec2/vpc:Vpc",
    "aws:ecs/capacityProvider:CapacityProvider",
    "aws:ecs/cluster:Cluster",
    "aws:ecs/service:Service",
    "aws:efs/accessPoint:AccessPoint",
    "aws:efs/fileSystem:FileSystem",
    "aws:lb/loadBalancer:LoadBalancer",
    "aws:servicediscovery/privateDnsNamespace:PrivateDnsNamespace",
    "aws:servicediscovery/service:Service",
    "kubernetes:apps/v1:Deployment",
    "kubernetes:core/v1:Namespace",
    "kubernetes:core/v1:Service",
    "kubernetes:networking.k8s.io/v1:Ingress",
})  # fmt: skip


class Protection:
    """Notes every resource that is declared after it, and protects those that serve.

    Args:
        protect: whether anything is protected at all.
    """

    def __init__(self, protect: bool) -> None:
        self._protect = protect
        self._declared: list[pulumi.Resource] = []
        pulumi.runtime.register_stack_transformation(self._note)

    def guard(self) -> Guard:
        """The guard of everything that was declared so far; to be made last.

        It exists without ``protect``, too: what is no longer protected must be updated before it can be deleted.
        """
        return Guard("guard", pulumi.ResourceOptions(protect=self._protect, depends_on=list(self._declared)))

    def _note(self, args: pulumi.ResourceTransformationArgs) -> pulumi.ResourceTransformationResult | None:
        if isinstance(args.resource, Guard):
            return None
        if not isinstance(args.resource, pulumi.ComponentResource):
            self._declared.append(args.resource)
        if not (self._protect and args.type_ in SERVING):
            return None
        options = pulumi.ResourceOptions.merge(args.opts, pulumi.ResourceOptions(protect=True))
        return pulumi.ResourceTransformationResult(args.props, options)


class Guard(pulumi.ComponentResource):
    """Depends on everything, so that a destroy meets it first."""

    def __init__(self, name: str, opts: pulumi.ResourceOptions) -> None:
        super().__init__("vllm:index:Guard", name, None, opts)
        self.register_outputs({})
