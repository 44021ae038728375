"""What runs where, decided from settings and a catalog: pure Python, no Pulumi, no account."""

from infra.planning.serving import make_plan

__all__ = ["make_plan"]
