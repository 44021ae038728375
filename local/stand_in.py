"""The stand-in models: tiny random models, generated in a second, that vLLM serves like any other.

One is text-only (a Qwen3). The other (a Qwen2-VL) also accepts images and videos and replaces vision models. They need no
downloads and no imports. They generate random English words, which depend on the prompt, the images and the seed.
"""

from __future__ import annotations

import hashlib
import math
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from local import stand_in_parts as parts
from local import stand_in_vision
from local.stand_in_parts import END, END_OF_TURN, START_OF_TURN

ATTENTION_HEADS = 2
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{% if message.content is string %}{{ message.content }}{% elif message.content %}"
    "{% for part in message.content %}{{ part.text or '' }}{% endfor %}{% endif %}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def make_stand_in(folder: Path, sees: bool = False) -> Path:
    """Write the model to a folder below ``folder`` unless it exists; returns the folder."""
    sources = [__file__, parts.__file__, stand_in_vision.__file__]
    key = hashlib.sha256(b"".join(Path(source).read_bytes() for source in sources)).hexdigest()[:12]
    model = folder / f"stand-in-{'vision-' if sees else ''}{key}"
    if model.is_dir():
        return model
    content: Callable[[], Iterator[tuple[str, bytes]]] = stand_in_vision.files if sees else files
    folder.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix="unfinished-", dir=folder))
    try:
        for name, data in content():
            (unfinished / name).write_bytes(data)
        unfinished.chmod(0o755)
        unfinished.rename(model)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return model


def files() -> Iterator[tuple[str, bytes]]:
    """The files of the text-only model: name and content."""
    vocabulary, merges, words = parts.byte_pair_vocabulary()
    special = {name: len(vocabulary) + number for number, name in enumerate((END, START_OF_TURN, END_OF_TURN))}
    vocabulary_size = math.ceil((len(vocabulary) + len(special)) / 64) * 64
    ends = {"eos_token_id": special[END_OF_TURN], "pad_token_id": special[END]}
    yield "config.json", parts.as_json({
        "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "torch_dtype": "bfloat16",
        "num_attention_heads": ATTENTION_HEADS, "head_dim": parts.HEAD_DIMENSION, "attention_bias": False,
        **parts.decoder_config(vocabulary_size), **ends,
    })  # fmt: skip
    yield "generation_config.json", parts.as_json(ends)
    yield "tokenizer_config.json", parts.as_json(parts.tokenizer_config(CHAT_TEMPLATE))
    yield "tokenizer.json", parts.as_json(parts.tokenizer(vocabulary, merges, special))
    weights = parts.Weights()
    norms = {"q_norm.weight": (parts.HEAD_DIMENSION, 1.0), "k_norm.weight": (parts.HEAD_DIMENSION, 1.0)}
    parts.add_decoder(weights, vocabulary_size, {*words, special[END_OF_TURN]}, ATTENTION_HEADS, norms)
    yield "model.safetensors", weights.safetensors()
