"""Which model is served: the stack's own, a small real one if that is too large for the machine, or the stand-in."""

import io
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes.fake_hub import FakeHub, FakeModel, fake_hub
from local import folders, weights
from local.choice import Choice, choose, planned
from local.failures import LocalError
from local.machine import Machine
from local.options import parse
from local.preflight import free_port
from local.progress import Progress

SMALL = Machine("Linux", "x86_64", 2, frozenset({"avx2"}), memory_gib=8, shared_memory_gib=4)
TOO_SLOW = "its 7.5 GiB of weights need more than half of the 8 GiB of memory"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    for name in ("MODELS", "CACHE", "LOGS"):
        monkeypatch.setattr(folders, name, tmp_path / name)
    monkeypatch.setattr(weights, "free_gib", lambda path: 500.0)
    with fake_hub() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.address)
        server.models["Qwen/Qwen3-0.6B"] = FakeModel({"config.json": b"{}", "model.safetensors": b"weights" * 99})
        yield server


def chosen(*arguments: str, machine: Machine = SMALL) -> tuple[Choice, str]:
    options = parse(arguments)
    stream = io.StringIO()
    progress = Progress(stream)
    choice = choose(planned(options, progress), machine, options, Path(sys.executable), progress)
    return choice, stream.getvalue()


def test_a_small_real_model_answers_under_its_own_name(hub: FakeHub) -> None:
    choice, said = chosen("--set", "servedModelName=chat", "--set", "engineArgs=[--max-logprobs, 4]")
    assert (choice.plan.model, choice.plan.served_model_name) == ("Qwen/Qwen3-0.6B", "Qwen/Qwen3-0.6B")
    assert "--max-logprobs" not in choice.plan.engine.args
    assert (choice.folder / "model.safetensors").read_bytes() == b"weights" * 99
    assert choice.stand_in_because == ""
    line = (
        f"SMALLER MODEL: Qwen/Qwen3-0.6B answers here, under its own name, and not Qwen/Qwen3-4B-Instruct-2507 ({TOO_SLOW}). "
        "Its text is real, but not what the stack's model would say."
    )
    assert choice.note == line
    assert line in said.splitlines()
    assert "STAND-IN" not in said


@pytest.mark.parametrize(
    "arguments",
    [["--weights", "stand-in"], ["--model", "Qwen/Qwen2.5-VL-7B-Instruct"]],
    ids=["asked for", "it sees"],
)
def test_the_stand_in_answers_where_the_small_model_cannot(hub: FakeHub, arguments: list[str]) -> None:
    choice, said = chosen(*arguments)
    assert choice.stand_in_because
    assert "STAND-IN: " in said
    assert "SMALLER" not in said
    assert hub.served == []


def test_without_the_hub_or_with_a_failed_download_the_stand_in_answers(
    hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.models["Qwen/Qwen3-0.6B"].gated = True
    choice, _ = chosen()
    assert choice.stand_in_because == TOO_SLOW
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{free_port()}")
    choice, said = chosen()
    assert (choice.plan.model, choice.stand_in_because) == ("Qwen/Qwen3-4B-Instruct-2507", TOO_SLOW)
    assert "SMALLER" not in said


def test_weights_that_must_be_the_stacks_own_are_not_replaced(hub: FakeHub) -> None:
    with pytest.raises(LocalError, match=r"the weights of Qwen/Qwen3-4B-Instruct-2507 are not available"):
        chosen("--weights", "real")


def test_the_small_model_is_planned_without_what_the_stack_says_about_its_own(hub: FakeHub) -> None:
    about = [
        "weightsGib=400",
        "kvBytesPerToken=900000",
        "gpu=h100",
        "gpuCount=8",
        "baseModel=Qwen/Qwen3-4B",
        "reasoningParser=none",
    ]
    choice, _ = chosen(*(word for setting in about for word in ("--set", setting)))
    assert (choice.plan.model, choice.stand_in_because) == ("Qwen/Qwen3-0.6B", "")
    assert choice.plan.memory.weights_gib < 2


def test_base_model_plans_a_model_that_cannot_be_read_with_or_without_the_hub(
    hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    nowhere = f"http://127.0.0.1:{free_port()}"
    for arguments in (["hubEndpoint=" + nowhere, "model=acme/tuned"], ["engineImage=acme/vllm:1", "model=/models/x"]):
        words = [word for setting in (*arguments, "baseModel=Qwen/Qwen3-8B") for word in ("--set", setting)]
        choice, said = chosen(*words, "--weights", "stand-in")
        assert choice.plan.architecture.source == "baseModel"
        assert "planned with the stand-in's figures" not in said
    because = weights.hub_problem("/models/x", "") or ""
    assert because.endswith("this path exists in engineImage only")
    _, said = chosen("--model", "acme/tuned", "--set", "hubEndpoint=" + nowhere, "--weights", "stand-in")
    assert "planned with the stand-in's figures" in said  # its own mirror counts, not the Hub
