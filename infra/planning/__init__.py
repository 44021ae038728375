"""Makes the serving plan from settings and a catalog: pure Python, without Pulumi or an AWS account."""

from infra.planning.serving import make_plan

__all__ = ["make_plan"]
