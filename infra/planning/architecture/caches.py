"""What a sequence keeps in GPU memory: bytes that grow with each token, windows, and states of a fixed size.

vLLM allocates the caches of a hybrid model in groups of equally many layers, from one pool of blocks: a kind of layer whose
number is not a multiple of the group's size is padded.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Kind = Literal["full", "latent", "sliding", "chunked", "state", "cross"]
BLOCK_TOKENS = 16


@dataclass(frozen=True)
class Cache:
    """The cache of ``layers`` layers of one kind.

    ``elements`` is per token and layer, over all KV heads; ``state_bytes`` per sequence and layer. ``heads`` is the number
    of KV heads that GPUs can divide, 0 if each GPU keeps everything. ``window`` is the number of tokens kept.
    ``index_bytes`` are per token and layer, and always of this width.
    """

    kind: Kind
    layers: int
    elements: float = 0.0
    heads: int = 0
    window: int = 0
    state_bytes: float = 0.0
    index_bytes: float = 0.0

    @property
    def grows(self) -> bool:
        """Whether each token of a sequence adds to it."""
        return self.kind in ("full", "latent")

    def share(self, tensor_parallel: int) -> float:
        """The part that one GPU keeps. With fewer heads than GPUs, heads are replicated."""
        if self.kind == "state":
            return 1 / tensor_parallel
        return max(self.heads // tensor_parallel, 1) / self.heads if self.heads else 1.0

    def token_bytes(self, width: int) -> float:
        """Bytes per token and layer."""
        return self.elements * width + self.index_bytes


def width_of(kv_cache_dtype: str) -> int:
    """Bytes of a cached element."""
    return 1 if kv_cache_dtype.startswith("fp8") else 2


def bytes_per_token(caches: Sequence[Cache], width: int) -> int:
    """Bytes that each token adds, over all layers that grow; of a model whose layers all slide, up to the window."""
    growing = [cache for cache in caches if cache.grows] or [
        cache for cache in caches if cache.kind in ("sliding", "chunked")
    ]
    return round(sum(cache.layers * cache.token_bytes(width) for cache in growing))


def state_bytes(caches: Sequence[Cache]) -> int:
    """Bytes that a sequence takes whatever its length, over all layers: states and cached encoder outputs."""
    return round(
        sum(cache.layers * (cache.state_bytes if cache.kind == "state" else 0.0) for cache in caches)
        + sum(cache.layers * cache.token_bytes(2) * cache.window for cache in caches if cache.kind == "cross")
    )


def sequence_bytes(
    caches: Sequence[Cache], length: int, width: int, tensor_parallel: int, batched_tokens: int, states: int = 1
) -> float:
    """Bytes that one sequence of this length takes on one GPU, as vLLM counts them when it starts."""
    attending = [cache for cache in caches if cache.kind != "state" and cache.layers]
    pages, group = _state_page(caches, width, tensor_parallel), _group_layers(caches)
    if pages and attending:
        # One pool of pages, of which each layer of a group takes one.
        blocks = sum(states * -(-cache.layers // group) for cache in caches if cache.kind == "state")
        for cache in attending:
            held = pages // (cache.token_bytes(width) * cache.share(tensor_parallel))
            blocks += -(-cache.layers // group) * math.ceil(_tokens(cache, length, batched_tokens) / held)
        return pages * group * blocks
    total = sum(states * cache.layers * cache.state_bytes * cache.share(tensor_parallel) for cache in caches)
    for cache in attending:
        tokens = -(-_tokens(cache, length, batched_tokens) // BLOCK_TOKENS) * BLOCK_TOKENS
        layers = -(-cache.layers // group) * group if group else cache.layers
        total += layers * cache.token_bytes(width) * cache.share(tensor_parallel) * tokens
    return total


def state_blocks(caches: Sequence[Cache], room: float, width: int, tensor_parallel: int) -> int:
    """Blocks of a hybrid model's pool on one GPU; 0 if no layer keeps a state.

    Each running sequence needs one, and vLLM does not start if ``max_num_seqs`` is above their number. All layers of a block
    have pages of one size: a state, or as many tokens as take at least as much.
    """
    page = _state_page(caches, width, tensor_parallel)
    layers = _group_layers(caches) or sum(cache.layers for cache in caches if cache.kind == "state")
    return int(room / (page * layers)) if page else 0


def _state_page(caches: Sequence[Cache], width: int, tensor_parallel: int) -> float:
    """Bytes of a page of a layer: a state, rounded up to whole blocks of tokens of the layers that attend. 0: no state."""
    states = [c.state_bytes * c.share(tensor_parallel) for c in caches if c.kind == "state" and c.layers]
    tokens = [c.token_bytes(width) * c.share(tensor_parallel) for c in caches if c.kind != "state" and c.layers]
    page, step = max(states, default=0.0), max(tokens, default=0.0) * BLOCK_TOKENS
    return math.ceil(page / step) * step if step else page


def _tokens(cache: Cache, length: int, batched_tokens: int) -> int:
    if cache.kind == "sliding":
        return min(cache.window - 1 + batched_tokens, length) + BLOCK_TOKENS
    if cache.kind == "chunked":
        return min(cache.window + batched_tokens, length)
    return cache.window if cache.kind == "cross" else length


def _group_layers(caches: Sequence[Cache]) -> int:
    """Layers of one group; 0 if all layers are of one kind."""
    counts = [cache.layers for cache in caches if cache.layers]
    if len(counts) < 2:
        return 0
    return max(counts) if max(counts) < 1.5 * min(counts) else min(counts)
