"""The parts of the stand-in models: words, tokenizer, random weights and file formats.

They need only the standard library, and the output is reproducible byte for byte. Two properties are by design:
- One component of the hidden state is the same large number at every position, because no layer writes to it. The output
  head uses it as a bias that keeps bytes that are not text out of the answers; grammars and logit biases can still
  select them.
- The end-of-sequence token is one of the words, so an unlimited answer ends after about a hundred words.
"""

from __future__ import annotations

import json
import math
import random
import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any

SEED = 20_26
HIDDEN_SIZE = 64
INTERMEDIATE_SIZE = 128
LAYERS = 2
KEY_VALUE_HEADS = 1
HEAD_DIMENSION = 64  # supported by every attention backend of vLLM
MAX_POSITIONS = 1 << 20  # longer than any stack's maxModelLen
CONSTANT = 4.0  # the component of the hidden state that never changes
UNWANTED_BIAS = -20.0
# A grammar allows unlimited white space, which a random model would generate.
WHITE_SPACE = frozenset(b"\t\n\r ")
END, START_OF_TURN, END_OF_TURN = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
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


def byte_pair_vocabulary() -> tuple[dict[str, int], list[tuple[str, str]], list[int]]:
    """A byte-level BPE: tokens, merges in order, and the ids of complete words.

    Every byte has a token, written with GPT-2's byte-to-character table; each word, including the space before it, is
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


def decoder_config(vocabulary_size: int) -> dict[str, Any]:
    """The decoder's part of config.json, for all model families."""
    return {
        "hidden_size": HIDDEN_SIZE, "intermediate_size": INTERMEDIATE_SIZE, "num_hidden_layers": LAYERS,
        "num_key_value_heads": KEY_VALUE_HEADS, "vocab_size": vocabulary_size, "hidden_act": "silu",
        "max_position_embeddings": MAX_POSITIONS, "rope_theta": 1_000_000.0, "rms_norm_eps": 1e-6,
        "initializer_range": 0.02, "tie_word_embeddings": False,
    }  # fmt: skip


def tokenizer_config(chat_template: str) -> dict[str, Any]:
    """The content of tokenizer_config.json."""
    return {
        "tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": MAX_POSITIONS, "eos_token": END_OF_TURN,
        "pad_token": END, "clean_up_tokenization_spaces": False, "chat_template": chat_template,
    }  # fmt: skip


def tokenizer(vocabulary: dict[str, int], merges: list[tuple[str, str]], special: dict[str, int]) -> dict[str, Any]:
    """The content of tokenizer.json."""
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


class Weights:
    """The tensors of a model, generated in order from one random source; all bfloat16."""

    def __init__(self) -> None:
        self._source = random.Random(SEED)  # noqa: S311 - the same model each time is the point
        self._tensors: dict[str, tuple[Sequence[int], list[float]]] = {}

    def matrix(
        self,
        name: str,
        rows: int,
        columns: int,
        gain: float = 2.0,
        *,
        first: Callable[[int], float] | None = None,
        keeps_constant: bool = False,
        shape: Sequence[int] | None = None,
    ) -> None:
        """Generate a matrix. With a gain of 2 instead of 1, the context influences the answer more than the last word.

        Args:
            name: the tensor's name.
            rows: number of outputs.
            columns: number of inputs.
            gain: ratio of the output's magnitude to the input's.
            first: function of the row number for each row's first value; None for a random value.
            keeps_constant: whether the first row is zero, so that nothing is added to the constant component.
            shape: the tensor's shape if it is not a matrix; with the same number of values.
        """
        spread = gain / math.sqrt(columns)
        values: list[float] = []
        for row in range(rows):
            zero = keeps_constant and row == 0
            drawn = [0.0] * columns if zero else [self._source.gauss(0.0, spread) for _ in range(columns)]
            if first is not None:
                drawn[0] = first(row)
            values += drawn
        self._tensors[name] = (shape or (rows, columns), values)

    def vector(self, name: str, length: int, value: float) -> None:
        """Add a vector of equal values, such as a norm's weight or a bias."""
        self._tensors[name] = ((length,), [value] * length)

    def safetensors(self) -> bytes:
        """The safetensors file: length of the header, header as JSON, raw little-endian tensors."""
        header: dict[str, Any] = {}
        body = bytearray()
        for name, (shape, values) in self._tensors.items():
            wide = struct.pack(f"<{len(values)}f", *values)
            narrow = bytearray(2 * len(values))
            narrow[0::2], narrow[1::2] = wide[2::4], wide[3::4]  # bfloat16: the upper half of a float
            header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [len(body), len(body) + len(narrow)]}
            body += narrow
        encoded = json.dumps(header).encode()
        encoded += b" " * (-len(encoded) % 8)
        return struct.pack("<Q", len(encoded)) + encoded + bytes(body)


def add_decoder(
    weights: Weights, vocabulary_size: int, wanted: set[int], heads: int, attention: Mapping[str, tuple[int, float]]
) -> None:
    """Add a decoder of LAYERS layers with its embeddings and its head.

    Args:
        weights: the tensors to add to.
        vocabulary_size: rows of embeddings and head.
        wanted: tokens that answers may contain.
        heads: number of attention heads of HEAD_DIMENSION; there is one head for keys and values.
        attention: further vectors of each attention block by name: length and value.
    """
    hidden, queries, keys = HIDDEN_SIZE, heads * HEAD_DIMENSION, KEY_VALUE_HEADS * HEAD_DIMENSION
    embeddings_gain = math.sqrt(hidden)
    weights.matrix("model.embed_tokens.weight", vocabulary_size, hidden, embeddings_gain, first=lambda token: CONSTANT)
    for layer in range(LAYERS):
        name = f"model.layers.{layer}"
        weights.vector(f"{name}.input_layernorm.weight", hidden, 1.0)
        weights.matrix(f"{name}.self_attn.q_proj.weight", queries, hidden)
        weights.matrix(f"{name}.self_attn.k_proj.weight", keys, hidden)
        weights.matrix(f"{name}.self_attn.v_proj.weight", keys, hidden)
        weights.matrix(f"{name}.self_attn.o_proj.weight", hidden, queries, keeps_constant=True)
        for vector, (length, value) in attention.items():
            weights.vector(f"{name}.self_attn.{vector}", length, value)
        weights.vector(f"{name}.post_attention_layernorm.weight", hidden, 1.0)
        weights.matrix(f"{name}.mlp.gate_proj.weight", INTERMEDIATE_SIZE, hidden)
        weights.matrix(f"{name}.mlp.up_proj.weight", INTERMEDIATE_SIZE, hidden)
        weights.matrix(f"{name}.mlp.down_proj.weight", hidden, INTERMEDIATE_SIZE, keeps_constant=True)
    weights.vector("model.norm.weight", hidden, 1.0)

    def bias(token: int) -> float:
        # The first 256 tokens are the bytes.
        return 0.0 if token in wanted else UNWANTED_BIAS * (2 if token in WHITE_SPACE else 1)

    weights.matrix("lm_head.weight", vocabulary_size, hidden, 1.0, first=bias)


def as_json(value: Any) -> bytes:
    """A JSON file."""
    return json.dumps(value, indent=1).encode()
