"""What a user knows better than the plan: the size of the weights, and the bytes that a token adds to the cache."""

from __future__ import annotations

from dataclasses import replace

from infra.planning.architecture.caches import Cache
from infra.planning.catalog.models import GIB, ModelArchitecture
from infra.settings import Settings


def overridden(architecture: ModelArchitecture, settings: Settings) -> ModelArchitecture:
    """The architecture with ``weightsGib`` and ``kvBytesPerToken`` in place of what was read or computed.

    With both set nothing is estimated any more, so that the doubts about the config no longer matter.
    """
    if settings.weights_gib:
        architecture = replace(architecture, checkpoint_bytes=int(settings.weights_gib * GIB), stored_bits=16)
    if settings.kv_bytes_per_token and architecture.keeps_cache:
        states = tuple(cache for cache in architecture.caches if cache.kind in ("state", "cross"))
        # The bytes are those of the cache's own data type.
        grown = Cache("full", 1, heads=architecture.num_key_value_heads, index_bytes=settings.kv_bytes_per_token)
        architecture = replace(architecture, caches=(*states, grown))
    if settings.weights_gib and (settings.kv_bytes_per_token or not architecture.keeps_cache):
        architecture = replace(architecture, doubts=())
    return architecture
