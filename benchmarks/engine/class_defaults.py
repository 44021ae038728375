"""Writes the defaults of transformers' configuration classes, which a sparse config.json relies on. Requires transformers.

    python -m benchmarks.engine.class_defaults > infra/planning/architecture/class_defaults.json

Only keys that the planner reads are kept, and no lists: their lengths belong to the class's own number of layers.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import logging
import re
import sys
import warnings
from typing import Any

KEPT = re.compile(
    r"model_type|tie_word_embeddings|is_encoder_decoder|hidden_size\w*|n_embd|d_model|dim|embed_dim|n_layers?|n_heads?|n_inner|vocab_size\w*"
    r"|d_ff|ffn_\w*|\w*intermediate_size\w*|num_\w*(layers|heads|experts|groups|heads_kv|per_tok|per_token)|num_experts_per_tok\w*|(encoder|decoder)_\w+"
    r"|head_dim|\w+_head_dim|\w+_lora_rank|\w*expert\w*|moe_\w+|n_\w+_experts|first_k_dense_replace|max_\w*positions?|max_position_embeddings"
    r"|n_positions|max_seq_len|max_sequence_length|seq_length|seq_len|model_max_length|sliding_window\w*|use_sliding_window|attention_chunk_size"
    r"|full_attention_interval|linear_\w+|mamba_\w+|conv_kernel|conv_L_cache|ssm_state_size|state_size|expand|n_groups|time_step_rank"
    r"|attn_layer_\w+|interleave_moe_layer_step|decoder_sparse_step|multi_query|new_decoder_architecture|depth|mlp_ratio|out_hidden_size"
    r"|patch_size|image_size|kv_channels|global_head_dim|attention_k_eq_v|enable_moe_block|use_double_wide_mlp|index_\w+|position_embedding_type"
    r"|pad_token_id|type_vocab_size|no_rope_layer_interval|attn_output_gate|embedding_size|max_window_layers|top_k_experts"
)  # fmt: skip
PARTS = re.compile(r"(text|llm|language|thinker|vision|audio|decoder|talker_text)_config|decoder")


def kept(config: Any) -> dict[str, Any]:
    """The values that the planner reads, without those that the class derives from others."""
    values = config.to_dict()
    for alias in getattr(type(config), "attribute_map", None) or {}:
        values.setdefault(alias, getattr(config, alias, None))
    values["is_encoder_decoder"] = getattr(config, "is_encoder_decoder", False) or None
    values["tie_word_embeddings"] = getattr(config, "tie_word_embeddings", None)
    declared = (
        {field.name: field.default for field in dataclasses.fields(config)} if dataclasses.is_dataclass(config) else {}
    )
    found: dict[str, Any] = {}
    for key, value in sorted(values.items()):
        if isinstance(value, dict) and PARTS.fullmatch(key) and hasattr(getattr(config, key, None), "to_dict"):
            found[key] = kept(getattr(config, key))
        elif (
            isinstance(value, bool | int | float | str)
            and KEPT.fullmatch(key)
            and value != ""
            and declared.get(key, value) is not None
        ):
            found[key] = value
    return found


def main() -> None:
    """Print one JSON object: each model type with its defaults."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    warnings.filterwarnings("ignore")
    logging.disable(logging.CRITICAL)
    import transformers
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING, CONFIG_MAPPING_NAMES

    lines = [f'"": {json.dumps({"transformers": transformers.__version__, "licence": "Apache-2.0"})}']
    for name in sorted(CONFIG_MAPPING_NAMES):
        try:
            config = CONFIG_MAPPING[name]()
        except Exception as error:  # a class without defaults of its own
            print(f"{name}: {error}", file=sys.stderr)
            continue
        lines.append(f"{json.dumps(name)}: {json.dumps(kept(config))}")
    print("{\n" + ",\n".join(lines) + "\n}")


if __name__ == "__main__":
    main()
