"""Helpers shared by the components: type tokens, labels, security contexts, probes, environment."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import pulumi
from pulumi_kubernetes import core, meta

from infra.identity import Identity
from infra.settings import PROJECT

LONGEST_LABEL = 63
COMPONENTS = "vllm:kubernetes"
"""Package and module of the components' type tokens."""


@dataclass(frozen=True)
class Labels:
    """The recommended Kubernetes labels, for one endpoint, and the names that its resources have in Pulumi's state.

    A stack can have any name that Pulumi accepts; as a label value it is truncated to 63 characters that start and end with
    a letter or digit.
    """

    identity: Identity

    def logical(self, name: str) -> str:
        """A resource's name in Pulumi's state, unique in the stack. In the cluster, the namespace tells endpoints apart."""
        return self.identity.record(name)

    @property
    def common(self) -> dict[str, str]:
        """The labels of all objects of the endpoint."""
        instance = re.sub(r"[^A-Za-z0-9._-]", "-", self.identity.stack)[:63].strip("._-")
        return {
            "app.kubernetes.io/name": PROJECT,
            "app.kubernetes.io/instance": self.identity.prefix(LONGEST_LABEL) if self.identity.endpoint else instance,
            "app.kubernetes.io/managed-by": "pulumi",
        }

    def of(self, component: str) -> dict[str, str]:
        """The labels of a component's objects, also used to select its pods. A Deployment's selector is immutable."""
        return self.common | {"app.kubernetes.io/component": component}

    def metadata(
        self,
        component: str,
        namespace: pulumi.Input[str],
        *,
        name: str | None = None,
        annotations: Mapping[str, pulumi.Input[str]] | None = None,
    ) -> meta.v1.ObjectMetaArgs:
        """The metadata of one object of a component; without a name, Pulumi generates one, which changes at a replacement."""
        return meta.v1.ObjectMetaArgs(
            name=name, namespace=namespace, labels=self.of(component), annotations=dict(annotations or {}) or None
        )


def pod_security(user: int, group: int, volumes_group: int) -> core.v1.PodSecurityContextArgs:
    """A pod that satisfies the Pod Security Standard "restricted"; its volumes are writable by ``volumes_group``."""
    return core.v1.PodSecurityContextArgs(
        run_as_non_root=True,
        run_as_user=user,
        run_as_group=group,
        fs_group=volumes_group,
        # Avoid changing the ownership of a cache of many gigabytes at every start.
        fs_group_change_policy="OnRootMismatch",
        seccomp_profile=core.v1.SeccompProfileArgs(type="RuntimeDefault"),
    )


def container_security(*, read_only_root: bool) -> core.v1.SecurityContextArgs:
    """A container without any privileges."""
    return core.v1.SecurityContextArgs(
        allow_privilege_escalation=False,
        capabilities=core.v1.CapabilitiesArgs(drop=["ALL"]),
        read_only_root_filesystem=read_only_root,
    )


def http_probe(path: str, *, period: int, timeout: int, failures: int) -> core.v1.ProbeArgs:
    """A probe of the port named ``http``; ``period`` and ``timeout`` in seconds."""
    return core.v1.ProbeArgs(
        http_get=core.v1.HTTPGetActionArgs(path=path, port="http"),
        period_seconds=period,
        timeout_seconds=timeout,
        failure_threshold=failures,
    )


def literal(text: str) -> str:
    """Escape a value so that Kubernetes passes it unchanged: ``$(NAME)`` in arguments and variables would be expanded."""
    return text.replace("$(", "$$(")


def environment(values: Mapping[str, str]) -> list[core.v1.EnvVarArgs]:
    """Plain variables, sorted, so that their order never restarts a pod."""
    return [core.v1.EnvVarArgs(name=name, value=literal(value)) for name, value in sorted(values.items())]
