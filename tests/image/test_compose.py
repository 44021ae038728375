"""image/compose.yaml matches the dev stack's plan, and exposes no port to the network by default."""

import re
from collections.abc import Sequence
from typing import Any

import pytest
import yaml

from image.engine.arguments import last_value, settle
from image.gateway.backends import DnsDiscovery, FixedCapacity, InlineKeys
from image.gateway.settings import Settings as GatewaySettings
from infra.kubernetes.gateway import local_image
from infra.planning import make_plan
from infra.stack_files import ROOT, load_stack

FOLDER = ROOT / "image"
TEXT = (FOLDER / "compose.yaml").read_text()
KEY = "sk-from-the-shell"


def interpolate(text: str, shell: dict[str, str]) -> str:
    """What Compose makes of ``${NAME:-default}`` and ``${NAME:?message}``."""

    def value(match: re.Match[str]) -> str:
        found = shell.get(match["name"]) or match["default"]
        assert found is not None, f"{match['name']} must be set"
        return found

    return re.sub(r"\$\{(?P<name>\w+)(:-(?P<default>[^}]*)|:\?[^}]*)\}", value, text)


def spelt_with_equals(args: Sequence[str]) -> set[str]:
    """``--flag value`` as ``--flag=value``; a flag without a value as it is."""
    options: list[str] = []
    for word in args:
        if word.startswith("--"):
            options.append(word)
        else:
            options[-1] += f"={word}"
    return set(options)


COMPOSE: dict[str, Any] = yaml.safe_load(interpolate(TEXT, {"VLLM_API_KEY": KEY}))
SERVICES = COMPOSE["services"]


def test_the_engine_is_started_as_the_dev_stack_plans_it() -> None:
    plan = make_plan(load_stack("dev"))
    engine = SERVICES["engine"]
    assert engine["image"] == plan.engine.image
    model, *arguments = engine["command"]
    assert model == plan.model
    planned = spelt_with_equals(plan.engine.args)
    assert set(arguments) == planned | {"--host=0.0.0.0", "--port=8000", "--tensor-parallel-size=1"}
    planned_environment = dict(plan.engine.environment) | {"HF_TOKEN": "", "PYTHONPATH": "/srv/vllm-endpoint"}
    del planned_environment["ENGINE_PLAN_KEY"]  # for the deploy's own step
    assert {name: value or "" for name, value in engine["environment"].items()} == planned_environment


@pytest.mark.parametrize("name", ["engine", "engine-cpu"])
def test_both_engines_run_the_entrypoint_of_this_repository_on_vllms_own_image(name: str) -> None:
    engine = SERVICES[name]
    assert engine["entrypoint"] == ["python3", "-m", "image.engine"]
    mounts = dict(reversed(volume.split(":")[:2]) for volume in engine["volumes"])
    assert mounts == {"/weights": "weights", "/cache": "compile-cache", "/srv/vllm-endpoint/image/engine": "./engine"}
    launch = settle(engine["command"], {name: str(value or "") for name, value in engine["environment"].items()})
    assert launch.port == 8000
    assert last_value(launch.arguments, "--served-model-name") == SERVICES["gateway"]["environment"]["GATEWAY_MODEL"]


def test_a_profile_chooses_the_engine_and_the_gateway_finds_either() -> None:
    assert (SERVICES["engine"]["profiles"], SERVICES["engine-cpu"]["profiles"]) == (["gpu"], ["cpu"])
    assert SERVICES["engine-cpu"]["networks"] == {"default": {"aliases": ["engine"]}}
    assert SERVICES["engine"]["gpus"] == "all"
    assert "gpus" not in SERVICES["engine-cpu"]
    assert SERVICES["engine-cpu"]["environment"]["ENGINE_DEVICE"] == "cpu"


def test_the_gateway_understands_what_it_is_told() -> None:
    gateway = SERVICES["gateway"]
    settings = GatewaySettings.from_environment(gateway["environment"])
    assert settings.model == SERVICES["engine"]["command"][0]
    assert settings.discovery == DnsDiscovery("engine", 8000)
    assert settings.capacity == FixedCapacity()
    assert settings.keys == InlineKeys(KEY)
    assert gateway["image"] == local_image()
    build = gateway["build"]
    assert (FOLDER / build["context"] / build["dockerfile"]).resolve().is_file()


def test_there_is_no_endpoint_without_a_key() -> None:
    assert re.search(r"VLLM_API_KEY: \$\{VLLM_API_KEY:\?[^}]+\}", TEXT)


def test_only_this_machine_reaches_what_is_started() -> None:
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert published == {"gateway": ["127.0.0.1:8000:8080"], "grafana": ["127.0.0.1:3000:3000"]}


def test_monitoring_starts_on_request_only() -> None:
    profiles = {name: service.get("profiles", []) for name, service in SERVICES.items()}
    assert profiles.pop("gateway") == []
    assert [name for name, names in profiles.items() if "monitoring" in names] == ["prometheus", "grafana"]


def test_every_image_has_a_version_and_no_privilege_and_every_mounted_file_exists() -> None:
    for service in SERVICES.values():
        assert re.search(r":v?\d+\.\d+\.\d+$", service["image"])
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert source in COMPOSE["volumes"] or (FOLDER / source).exists(), source


def test_both_engine_and_gateway_may_drain() -> None:
    plan = make_plan(load_stack("dev"))
    for name, seconds in (
        ("engine", plan.engine.stop_timeout_seconds),
        ("gateway", plan.gateway.stop_timeout_seconds),
    ):
        assert SERVICES[name]["stop_grace_period"] == f"{seconds}s"


@pytest.mark.parametrize("name", ["engine", "engine-cpu"])
def test_a_stop_reaches_an_engine_that_waits(name: str) -> None:
    assert SERVICES[name]["init"] is True


def test_the_head_of_the_file_names_every_variable() -> None:
    head = TEXT.split("name: vllm-endpoint")[0]
    for variable in set(re.findall(r"\$\{(\w+)", TEXT)):
        assert variable in head, variable
