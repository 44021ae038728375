"""The first start at deployment, so that no request has to wait for compilation; AWS is moto's server on loopback."""

import sys
from pathlib import Path

import boto3
import pytest

from fakes.fake_hub import FakeHub
from image.engine import fetch, prewarm
from image.engine.prepare import prewarm_marker
from tests.image.engine.conftest import MODEL
from tests.image.gateway.test_gateway_aws import Stack, aws, moto

__all__ = ["aws", "moto"]


@pytest.fixture
def deployed(
    aws: boto3.session.Session, hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Stack:  # fmt: skip
    """A stack at zero, and the environment of the task that fetches."""
    variables = {
        "HF_HOME": str(tmp_path / "weights"), "HF_ENDPOINT": hub.address, "ENGINE_CACHE": str(tmp_path / "cache"),
        "ENGINE_PLAN_KEY": "k1", "ENGINE_PREWARM_TARGET": "ecs:vllm/engine/gpus",
    }  # fmt: skip
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "argv", ["fetch", MODEL])
    return Stack(aws)


def test_an_engine_that_never_compiled_is_started_once_its_weights_are_there(deployed: Stack) -> None:
    assert fetch.main() == 0
    assert deployed.desired() == (1, 1)


def test_one_that_did_is_left_alone(deployed: Stack, tmp_path: Path) -> None:
    marker = prewarm_marker(tmp_path / "cache", "k1")
    marker.parent.mkdir(parents=True)
    marker.touch()
    assert fetch.main() == 0
    assert deployed.desired() == (0, 0)


def test_weights_that_cannot_be_had_start_nothing(deployed: Stack, hub: FakeHub) -> None:
    hub.models[MODEL].gated = True
    assert fetch.main() == 2
    assert deployed.desired() == (0, 0)


def test_a_start_that_fails_is_told_and_does_not_fail_the_step(
    deployed: Stack, capsys: pytest.CaptureFixture[str]
) -> None:
    deployed.autoscaling.delete_auto_scaling_group(AutoScalingGroupName="gpus", ForceDelete=True)
    assert fetch.main() == 0
    assert "the prewarm start failed" in capsys.readouterr().out


def test_only_ecs_is_started() -> None:
    with pytest.raises(
        ValueError, match=r"ENGINE_PREWARM_TARGET: 'fixed' must be ecs:CLUSTER/SERVICE/AUTO_SCALING_GROUP"
    ):
        prewarm.start("fixed")
