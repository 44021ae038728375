"""``protect: true``: prevents any command from deleting or replacing resources that serve clients.

Pulumi checks the protection of a resource only when it is about to delete it, and deletes in reverse dependency order: by
the time a destroy reaches a protected load balancer, the services, scaling policies and alarms that depend on it are gone.
Therefore a protected guard resource depends on everything: Pulumi tries to delete it first, fails, and deletes nothing.
Replacements are rejected per resource, so each resource whose replacement affects clients is protected too.
"""

from __future__ import annotations

import pulumi

# Resources that are replaced only by a change that removes the endpoint, its address or its weights. Task definitions,
# secret versions, rules and schedules are not in the list, because routine changes replace them.
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
    """Records every resource that is declared afterwards, and protects those that serve clients.

    Args:
        protect: whether protection is enabled.
    """

    def __init__(self, protect: bool) -> None:
        self._protect = protect
        self._declared: list[pulumi.Resource] = []

    def guard(self, name: str, component: pulumi.Resource) -> Guard:
        """Declare the guard of a component, which depends on all children declared so far. Call it last.

        The guard also exists without ``protect``, because turning protection off requires an update before a delete.
        """
        options = pulumi.ResourceOptions(
            parent=component, protect=self._protect or None, depends_on=list(self._declared)
        )
        return Guard(name, options)

    def note(self, args: pulumi.ResourceTransformationArgs) -> pulumi.ResourceTransformationResult | None:
        """A transformation of the component, which applies to its children."""
        if isinstance(args.resource, Guard):
            return None
        if not isinstance(args.resource, pulumi.ComponentResource):
            self._declared.append(args.resource)
        if not (self._protect and args.type_ in SERVING):
            return None
        options = pulumi.ResourceOptions.merge(args.opts, pulumi.ResourceOptions(protect=True))
        return pulumi.ResourceTransformationResult(args.props, options)


class Guard(pulumi.ComponentResource):
    """Depends on everything, so that a destroy tries to delete it first."""

    def __init__(self, name: str, opts: pulumi.ResourceOptions) -> None:
        super().__init__("vllm:index:Guard", name, None, opts)
        self.register_outputs({})
