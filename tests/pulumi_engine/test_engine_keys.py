"""Who owns a stack's API keys, over deploys of the real engine: what make key wrote is never put back."""

from __future__ import annotations

import json

import pytest

from smoke_tests.stack import flat
from tests.pulumi_engine.scene import Ran, Scene

SECRET = "vllm-dev-secret-api-keys"
DRIFT = json.dumps([{"urn": f"SecretVersion::{SECRET}", "set": {"secretString": '{"alice": "sk-made-by-make-key"}'}}])


def touched(ran: Ran) -> list[str]:
    """What was done to the secret's value."""
    return [step.op for step in ran.steps if step.name == SECRET and step.type.endswith(":SecretVersion")]


@pytest.mark.whole_matrix
def test_keys_of_make_key_survive_deploys_and_the_stack_file_takes_over_and_hands_back(scene: Scene) -> None:
    scene.init("dev")
    assert touched(scene.up()) == ["create"]
    assert flat(scene.outputs())["apiKeysSetBy"] == "make key"
    scene.run("refresh", "--yes", "--skip-preview", STANDIN_DRIFT=DRIFT)
    scene.set("gatewayCount", 2)
    assert touched(scene.up()) == [], "what the refresh found is not put back"

    scene.run("config", "set", "--secret", "apiKeysDocument", "--", '{"bob": {"key": "sk-bob", "priority": 5}}')
    assert touched(scene.up()), "the stack file gives the keys now"
    assert flat(scene.outputs())["apiKeysSetBy"] == "apiKeysDocument"
    assert scene.up().unchanged
    scene.run("config", "set", "--secret", "apiKeysDocument", "--", '{"carol": "sk-carol"}')
    assert touched(scene.up()), "and so does each change of it"
    assert "sk-carol" not in json.dumps(scene.resources())

    scene.set("apiKeysDocument", None)
    assert touched(scene.up()) == [], "handed over as they are"
    assert flat(scene.outputs())["apiKeysSetBy"] == "make key"
    written = [
        row["inputs"]["secretString"]
        for row in scene.operations("create", "update")
        if "api-keys" in row["urn"] and "secretString" in row["inputs"]
    ]
    assert "sk-carol" in json.dumps(written[-1])


def test_wrong_settings_of_the_gateway_are_refused_at_preview(scene: Scene) -> None:
    scene.init(
        "dev", {"gatewayEnvironment": ["GATEWAY_MAX_TOKENS=many", "GATEWAY_COUNT=3"], "allowedOrigins": ["null"]}
    )
    said = " ".join(scene.run("preview", ok=False).output.split())
    assert "3 problems in its settings" in said
    assert "GATEWAY_MAX_TOKENS 'many' is not a whole number" in said
    assert "Set gatewayCount instead" in said
    scene.set("gatewayEnvironment", ["GATEWAY_MAX_TOKENS=100"])
    scene.set("allowedOrigins", ["https://app.example.com"])
    assert scene.run("preview").code == 0
