"""The plan as AWS resources: ECS, EFS, an Auto Scaling group, a load balancer."""

from infra.aws.deploy import deploy

__all__ = ["deploy"]
