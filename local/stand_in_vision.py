"""The vision stand-in: a tiny random Qwen2-VL that accepts images and videos.

An image becomes as many tokens as in a real model: one per 28 x 28 pixels, at most LARGEST_IMAGE_TOKENS.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from local import stand_in_parts as parts
from local.stand_in_parts import END, END_OF_TURN, HEAD_DIMENSION, HIDDEN_SIZE, START_OF_TURN

VISION_START, VISION_END, IMAGE, VIDEO = "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"
ATTENTION_HEADS = 1  # Qwen2's heads divide the hidden size: more heads would be too small for the attention backends
VISION_SIZE = 32
VISION_LAYERS = 2
PATCH_PIXELS = 14
FRAMES_OF_A_PATCH = 2
PATCHES_MERGED = 2  # horizontally and vertically: four patches form a token
SMALLEST_IMAGE_TOKENS, LARGEST_IMAGE_TOKENS = 4, 64
PICTURE_GAIN = 8.0  # so that images influence the answer as much as words, whose embeddings have the same gain
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{% if message.content is string %}{{ message.content }}{% elif message.content %}"
    "{% for part in message.content %}"
    "{% if part.type == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif part.type == 'video' %}<|vision_start|><|video_pad|><|vision_end|>"
    "{% else %}{{ part.text or '' }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def files() -> Iterator[tuple[str, bytes]]:
    """The files of the vision model: name and content."""
    vocabulary, merges, words = parts.byte_pair_vocabulary()
    names = (END, START_OF_TURN, END_OF_TURN, VISION_START, VISION_END, IMAGE, VIDEO)
    special = {name: len(vocabulary) + number for number, name in enumerate(names)}
    vocabulary_size = math.ceil((len(vocabulary) + len(special)) / 64) * 64
    ends = {"eos_token_id": special[END_OF_TURN], "pad_token_id": special[END]}
    yield "config.json", parts.as_json({
        "architectures": ["Qwen2VLForConditionalGeneration"], "model_type": "qwen2_vl", "torch_dtype": "bfloat16",
        "num_attention_heads": ATTENTION_HEADS, **parts.decoder_config(vocabulary_size),
        # Number of value pairs per head that are rotated by the temporal, vertical and horizontal position.
        "rope_scaling": {"type": "mrope", "mrope_section": [8, 12, 12]},
        "vision_start_token_id": special[VISION_START], "vision_end_token_id": special[VISION_END],
        "vision_token_id": special[IMAGE], "image_token_id": special[IMAGE], "video_token_id": special[VIDEO],
        "vision_config": {
            "model_type": "qwen2_vl", "depth": VISION_LAYERS, "embed_dim": VISION_SIZE, "hidden_size": HIDDEN_SIZE,
            "num_heads": 2, "mlp_ratio": 2, "in_channels": 3, "in_chans": 3, "patch_size": PATCH_PIXELS,
            "spatial_patch_size": PATCH_PIXELS, "spatial_merge_size": PATCHES_MERGED,
            "temporal_patch_size": FRAMES_OF_A_PATCH, "hidden_act": "quick_gelu",
        },
        **ends,
    })  # fmt: skip
    yield "generation_config.json", parts.as_json(ends)
    yield "tokenizer_config.json", parts.as_json(parts.tokenizer_config(CHAT_TEMPLATE))
    yield "tokenizer.json", parts.as_json(parts.tokenizer(vocabulary, merges, special))
    token_pixels = (PATCH_PIXELS * PATCHES_MERGED) ** 2
    pictures = {
        "processor_class": "Qwen2VLProcessor", "patch_size": PATCH_PIXELS, "temporal_patch_size": FRAMES_OF_A_PATCH,
        "merge_size": PATCHES_MERGED, "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5],
        "min_pixels": SMALLEST_IMAGE_TOKENS * token_pixels, "max_pixels": LARGEST_IMAGE_TOKENS * token_pixels,
    }  # fmt: skip
    yield "preprocessor_config.json", parts.as_json(pictures | {"image_processor_type": "Qwen2VLImageProcessor"})
    yield "video_preprocessor_config.json", parts.as_json(pictures | {"video_processor_type": "Qwen2VLVideoProcessor"})
    weights = parts.Weights()
    biases = {f"{name}_proj.bias": (HEAD_DIMENSION, 0.0) for name in "qkv"}
    parts.add_decoder(weights, vocabulary_size, {*words, special[END_OF_TURN]}, ATTENTION_HEADS, biases)
    _add_vision_tower(weights)
    yield "model.safetensors", weights.safetensors()


def _add_vision_tower(weights: parts.Weights) -> None:
    def linear(name: str, rows: int, columns: int, gain: float = 2.0) -> None:
        weights.matrix(f"{name}.weight", rows, columns, gain)
        weights.vector(f"{name}.bias", rows, 0.0)

    def norm(name: str) -> None:
        weights.vector(f"{name}.weight", size, 1.0)
        weights.vector(f"{name}.bias", size, 0.0)

    size = VISION_SIZE
    shape = (size, 3, FRAMES_OF_A_PATCH, PATCH_PIXELS, PATCH_PIXELS)
    weights.matrix("visual.patch_embed.proj.weight", size, math.prod(shape[1:]), shape=shape)
    for layer in range(VISION_LAYERS):
        name = f"visual.blocks.{layer}"
        norm(f"{name}.norm1")
        norm(f"{name}.norm2")
        linear(f"{name}.attn.qkv", 3 * size, size)
        linear(f"{name}.attn.proj", size, size)
        linear(f"{name}.mlp.fc1", 2 * size, size)
        linear(f"{name}.mlp.fc2", size, 2 * size)
    norm("visual.merger.ln_q")
    merged = size * PATCHES_MERGED**2
    linear("visual.merger.mlp.0", merged, merged)
    linear("visual.merger.mlp.2", HIDDEN_SIZE, merged, PICTURE_GAIN)
