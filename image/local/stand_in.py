"""The stand-in model: a tiny random Qwen3 that vLLM serves like any other, made in a second from nothing.

Nothing is downloaded or imported: the tokenizer, the configuration and the safetensors file are written with the
standard library, the same bytes each time. It says random English words. Two things are made to be so:
- One component of the hidden state is the same large number at every position, since no layer writes to it. The output
  head reads it as a bias, which keeps bytes that are no text out of the answers; grammars and logit biases can still
  ask for them.
- The end of the answer is one word among those, so an unbounded answer ends after about a hundred words.
"""

from __future__ import annotations

import hashlib
import json
import math
import random
import shutil
import struct
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SEED = 20_26
HIDDEN_SIZE = 64
INTERMEDIATE_SIZE = 128
LAYERS = 2
ATTENTION_HEADS = 2
KEY_VALUE_HEADS = 1
HEAD_DIMENSION = 64  # one that every attention backend of vLLM knows
MAX_POSITIONS = 1 << 20  # longer than any stack's maxModelLen
CONSTANT = 4.0  # the component of the hidden state that never changes
UNWANTED_BIAS = -20.0
END, START_OF_TURN, END_OF_TURN = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{% if message.content is string %}{{ message.content }}{% elif message.content %}"
    "{% for part in message.content %}{{ part.text or '' }}{% endfor %}{% endif %}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
WORDS = (
    "the of and to in is it that for on with as was at by from this have be are not or an they which one "
    "you had all were her we there can said if do will each about how up out them then she many some so "
    "these would other into has more two like him see time could no make than first been its who now "
    "people my made over did down only way find use may water long little very after words called just "
    "where most know get through back much before go good new write our used me man too any day same "
    "right look think also around another came come work three word must because does part even place "
    "well such here take why things help put years different away again off went old number great tell "
    "men say small every"
)


def make_stand_in(folder: Path) -> Path:
    """Write the model to a folder below ``folder``, unless it is there; returns where it is."""
    key = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:12]
    model = folder / f"stand-in-{key}"
    if model.is_dir():
        return model
    folder.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix="unfinished-", dir=folder))
    try:
        for name, content in files():
            (unfinished / name).write_bytes(content)
        unfinished.chmod(0o755)
        unfinished.rename(model)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return model


def files() -> Iterator[tuple[str, bytes]]:
    """The model's files: name and content."""
    vocabulary, merges, words = byte_pair_vocabulary()
    special = {name: len(vocabulary) + number for number, name in enumerate((END, START_OF_TURN, END_OF_TURN))}
    vocabulary_size = math.ceil((len(vocabulary) + len(special)) / 64) * 64
    ends = {"eos_token_id": special[END_OF_TURN], "pad_token_id": special[END]}
    yield "config.json", _json({
        "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "torch_dtype": "bfloat16",
        "hidden_size": HIDDEN_SIZE, "intermediate_size": INTERMEDIATE_SIZE, "num_hidden_layers": LAYERS,
        "num_attention_heads": ATTENTION_HEADS, "num_key_value_heads": KEY_VALUE_HEADS, "head_dim": HEAD_DIMENSION,
        "vocab_size": vocabulary_size, "max_position_embeddings": MAX_POSITIONS, "rope_theta": 1_000_000.0,
        "hidden_act": "silu", "rms_norm_eps": 1e-6, "initializer_range": 0.02, "attention_bias": False,
        "tie_word_embeddings": False, **ends,
    })  # fmt: skip
    yield "generation_config.json", _json(ends)
    yield "tokenizer_config.json", _json({
        "tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": MAX_POSITIONS, "eos_token": END_OF_TURN,
        "pad_token": END, "clean_up_tokenization_spaces": False, "chat_template": CHAT_TEMPLATE,
    })  # fmt: skip
    yield "tokenizer.json", _json(_tokenizer(vocabulary, merges, special))
    yield "model.safetensors", _safetensors(_weights(vocabulary_size, {*words, special[END_OF_TURN]}))


def byte_pair_vocabulary() -> tuple[dict[str, int], list[tuple[str, str]], list[int]]:
    """A byte-level BPE: tokens, merges in order, and the ids of the whole words.

    Every byte has a token, spelt as GPT-2's byte-to-character table spells it; each word, with the space before it, is
    merged letter by letter.
    """
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    others = iter(range(256, 512))
    letters = [chr(byte if byte in printable else next(others)) for byte in range(256)]
    vocabulary = {letter: number for number, letter in enumerate(letters)}
    merges: list[tuple[str, str]] = []
    words: list[int] = []
    for word in WORDS.split():
        token = letters[ord(" ")]
        for letter in word:
            if token + letter not in vocabulary:
                vocabulary[token + letter] = len(vocabulary)
                merges.append((token, letter))
            token += letter
        words.append(vocabulary[token])
    return vocabulary, merges, words


def _tokenizer(vocabulary: dict[str, int], merges: list[tuple[str, str]], special: dict[str, int]) -> dict[str, Any]:
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": True}
    added = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {
        "version": "1.0", "truncation": None, "padding": None, "normalizer": None, "post_processor": None,
        "added_tokens": [{"id": number, "content": name, **added} for name, number in special.items()],
        "pre_tokenizer": byte_level, "decoder": byte_level,
        "model": {
            "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
            "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
            "vocab": vocabulary, "merges": merges,
        },
    }  # fmt: skip


Matrix = list[list[float]]


def _weights(vocabulary_size: int, wanted: set[int]) -> dict[str, Matrix | list[float]]:
    source = random.Random(SEED)  # noqa: S311 - the same model each time is the point

    def matrix(rows: int, columns: int, gain: float = 2.0, *, keeps_constant: bool = False) -> Matrix:
        # A gain of 2 instead of 1 lets the context sway the answer more than the last word does.
        spread = gain / math.sqrt(columns)
        return [
            [0.0 if keeps_constant and row == 0 else source.gauss(0.0, spread) for _ in range(columns)]
            for row in range(rows)
        ]

    hidden, heads, head = HIDDEN_SIZE, ATTENTION_HEADS * HEAD_DIMENSION, KEY_VALUE_HEADS * HEAD_DIMENSION
    weights: dict[str, Matrix | list[float]] = {}
    embeddings = matrix(vocabulary_size, hidden, gain=math.sqrt(hidden))
    for row in embeddings:
        row[0] = CONSTANT
    weights["model.embed_tokens.weight"] = embeddings
    for layer in range(LAYERS):
        name = f"model.layers.{layer}"
        weights |= {
            f"{name}.input_layernorm.weight": [1.0] * hidden,
            f"{name}.self_attn.q_proj.weight": matrix(heads, hidden),
            f"{name}.self_attn.k_proj.weight": matrix(head, hidden),
            f"{name}.self_attn.v_proj.weight": matrix(head, hidden),
            f"{name}.self_attn.o_proj.weight": matrix(hidden, heads, keeps_constant=True),
            f"{name}.self_attn.q_norm.weight": [1.0] * HEAD_DIMENSION,
            f"{name}.self_attn.k_norm.weight": [1.0] * HEAD_DIMENSION,
            f"{name}.post_attention_layernorm.weight": [1.0] * hidden,
            f"{name}.mlp.gate_proj.weight": matrix(INTERMEDIATE_SIZE, hidden),
            f"{name}.mlp.up_proj.weight": matrix(INTERMEDIATE_SIZE, hidden),
            f"{name}.mlp.down_proj.weight": matrix(hidden, INTERMEDIATE_SIZE, keeps_constant=True),
        }
    weights["model.norm.weight"] = [1.0] * hidden
    output = matrix(vocabulary_size, hidden, gain=1.0)
    for token, row in enumerate(output):
        row[0] = 0.0 if token in wanted else UNWANTED_BIAS
    weights["lm_head.weight"] = output
    return weights


def _safetensors(weights: dict[str, Matrix | list[float]]) -> bytes:
    """The file format of safetensors: length of the header, header as JSON, raw little-endian tensors (here bfloat16)."""
    header: dict[str, Any] = {}
    body = bytearray()
    for name, tensor in weights.items():
        rows = [row for row in tensor if isinstance(row, list)]
        values = [value for row in rows for value in row] or [value for value in tensor if isinstance(value, float)]
        wide = struct.pack(f"<{len(values)}f", *values)
        narrow = bytearray(2 * len(values))
        narrow[0::2], narrow[1::2] = wide[2::4], wide[3::4]  # bfloat16: the upper half of a float
        shape = [len(rows), len(rows[0])] if rows else [len(values)]
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [len(body), len(body) + len(narrow)]}
        body += narrow
    encoded = json.dumps(header).encode()
    encoded += b" " * (-len(encoded) % 8)
    return struct.pack("<Q", len(encoded)) + encoded + bytes(body)


def _json(value: Any) -> bytes:
    return json.dumps(value, indent=1).encode()
