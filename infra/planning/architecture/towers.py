"""Parameters of the parts beside the language model: encoders of images and sound, and what projects their outputs."""

from __future__ import annotations

from infra.planning.architecture.config import TOWERS, Reader, mapping

_GATED_TOWERS = (
    "pixtral",
    "qwen2_5_vl",
    "qwen2_5_omni_vision_encoder",
    "glm4v",
    "glm4v_moe",
    "llama4_vision",
    "gemma4_vision",
)

# Encoders of another build than a transformer, with the parameters that Google states.
_FIXED = {"gemma3n_vision": 300_000_000, "gemma3n_audio": 680_000_000}
_UNDESCRIBED = ("molmo",)  # vision models whose config does not mention their encoder


def sees(whole: Reader) -> bool:
    """Whether the model accepts images."""
    names = (
        "vision_parameters",
        "vision_config",
        "vision_tower",
        "vision_encoder_config",
        "mm_vision_tower",
        "img_processor",
        "visual",
    )
    thinker = Reader(mapping(whole.values.get("thinker_config")))
    if whole.text("model_type") in _UNDESCRIBED:
        return True
    return any(whole.values.get(name) for name in names) or bool(thinker.values.get("vision_config"))


def tower_parameters(whole: Reader, hidden: int) -> int:
    """Parameters of every encoder and projector, all of which vLLM keeps in 16 bits."""
    if given := Reader(whole.values).number("vision_parameters"):
        return given
    thinker = whole.part("thinker_config")
    total = 0
    for name in TOWERS:
        for source in (whole, thinker):
            if mapping(source.values.get(name)) or (
                source is whole
                and whole.values.get(name) is None
                and mapping(whole.defaults.get(name))
                and name in whole.values
            ):
                total += _tower(source.part(name), hidden)
    if total == 0 and sees(whole):
        total = _tower(Reader({}), hidden)
    return total


def _tower(tower: Reader, hidden: int) -> int:
    """A transformer with embeddings, and a projection to the language model's size."""
    if fixed := _FIXED.get(tower.text("model_type")):
        return fixed
    audio = bool(tower.number("encoder_layers") or tower.number("num_mel_bins"))
    width = tower.number("d_model") if audio else 0
    width = (
        width
        or tower.number("embed_dim")
        or Reader(tower.values).number("hidden_size")
        or tower.number("hidden_size")
        or 1024
    )
    if tower.number("embed_dim") and tower.number("hidden_size") and tower.number("depth"):
        width = tower.number("embed_dim")  # Qwen2-VL: hidden_size is that of the language model
    depth = (
        tower.number("encoder_layers")
        or tower.number("depth")
        or tower.number("num_hidden_layers")
        or tower.number("layers")
        or 24
    )
    inner = tower.number("encoder_ffn_dim") or tower.number("intermediate_size")
    if not inner:
        ratio = tower.raw("mlp_ratio")
        inner = int(width * (ratio if isinstance(ratio, int | float) and 0 < ratio < 16 else 4))
    gated = tower.text("model_type") in _GATED_TOWERS or tower.text("hidden_act") == "silu"
    layers = depth * (4 * width * width + (3 if gated else 2) * width * inner)
    patch = tower.number("patch_size") or 14
    positions = tower.number("num_position_embeddings") or (tower.number("image_size") // patch if patch else 0) ** 2
    embeddings = min(positions, 16384) * width + 3 * min(patch, 64) ** 2 * width * max(
        tower.number("temporal_patch_size"), 1
    )
    merge = max(tower.number("spatial_merge_size"), 1) ** 2 * width
    out = tower.number("out_hidden_size") or hidden
    projection = merge * merge + merge * out if tower.number("spatial_merge_size") else width * hidden
    if deep := len(tower.numbers("deepstack_visual_indexes")):
        projection *= 1 + deep
    return int(layers + embeddings + projection)
