"""Command lines and environments in our reader and in vLLM's own parser, whose results the data file holds."""

import json
from pathlib import Path
from typing import Any

import pytest

from image.engine.argument_list import argument_list, size
from image.engine.arguments import EngineError, Launch, settle, values

DATA = json.loads(Path(__file__).with_name("command_lines.json").read_text())


def told(launch: Launch) -> dict[str, Any]:
    """The values that vLLM's result has, from the arguments that vLLM is started with."""
    arguments = launch.arguments
    one = {flag: values(arguments, flag)[-1:] for flag in
           ("--tensor-parallel-size", "--pipeline-parallel-size", "--data-parallel-size", "--max-model-len",
            "--speculative-config", "--spec-model")}  # fmt: skip
    sizes = [int((one[f"--{name}-parallel-size"] or ["1"])[0]) for name in ("tensor", "pipeline", "data")]
    text = (one["--max-model-len"] or [""])[0]
    length = None if not text else -1 if text in ("-1", "auto") else size(text)
    draft = json.loads((one["--speculative-config"] or ["{}"])[0]).get("model") or (one["--spec-model"] or [None])[0]
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


def test_the_data_is_of_a_known_version_and_large_enough() -> None:
    assert argument_list(DATA["vllm"]).version == DATA["vllm"]
    assert len(DATA["cases"]) >= 60
    assert sum(case["expected"] == "error" for case in DATA["cases"]) >= 8
