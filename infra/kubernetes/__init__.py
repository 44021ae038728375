"""The plan as Deployments, Services, a volume and an Ingress on a cluster that exists."""

from infra.kubernetes.stack import deploy

__all__ = ["deploy"]
