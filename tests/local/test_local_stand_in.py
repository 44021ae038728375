"""The stand-in: reproducible bytes, and a consistent model, tokenizer and chat template."""

import hashlib
import json
import math
import struct
from pathlib import Path
from typing import Any

import jinja2

from local import stand_in_vision
from local.stand_in import files, make_stand_in
from local.stand_in_parts import WORDS, byte_pair_vocabulary

# Change when the models do: then every place that caches by them, and these lines, must follow.
WEIGHTS_SHA256 = "c28956ce9cd8e2ff938379608391a6275467d2b8bd48a6471e2feeaa63519675"
VISION_WEIGHTS_SHA256 = "b93fa5117c514d6305f46d9b6349becfef2727eefd93104773f8c793d5a3e709"


def read(name: str) -> Any:
    return json.loads(dict(files())[name])


def seeing(name: str) -> Any:
    return json.loads(dict(stand_in_vision.files())[name])


def tensors(data: bytes) -> Any:
    (length,) = struct.unpack("<Q", data[:8])
    return json.loads(data[8 : 8 + length])


def test_they_are_the_same_each_time() -> None:
    assert dict(files()) == dict(files())
    assert hashlib.sha256(dict(files())["model.safetensors"]).hexdigest() == WEIGHTS_SHA256
    vision = dict(stand_in_vision.files())["model.safetensors"]
    assert hashlib.sha256(vision).hexdigest() == VISION_WEIGHTS_SHA256


def test_the_one_that_sees_is_another_folder_with_what_its_processors_need(tmp_path: Path) -> None:
    folder = make_stand_in(tmp_path, sees=True)
    assert folder != make_stand_in(tmp_path)
    names = {file.name for file in folder.iterdir()}
    assert names >= {"preprocessor_config.json", "video_preprocessor_config.json", "model.safetensors"}
    assert make_stand_in(tmp_path, sees=True) == folder


def test_the_vision_tower_is_what_its_configuration_says() -> None:
    config, pictures = seeing("config.json"), seeing("preprocessor_config.json")
    header = tensors(dict(stand_in_vision.files())["model.safetensors"])
    tower = config["vision_config"]
    patch = tower["patch_size"]
    assert header["visual.patch_embed.proj.weight"]["shape"] == [
        tower["embed_dim"], tower["in_channels"], tower["temporal_patch_size"], patch, patch,
    ]  # fmt: skip
    merged = tower["embed_dim"] * tower["spatial_merge_size"] ** 2
    assert header["visual.merger.mlp.2.weight"]["shape"] == [config["hidden_size"], merged]
    assert f"visual.blocks.{tower['depth'] - 1}.attn.qkv.weight" in header
    assert f"visual.blocks.{tower['depth']}.attn.qkv.weight" not in header
    assert (pictures["patch_size"], pictures["merge_size"]) == (patch, tower["spatial_merge_size"])
    head = config["hidden_size"] // config["num_attention_heads"]
    assert 2 * sum(config["rope_scaling"]["mrope_section"]) == head
    assert header["model.layers.0.self_attn.q_proj.bias"]["shape"] == [config["hidden_size"]]
    ids = {token["content"]: token["id"] for token in seeing("tokenizer.json")["added_tokens"]}
    assert (config["image_token_id"], config["video_token_id"]) == (ids["<|image_pad|>"], ids["<|video_pad|>"])


def test_the_template_puts_pictures_where_they_stand() -> None:
    source = seeing("tokenizer_config.json")["chat_template"]
    template = jinja2.Environment(autoescape=False).from_string(source)  # noqa: S701
    parts = [{"type": "image"}, {"type": "text", "text": "Hi"}, {"type": "video"}]
    messages = [{"role": "user", "content": parts}, {"role": "assistant", "content": "Yes"}]
    assert template.render(messages=messages, add_generation_prompt=True) == (
        "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>Hi<|vision_start|><|video_pad|><|vision_end|>"
        "<|im_end|>\n<|im_start|>assistant\nYes<|im_end|>\n<|im_start|>assistant\n"
    )


def test_it_is_made_once_and_whole(tmp_path: Path) -> None:
    folder = make_stand_in(tmp_path / "models")
    times = {file.name: file.stat().st_mtime_ns for file in folder.iterdir()}
    assert set(times) == {
        "config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json",
    }  # fmt: skip
    assert make_stand_in(tmp_path / "models") == folder
    assert {file.name: file.stat().st_mtime_ns for file in folder.iterdir()} == times
    assert [entry.name for entry in (tmp_path / "models").iterdir()] == [folder.name]


def test_the_weights_are_what_the_configuration_says() -> None:
    config, data = read("config.json"), dict(files())["model.safetensors"]
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    end = 0
    for tensor in header.values():
        start, end_of_tensor = tensor["data_offsets"]
        assert start == end
        assert end_of_tensor - start == 2 * math.prod(tensor["shape"])
        end = end_of_tensor
    assert 8 + length + end == len(data)
    hidden, heads = config["hidden_size"], config["num_attention_heads"] * config["head_dim"]
    assert header["model.embed_tokens.weight"]["shape"] == [config["vocab_size"], hidden]
    assert header["lm_head.weight"]["shape"] == [config["vocab_size"], hidden]
    assert header["model.layers.1.self_attn.q_proj.weight"]["shape"] == [heads, hidden]
    assert f"model.layers.{config['num_hidden_layers']}.input_layernorm.weight" not in header


def test_the_tokenizer_knows_every_byte_and_reaches_every_word() -> None:
    vocabulary, merges, words = byte_pair_vocabulary()
    assert sorted(vocabulary.values()) == list(range(len(vocabulary)))
    assert len([token for token in vocabulary if len(token) == 1]) == 256
    assert all(left + right in vocabulary for left, right in merges)
    spelt = {number: token for token, number in vocabulary.items()}
    assert [spelt[word].replace("Ġ", " ") for word in words] == [f" {word}" for word in WORDS.split()]
    ends = [token["id"] for token in read("tokenizer.json")["added_tokens"]]
    assert ends == [len(vocabulary), len(vocabulary) + 1, len(vocabulary) + 2]
    assert read("config.json")["eos_token_id"] in ends


def test_the_chat_template_is_chatml() -> None:
    template = jinja2.Environment(autoescape=False).from_string(read("tokenizer_config.json")["chat_template"])  # noqa: S701
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "Hi"}]},
        {"role": "assistant", "content": None},
    ]
    assert template.render(messages=messages, add_generation_prompt=True) == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n"
        "<|im_start|>assistant\n<|im_end|>\n<|im_start|>assistant\n"
    )
