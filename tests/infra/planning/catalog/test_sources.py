"""Where the planner reads a model: the Hub or its mirror with the stack's token, S3, the engine's image, a folder."""

import io
import json
import urllib.request
from collections.abc import Iterator
from email.message import Message
from pathlib import Path
from typing import Any

import pytest

from fakes.fake_hub import FakeHub, FakeModel, fake_hub
from image.engine.hub import TokenRedirect
from infra.errors import PlanError, SettingsError
from infra.planning import make_plan
from infra.planning.catalog.model_repository import hub_config
from infra.planning.catalog.sources import config_reader, hub_environment
from infra.planning.deployment import deployment_problems
from infra.planning.weights import weight_bytes
from infra.settings import Settings
from infra.settings_problems import parse_settings
from infra.stack_files import load_stack
from tests.buckets import filled_bucket

CONFIG = {
    "model_type": "qwen3", "hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 4, "num_attention_heads": 16,
    "num_key_value_heads": 8, "head_dim": 64, "vocab_size": 1000, "max_position_embeddings": 8192,
}  # fmt: skip
FILES = {"config.json": json.dumps(CONFIG).encode(), "model.safetensors": b"w" * 1000, "pytorch_model.bin": b"o" * 500}
SHORT = {"maxModelLen": 0}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # of this machine; nothing listens there
    monkeypatch.delenv("HF_TOKEN", raising=False)
    with fake_hub() as found:
        found.models["acme/gated"] = FakeModel(dict(FILES), gated=True, readers={"hf_right"})
        found.models["acme/open"] = FakeModel(dict(FILES))
        yield found


def settings(**values: Any) -> Settings:
    return load_stack("dev", SHORT | values)


def test_the_stacks_mirror_and_token_reach_the_planner_and_the_token_is_never_printed(hub: FakeHub) -> None:
    mirror = {"hubEndpoint": hub.address, "model": "acme/gated"}
    with pytest.raises(PlanError) as refused:
        make_plan(settings(**mirror))
    assert "is gated and needs hfToken" in str(refused.value)
    plan = make_plan(parse_settings(SHORT | mirror | {"hfToken": "hf_right"}))
    assert weight_bytes(plan.architecture, "") == 1000
    assert plan.engine.environment["HF_ENDPOINT"] == hub.address
    assert "hf_right" not in repr(plan)
    hub.models["acme/gated"].readers = {"hf_other"}
    with pytest.raises(PlanError) as refused:
        make_plan(parse_settings(SHORT | mirror | {"hfToken": "hf_right"}))
    assert "hf_right" not in str(refused.value)


def test_a_revision_with_slashes_and_a_token_on_a_redirect(hub: FakeHub) -> None:
    assert hub_config("acme/open", "refs/pr/2", {"HF_ENDPOINT": f"{hub.address}/"})["model_type"] == "qwen3"
    request = urllib.request.Request("https://hub.example/acme/open")
    request.add_unredirected_header("Authorization", "Bearer hf_right")
    for address, told in (("https://cdn.example/x", False), ("https://hub.example/y", True)):
        following = TokenRedirect().redirect_request(request, io.BytesIO(), 302, "Found", Message(), address)
        assert following is not None
        assert following.has_header("Authorization") == told


def test_settings_take_precedence_over_this_machines_environment() -> None:
    machine = {"HF_ENDPOINT": "http://machine", "HF_TOKEN": "hf_machine"}
    assert hub_environment(settings(), machine) == machine
    given = settings(engineEnvironment=["HF_ENDPOINT=http://given"])
    assert hub_environment(given, machine)["HF_ENDPOINT"] == "http://given"
    both = parse_settings({"hubEndpoint": "https://mirror.example/hf/", "hfToken": "hf_stack"})
    assert hub_environment(both, machine) == {"HF_ENDPOINT": "https://mirror.example/hf", "HF_TOKEN": "hf_stack"}


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    with filled_bucket(FILES, "llms/qwen3-8b-support", monkeypatch) as client:
        yield client


def test_a_model_in_s3_is_read_and_named_by_its_folder(bucket: Any) -> None:
    chosen = settings(model="s3://acme-models/llms/qwen3-8b-support/")
    plan = make_plan(chosen, fetch=config_reader(chosen, {}, s3=lambda: bucket))
    assert (plan.served_model_name, plan.architecture.source) == ("qwen3-8b-support", "S3")
    assert weight_bytes(plan.architecture, "") == 1000
    assert plan.engine.args[plan.engine.args.index("--reasoning-parser") + 1] == "qwen3"
    assert plan.cost.usd_once == 0  # the VPC's endpoint of S3 is free
    assert deployment_problems(chosen, plan, "us-east-1") == []
    for model, told in (("s3://acme-models/none", "has no files"), ("s3://other-bucket/x", "was not found in S3")):
        other = settings(model=model)
        with pytest.raises(PlanError, match=told) as refused:
            make_plan(other, fetch=config_reader(other, {}, s3=lambda: bucket))
        assert str(refused.value).endswith("Set baseModel to plan it without reading it")


def test_without_access_base_model_plans_it_as_an_estimate() -> None:
    def nobody() -> Any:
        raise PermissionError

    chosen = settings(model="s3://acme-models/x", baseModel="Qwen/Qwen3-4B")
    plan = make_plan(chosen, fetch=config_reader(chosen, {}, s3=nobody))
    assert any("is an estimate, because its figures are those of Qwen/Qwen3-4B" in text for text in plan.warnings)
    assert plan.engine.args[plan.engine.args.index("--reasoning-parser") + 1] == "qwen3"


def test_a_folder_of_this_machine_is_refused_for_a_remote_target(tmp_path: Path) -> None:
    for name, content in FILES.items():
        (tmp_path / name).write_bytes(content)
    for values in ({}, {"baseModel": "Qwen/Qwen3-4B"}):
        chosen = settings(model=str(tmp_path), **values)
        try:
            problems = deployment_problems(chosen, make_plan(chosen), "us-east-1")
        except PlanError as error:
            problems = error.problems
        (problem,) = problems
        assert "a folder of this machine, where the engine does not run" in problem
        assert problem.endswith("or the path in engineImage; make local serves a folder")


def test_a_path_in_the_image_is_never_read_from_this_machine(tmp_path: Path) -> None:
    for name, content in FILES.items():
        (tmp_path / name).write_bytes(content)
    inside = {"model": str(tmp_path), "engineImage": "registry.example/engine:1"}
    with pytest.raises(PlanError, match="in the engine's image, which is not read"):
        make_plan(settings(**inside))
    chosen = settings(**inside, baseModel="Qwen/Qwen3-4B")
    plan = make_plan(chosen)
    assert (plan.model, plan.served_model_name) == (str(tmp_path), tmp_path.name)
    assert json.loads(plan.gateway.environment["GATEWAY_INFO"])["revision"] == ""  # only the Hub has any
    assert weight_bytes(plan.architecture, "") > 7e9  # of Qwen3-4B, not of the folder here
    assert deployment_problems(chosen, plan, "us-east-1") == []
    assert plan.replicas.root_volume_gib > make_plan(settings()).replicas.root_volume_gib
    assert not any(item.name == "weights on EFS" and item.usd_per_hour_idle for item in plan.cost.items)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"model": "gs://bucket/model"}, "is not supported; set a Hub id, s3://BUCKET/PREFIX"),
        ({"model": "s3://bucket/${aws:username}"}, "is not s3://BUCKET/PREFIX"),
        ({"model": "s3://acme-models/x", "modelRevision": "v1"}, "has no revisions. Remove modelRevision"),
        ({"hubEndpoint": "mirror.example"}, "which is not an http or https URL"),
        ({"hubEndpoint": "https://user:hunter2x@mirror.example"}, "contains a user name or password; set hfToken"),
        ({"hubEndpoint": "https://mirror.example", "engineEnvironment": ["HF_ENDPOINT=https://x"]}, "hubEndpoint sets it"),
    ],
)  # fmt: skip
def test_what_cannot_be_a_source_is_one_line_without_a_password(values: dict[str, Any], told: str) -> None:
    with pytest.raises(SettingsError) as refused:
        settings(**values)
    (problem,) = refused.value.problems
    assert told in problem
    assert "hunter2x" not in problem


def test_s3_needs_the_role_of_a_task() -> None:
    chosen = settings(model="s3://acme-models/x", baseModel="Qwen/Qwen3-4B", target="kubernetes")
    plan = make_plan(chosen, fetch=config_reader(chosen, {}, s3=lambda: None))
    assert any("Set target: ecs, or a Hub id" in line for line in deployment_problems(chosen, plan, "us-east-1"))
