"""What a change of a deployed stack means to those who use its endpoint, said at preview."""

from infra.changes.facts import endpoint_of, estimate_of, place_of
from infra.changes.place import hold_place
from infra.changes.watch import Watch

__all__ = ["Watch", "endpoint_of", "estimate_of", "hold_place", "place_of"]
