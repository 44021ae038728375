"""Which models the arguments of vLLM name."""

import json
import re
from contextlib import nullcontext
from pathlib import Path

import pytest

from fakes.fake_hub import FakeHub, FakeModel
from image.engine.arguments import EngineError, settle
from image.engine.models import localized, repositories
from image.engine.prepare import fetch, prepare
from image.engine.weights import Repository
from tests.image.engine.conftest import MODEL

ROOT = Path(__file__).parents[3]


def test_every_model_that_the_arguments_name_is_found_and_put_in_place() -> None:
    draft = json.dumps({"model": "acme/draft", "num_speculative_tokens": 4})
    adapter = json.dumps({"name": "b", "path": "acme/lora-b"})
    arguments = [
        MODEL,
        "--revision",
        "v1",
        "--speculative-config",
        draft,
        "--lora-modules",
        "a=acme/lora-a",
        adapter,
        "--seed",
        "1",
    ]
    models = repositories(arguments)
    assert models == [
        Repository(MODEL, "v1"),
        Repository("acme/draft"),
        Repository("acme/lora-a"),
        Repository("acme/lora-b"),
    ]
    told = localized(arguments, {model: Path("/w") / model.name for model in models})
    assert told[:3] == [
        "/w/acme/tiny",
        "--speculative-config",
        json.dumps({"model": "/w/acme/draft", "num_speculative_tokens": 4}),
    ]
    assert told[3:] == [
        "--lora-modules", "a=/w/acme/lora-a", json.dumps({"name": "b", "path": "/w/acme/lora-b"}), "--seed", "1",
        "--served-model-name", MODEL,
    ]  # fmt: skip


def test_folders_and_object_stores_are_vllms_own_business(tmp_path: Path) -> None:
    for name in (str(tmp_path), "gs://bucket/model", "acme/model:Q4_K_M"):
        assert repositories([name]) == []
        assert localized([name, "--revision", "x"], {}) == [name, "--revision", "x"]


def test_two_revisions_of_one_repository_are_two_folders() -> None:
    """A tokenizer, draft model or adapter at a revision of its own never replaces the model's files."""
    draft = json.dumps({"model": MODEL, "revision": "d1", "num_speculative_tokens": 1})
    arguments = [MODEL, "--revision", "m1", "--tokenizer-revision", "t1", "--speculative-config", draft]
    arguments += ["--code-revision", "c1", "--lora-modules", f"a={MODEL}"]
    models = repositories(arguments)
    assert [(one.name, one.revision) for one in models] == [(MODEL, name) for name in ("m1", "t1", "d1", "main")]
    told = localized(arguments, {model: Path("/w") / model.revision for model in models})
    assert told == [
        "/w/m1", "--speculative-config", json.dumps({"model": "/w/d1", "num_speculative_tokens": 1}),
        "--code-revision", "c1", "--lora-modules", "a=/w/main", "--tokenizer", "/w/t1", "--served-model-name", MODEL,
    ]  # fmt: skip
    named = [MODEL, "--tokenizer", MODEL, "--tokenizer-revision", "t1"]
    told = localized(named, {model: Path("/w") / model.revision for model in repositories(named)})
    assert told[:3] == ["/w/main", "--tokenizer", "/w/t1"]
    assert repositories([MODEL, "--revision", "m1", "--tokenizer-revision", "m1"]) == [Repository(MODEL, "m1")]


@pytest.mark.parametrize(
    ("arguments", "offline"),
    [
        ([MODEL], True),
        ([MODEL, "--speculative-config", '{"method": "ngram", "num_speculative_tokens": 2}'], True),
        (["acme/other-GGUF:Q4_K_M", "--tokenizer", MODEL], False),
        ([MODEL, "--hf-config-path", "acme/other"], False),
        ([MODEL, "--generation-config", "acme/other"], False),
        ([MODEL, "--speculative-config", '{"model": "acme/other:Q4_K_M", "num_speculative_tokens": 2}'], False),
        ([MODEL, "--trust-remote-code"], False),
    ],
)
def test_vllm_is_offline_only_if_it_needs_nothing_of_the_hub(
    tmp_path: Path, hub: FakeHub, arguments: list[str], offline: bool
) -> None:
    environment = {"HF_HOME": str(tmp_path), "HF_ENDPOINT": hub.address, "ENGINE_DEVICE": "cpu"}
    start = prepare(settle(arguments, environment), lambda _: None)
    assert start.environment.get("HF_HUB_OFFLINE") == ("1" if offline else None)


def test_an_adapter_may_name_its_revision(tmp_path: Path, hub: FakeHub) -> None:
    hub.models["acme/sql"] = adapter = FakeModel(
        {"adapter_config.json": b"{}", "adapter_model.safetensors": b"a" * 2000}
    )
    environment = {"HF_HOME": str(tmp_path), "HF_ENDPOINT": hub.address, "ENGINE_DEVICE": "cpu"}
    commits = []
    for pinned in (False, False, True):
        path = f"acme/sql@{adapter.commit}" if pinned else "acme/sql"
        start = prepare(settle([MODEL, "--lora-modules", f"sql={path}"], environment), lambda _: None)
        commits.append(Path(start.arguments[start.arguments.index("--lora-modules") + 1].partition("=")[2]).name)
        adapter.files["adapter_config.json"] += b" "
    assert commits[0] == commits[1]
    assert len(set(commits)) == 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--revision", "v9"], "set modelRevision to an existing one"),
        (["--tokenizer-revision", "v9"], "set --tokenizer-revision to an existing one"),
        (["--lora-modules", "a=acme/tiny@v9"], "set NAME=HUB_ID@REVISION in loraAdapters to an existing one"),
        (["--lora-modules", "a=acme/none"], "check loraAdapters"),
        (
            ["--speculative-config", '{"model": "acme/tiny", "revision": "v9"}'],
            "set revision in the JSON object of speculative to an existing one",
        ),
    ],
)
def test_an_error_names_the_setting_of_the_model_it_is_about(
    tmp_path: Path, hub: FakeHub, arguments: list[str], words: str
) -> None:
    environment = {"HF_HOME": str(tmp_path), "HF_ENDPOINT": hub.address, "ENGINE_DEVICE": "cpu"}
    with pytest.raises(EngineError, match=re.escape(words)):
        prepare(settle([MODEL, *arguments], environment), lambda _: None)


def test_a_newer_commit_of_an_adapter_names_loraadapters(tmp_path: Path, hub: FakeHub) -> None:
    hub.models["acme/sql"] = adapter = FakeModel(
        {"adapter_config.json": b"{}", "adapter_model.safetensors": b"a" * 2000}
    )
    environment = {"HF_HOME": str(tmp_path), "HF_ENDPOINT": hub.address}
    launch, told = settle([MODEL, "--lora-modules", "sql=acme/sql"], environment), list[str]()
    fetch(launch, None, told.append, ask=True)
    adapter.files["adapter_config.json"] += b" "
    fetch(launch, None, told.append, ask=True)
    assert told[-1].endswith("to update, set NAME=HUB_ID@REVISION in loraAdapters")


@pytest.mark.parametrize(("words", "allowed"), [(["--hf-token", "hf_1"], True), (["--hf-token", "--seed", "1"], False)])
def test_the_token_of_the_command_line_downloads_a_gated_model(
    tmp_path: Path, hub: FakeHub, words: list[str], allowed: bool
) -> None:
    hub.models[MODEL].gated = True
    hub.models[MODEL].readers.add("hf_1")
    launch = settle([MODEL, *words], {"HF_HOME": str(tmp_path), "HF_ENDPOINT": hub.address})
    with nullcontext() if allowed else pytest.raises(EngineError, match="is gated, and no token is set"):
        assert fetch(launch, None, lambda _: None)
