"""Speculative decoding: converts the setting ``speculative`` to vLLM's configuration, and finds the draft model."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

from infra.errors import PlanError
from infra.planning.catalog.models import GIB, FetchConfig, ModelArchitecture, UnknownModelError, find_model
from infra.planning.memory import NOTHING, Extras, kv_bytes_per_token
from infra.planning.weights import lora_bytes, weight_bytes
from infra.settings import Settings

DEFAULT_DRAFT_TOKENS = 4
# The longest n-gram that is looked up in the prompt and the output so far.
PROMPT_LOOKUP_MAX_TOKENS = 4
_FORMS = re.compile(
    r"(?P<method>ngram|mtp)(:(?P<tokens>[1-9]\d?))?"
    r"|((?P<head>eagle3?):)?(?P<model>[\w.-]+/[\w.-]+)(:(?P<draft_tokens>[1-9]\d?))?"
)
_ADVICE = "Set ngram[:TOKENS], mtp[:TOKENS], DRAFT_MODEL[:TOKENS], eagle:MODEL[:TOKENS] or eagle3:MODEL[:TOKENS] (Hub ids), or a JSON object"


@dataclass(frozen=True)
class Speculation:
    """``config`` is the JSON of ``--speculative-config``; ``draft`` the Hub id of the draft model, or empty."""

    config: str
    draft: str
    tokens: int
    mtp: bool = False


def speculation(text: str) -> Speculation | None:
    """Parse the setting: ``ngram``, ``mtp``, a draft model, ``eagle:`` or ``eagle3:`` with a model, or JSON, passed unchanged.

    Raises:
        PlanError: the text is none of these.
    """
    if not text:
        return None
    if text.startswith("{"):
        try:
            given = json.loads(text)
        except ValueError as error:
            raise PlanError([f"speculative: found invalid JSON ({error}). {_ADVICE}"]) from None
        return Speculation(
            text,
            str(given.get("model", "")),
            _count(given.get("num_speculative_tokens")),
            mtp=str(given.get("method", "")).endswith("mtp"),  # qwen3_next_mtp and others are older names of mtp
        )
    match = _FORMS.fullmatch(text)
    if not match:
        raise PlanError([f"speculative: found {text!r}. {_ADVICE}"])
    count = int(match["tokens"] or match["draft_tokens"] or DEFAULT_DRAFT_TOKENS)
    config: dict[str, object] = {"num_speculative_tokens": count}
    if match["method"] == "mtp":
        count = int(match["tokens"] or 1)
        config = {"method": "mtp", "num_speculative_tokens": count}
    elif match["method"] == "ngram":
        config |= {"method": "ngram", "prompt_lookup_max": PROMPT_LOOKUP_MAX_TOKENS}
    elif match["head"]:
        config |= {"method": match["head"], "model": match["model"]}
    else:
        config |= {"model": match["model"]}
    return Speculation(json.dumps(config), match["model"] or "", count, mtp=match["method"] == "mtp")


def _count(given: object) -> int:
    try:
        return max(1, int(str(given)))
    except ValueError:
        return DEFAULT_DRAFT_TOKENS


def extras(settings: Settings, architecture: ModelArchitecture, fetch: FetchConfig) -> Extras:
    """The memory of adapters and a draft model, in addition to the model.

    Raises:
        PlanError: the draft model is unknown or not compatible with this model.
    """
    lora = len(settings.lora_adapters)
    weights = lora_bytes(architecture, settings.max_lora_rank, lora) / GIB if lora else 0.0
    chosen = speculation(settings.speculative)
    if chosen is None:
        return Extras(weights_gib=weights) if weights else NOTHING
    if chosen.mtp:
        if not architecture.draft_layers:
            raise PlanError(
                [
                    f"speculative: found mtp, but {settings.model} does not support multi-token prediction. Set ngram, a draft model, or nothing"
                ]
            )
        layer = architecture.linear_parameters / architecture.num_hidden_layers
        weights += architecture.draft_layers * layer * architecture.weight_bits / 8 / GIB
    if not chosen.draft:
        return Extras(weights_gib=weights, draft_tokens=chosen.tokens)
    try:
        draft = find_model(chosen.draft, "", fetch)
    except UnknownModelError as error:
        raise PlanError(
            [
                f"speculative: {error}. Set a draft model of infra/planning/catalog/models.json, or run this with access to the Hub"
            ]
        ) from None
    if draft.vocab_size != architecture.vocab_size:
        raise PlanError(
            [
                f"speculative: {chosen.draft} has a vocabulary of {draft.vocab_size:,} tokens, and {settings.model} one of {architecture.vocab_size:,}. Set a draft model of the same family, or ngram"
            ]
        )
    return Extras(
        weights_gib=weights + weight_bytes(draft, "") / GIB,
        kv_bytes_per_token=kv_bytes_per_token(draft, settings.kv_cache_dtype),
        draft_tokens=chosen.tokens,
    )
