"""Reports at preview how a change of a deployed stack affects the users of its endpoint."""

from infra.changes.facts import endpoint_of, estimate_of, place_of
from infra.changes.place import hold_place
from infra.changes.watch import Watch

__all__ = ["Watch", "endpoint_of", "estimate_of", "hold_place", "place_of"]
