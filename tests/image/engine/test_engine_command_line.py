"""Command lines and environments in our reader and in vLLM's own parser, whose results the data file holds."""

import json
from pathlib import Path
from typing import Any

import pytest

from image.engine.argument_list import argument_list, size
from image.engine.arguments import EngineError, Launch, settle, values
from image.engine.models import repositories

DATA = json.loads(Path(__file__).with_name("command_lines.json").read_text())


def told(launch: Launch) -> dict[str, Any]:
    """The values that vLLM's result has, from the arguments that vLLM is started with."""
    arguments = launch.arguments
    one = {flag: values(arguments, flag)[-1:] for flag in
           ("--tensor-parallel-size", "--pipeline-parallel-size", "--data-parallel-size", "--max-model-len",
            "--speculative-config")}  # fmt: skip
    sizes = [int((one[f"--{name}-parallel-size"] or ["1"])[0]) for name in ("tensor", "pipeline", "data")]
    text = (one["--max-model-len"] or [""])[0]
    length = None if not text else -1 if text in ("-1", "auto") else size(text)
    draft = json.loads((one["--speculative-config"] or ["{}"])[0]).get("model")
    names = values(arguments, "--served-model-name") or [arguments[0]]
    return {"model": arguments[0], "names": names, "parallel": sizes, "length": length, "draft": draft}


@pytest.mark.parametrize("case", DATA["cases"], ids=lambda case: " ".join(case["words"] or case["environment"]))
def test_a_command_line_means_what_it_means_to_vllm(
    case: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("image.engine.arguments.installed_version", lambda: DATA["vllm"])
    file = tmp_path / "arguments.yaml"
    file.write_text(json.dumps(case.get("config", {})))  # JSON is YAML
    words = [word.replace("FILE", str(file)) for word in case["words"]]
    if case["expected"] == "error":
        with pytest.raises(EngineError) as raised:
            settle(words, case.get("environment", {}))
        assert "\n" not in str(raised.value)
    else:
        assert told(settle(words, case.get("environment", {}))) == case["expected"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["serve", "acme/m", "--dtype auto"], "found '--dtype auto', several words in one; write --dtype and its value as two"),
        (["acme/m", " --reasoning-parser qwen3"], "several words in one"),
        (["acme/m", "--speculative-config", "'{\"method\": \"mtp\"}'"], "--speculative-config: found"),
        (["acme/m", "--enable-prefix-caching", "true"], "unrecognized arguments: true"),
        (["acme/m", "--enable-chunked-prefill=False"], "ignored explicit argument 'False'"),
        (["acme/m", "--limit-mm-per-prompt", "image=1,video=0"], "--limit-mm-per-prompt: found 'image=1,video=0'; vLLM expects JSON"),
        (["acme/m", "--max-ctx-size", "2048"], "--max-ctx-size: vLLM 0.33.0 has no such argument"),
        (["acme/m", "--gpu_memory_utilisation", "0.9"], "did you mean --gpu-memory-utilization?"),
        (["acme/m", "--config", "/nowhere/a.json"], "set a file that ends in .yaml or .yml"),
        (["acme/m", "--config", "a.yaml", "--config", "b.yaml"], "found more than once"),
        (["acme/m", "--api-key sk-1"], "found '--api-key ***', several words in one"),
        (["acme/m", "--hf-overrides", "'{\"a\": 1}'"], "vLLM expects JSON without quotation marks around it"),
        (["acme/m", "--tensor-parallel-size", "2GPUs"], "vLLM expects a whole number"),
    ],
)  # fmt: skip
def test_mistakes_that_people_report_are_one_line(
    words: list[str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lines from Helm charts, compose files and start scripts whose authors asked vLLM's maintainers for help."""
    monkeypatch.setattr("image.engine.arguments.installed_version", lambda: "0.33.0")
    with pytest.raises(EngineError) as raised:
        settle(words, {})
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_file_may_be_named_with_an_equals_sign_and_switch_flags_off(tmp_path: Path) -> None:
    """vLLM ignores the file of --config=FILE, and a false below a name with underscores, without a word."""
    file = tmp_path / "arguments.yaml"
    file.write_text("enable_prefix_caching: false\nmax-model-len: 512\nenforce-eager: true\n")
    launch = settle(["acme/m", f"--config={file}"], {})
    assert launch.arguments[1:5] == ("--no-enable-prefix-caching", "--max-model-len", "512", "--enforce-eager")


def test_the_draft_model_of_the_short_flags_is_fetched() -> None:
    launch = settle(["acme/m", "--spec-model", "acme/draft", "--spec-tokens=3"], {})
    assert [one.name for one in repositories(launch.arguments)] == ["acme/m", "acme/draft"]
    with pytest.raises(EngineError, match="--spec-model: found, but --speculative-config sets model"):
        settle(["acme/m", "--spec-model", "acme/draft", "-sc.model", "acme/other"], {})


def test_the_data_is_of_a_known_version_and_large_enough() -> None:
    assert argument_list(DATA["vllm"]).version == DATA["vllm"]
    assert len(DATA["cases"]) >= 60
    assert sum(case["expected"] == "error" for case in DATA["cases"]) >= 8
