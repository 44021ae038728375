"""What is read from a model's repository, against a Hub that has everything, a mirror without the API, and folders."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from infra.planning.catalog.models import UnknownModelError, find_model
from infra.planning.weights import file_bytes, weight_bytes

CONFIG = {
    "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
    "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128256, "max_position_embeddings": 131072,
}  # fmt: skip
INDEX = {"metadata": {"total_size": 16060522496}, "weight_map": {"lm_head.weight": "model-00001-of-00002.safetensors"}}
NVFP4 = {
    "producer": {"name": "modelopt", "version": "0.29"},
    "quantization": {"quant_algo": "NVFP4", "kv_cache_quant_algo": "FP8", "group_size": 16, "exclude_modules": ["lm_head"]},
}  # fmt: skip
FILES: dict[str, Any] = {}


class Hub(BaseHTTPRequestHandler):
    """Serves ``FILES``; ``api`` is the list of files, if there is one."""

    def do_GET(self) -> None:
        name = "api" if self.path.startswith("/api/") else self.path.rpartition("/")[2]
        found = FILES.get(name)
        body = found if isinstance(found, bytes) else json.dumps(found).encode()
        self.send_response(404 if found is None else 200)
        self.end_headers()
        self.wfile.write(b"" if found is None else body)

    def log_message(self, format: str, *args: Any) -> None:
        """Print nothing."""


@pytest.fixture(scope="module")
def hub() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture(autouse=True)
def serve(hub: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("HF_ENDPOINT", hub)
    FILES.clear()
    FILES["config.json"] = CONFIG
    yield
    FILES.clear()


def listing(**sizes: int | None) -> dict[str, Any]:
    return {"siblings": [{"rfilename": name.replace("__", "."), "size": size} for name, size in sizes.items()]}


def test_the_sizes_of_the_listed_files_come_first() -> None:
    FILES["api"] = listing(
        config__json=700, model__safetensors=15_000_000_000, consolidated__safetensors=15_000_000_000
    )
    FILES["model.safetensors.index.json"] = INDEX
    assert weight_bytes(find_model("acme/model"), "") == 15_000_000_000


def test_the_size_of_the_largest_models_is_read_too() -> None:
    FILES["api"] = listing(**{f"model-{n:05}-of-00163__safetensors": 4_224_454_000 for n in range(163)})
    assert find_model("acme/model").checkpoint_bytes == 163 * 4_224_454_000


def test_the_index_is_read_where_the_list_has_no_sizes() -> None:
    FILES["api"] = listing(config__json=700, model__safetensors=None, model__safetensors__index__json=None)
    FILES["model.safetensors.index.json"] = INDEX
    assert weight_bytes(find_model("acme/model"), "") == 16060522496


def test_the_index_is_read_from_a_mirror_without_the_api() -> None:
    FILES["model.safetensors.index.json"] = INDEX
    found = find_model("acme/model")
    assert (found.checkpoint_bytes, found.kind) == (16060522496, "generate")


@pytest.mark.parametrize(
    "index", [b"[]", b"not json", b'{"metadata": {"total_size": -4}}', b'{"metadata": {"total_size": "x"}}', b"{}"]
)
def test_an_odd_index_leaves_an_estimate(index: bytes) -> None:
    FILES["model.safetensors.index.json"] = index
    assert find_model("acme/model").checkpoint_bytes == 0


@pytest.mark.parametrize("with_api", [True, False])
def test_modelopts_own_file_is_the_quantization(with_api: bool) -> None:
    FILES["hf_quant_config.json"] = NVFP4
    if with_api:
        FILES["api"] = listing(config__json=700, hf_quant_config__json=300)
    found = find_model("acme/model")
    assert (found.quantization, found.weight_bits, found.minimum_capability) == ("modelopt_fp4", 4, 75)
    assert weight_bytes(found, "") == pytest.approx(6.03e9, rel=0.03)


def test_a_description_in_the_config_comes_before_modelopts_file() -> None:
    FILES["config.json"] = CONFIG | {"quantization_config": {"quant_method": "fp8"}}
    FILES["hf_quant_config.json"] = NVFP4
    assert find_model("acme/model").quantization == "fp8"


def test_a_sentence_transformers_repository_pools_up_to_its_own_length() -> None:
    FILES["modules.json"] = []
    FILES["sentence_bert_config.json"] = {"max_seq_length": 512}
    FILES["api"] = listing(modules__json=10, sentence_bert_config__json=30)
    found = find_model("acme/model")
    assert (found.kind, found.max_position_embeddings) == ("pooling", 512)


def test_a_folder_is_read_alike(tmp_path: Path) -> None:
    for name, content in (("config.json", CONFIG), ("hf_quant_config.json", NVFP4), ("modules.json", [])):
        (tmp_path / name).write_text(json.dumps(content))
    (tmp_path / "model.safetensors").write_bytes(bytes(4000))
    found = find_model(str(tmp_path))
    assert (found.quantization, found.kind, file_bytes(found)) == ("modelopt_fp4", "pooling", 4000)


@pytest.mark.parametrize("body", [b"[]", b"3", b"<html>", b"\xff\xfe", b"[" * 100_000])
def test_an_answer_that_is_no_config_is_one_line(body: bytes) -> None:
    FILES["config.json"] = body
    with pytest.raises(UnknownModelError) as raised:
        find_model("acme/model")
    assert "\n" not in str(raised.value)
