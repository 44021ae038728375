"""The longest context length of a model, as vLLM 0.32 and later derive it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from infra.planning.architecture.config import Reader, mapping
from infra.planning.architecture.runners import SENTENCE_LENGTH

_KEYS = (
    "max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "model_max_length", "max_target_positions", "max_sequence_length",
    "max_seq_length", "seq_len",
)  # fmt: skip
UNKNOWN_LENGTH = 2048
# These have max_position_embeddings scaled already, so that vLLM does not apply their factor to it (vLLM 0.32; earlier
# versions multiplied the original length of yarn).
_SCALED_ALREADY = frozenset(
    {"su", "longrope", "llama3", "yarn", "deepseek_yarn", "deepseek_llama_scaling", "telechat3-yarn"}
)
# Their positions begin after the padding token, which takes two of the table's rows.
_OFFSET = frozenset({"xlm-roberta", "xlm-roberta-xl", "roberta", "camembert", "data2vec-text", "longformer", "mpnet"})


def context_length(whole: Reader, text: Reader, tokenizer_limit: Any = None) -> tuple[int, bool]:
    """The length, and whether it is known: the smallest of the config's limits, scaled by RoPE, and the tokenizer's."""
    given = [number for key in _KEYS if (number := text.number(key))]
    file = [number for key in _KEYS if (number := Reader(text.values).number(key))]
    lengths = file or given
    known = bool(lengths)
    length = min(lengths) if lengths else UNKNOWN_LENGTH
    if whole.text("model_type") in _OFFSET or text.text("model_type") in _OFFSET:
        length = max(length - 2, 1) if length % 8 == 2 else length
    if explicit := Reader(text.values).number("model_max_length"):
        length = explicit
    if isinstance(tokenizer_limit, int) and not isinstance(tokenizer_limit, bool) and 0 < tokenizer_limit < length:
        length = tokenizer_limit
    if not whole.text("model_type").startswith("gemma3"):
        length = int(length * _factor(text))
    if sentences := Reader(whole.values).number(SENTENCE_LENGTH):
        return sentences, True
    return max(length, 1), known


def _factor(text: Reader) -> float:
    factor = 1.0
    for part in _rope(text.values.get("rope_parameters")) or _rope(text.values.get("rope_scaling")):
        kind = str(part.get("rope_type") or part.get("type") or "")
        value = part.get("factor")
        if (
            kind not in _SCALED_ALREADY
            and isinstance(value, int | float)
            and not isinstance(value, bool)
            and 0 < value < 1e6
        ):
            factor = float(value)
    return factor


def _rope(given: Any) -> list[Mapping[str, Any]]:
    """RoPE's parameters; newer configs nest them by kind of layer."""
    values = mapping(given)
    nested = [mapping(part) for part in values.values() if isinstance(part, Mapping)]
    return nested or ([values] if values else [])
