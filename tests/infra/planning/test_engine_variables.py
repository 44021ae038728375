"""Variables of the engine that its entrypoint reads as arguments, which the plan would not know of."""

import pytest

from image.engine.arguments import variable_names
from infra.errors import PlanError
from infra.planning import make_plan
from infra.planning.engine_arguments import known_arguments
from infra.planning.engine_variables import engine_variable_problems
from infra.settings import Settings
from infra.stack_files import load_stack


def settings(*pairs: str) -> Settings:
    return load_stack("dev", {"engineEnvironment": list(pairs)})


@pytest.mark.parametrize(
    ("pair", "fix"),
    [
        ("KV_CACHE_DTYPE=fp8", "reads as --kv-cache-dtype, past the plan. Remove it, and set kvCacheDtype"),
        ("MAX_MODEL_LEN=4096", "set maxModelLen"),
        ("MODEL_NAME=acme/other", "set model"),
        ("MODEL_REVISION=v2", "set modelRevision"),
        ("ENFORCE_EAGER=true", "set fastBoot: eager"),
        ("IMAGE_LIMIT=2", "set imageLimit"),
        ("VLLM_EXTRA_ARGS=--kv-cache-dtype fp8", "reads as arguments, past the plan. Remove it, and set engineArgs"),
        ("SEED=7", 'set engineArgs: ["--seed", "7"]'),
        ("DISABLE_LOG_STATS=true", 'set engineArgs: ["--disable-log-stats"]'),
        ("PORT=8001", "--port, past the plan. Remove it"),
    ],
)
def test_a_variable_that_is_an_argument_names_its_setting(pair: str, fix: str) -> None:
    (line,) = engine_variable_problems(settings(pair))
    assert line.startswith(f"engineEnvironment: found {pair.partition('=')[0]}, which the engine ")
    assert fix in line


def test_every_translated_variable_has_a_fix_and_vllms_own_are_passed_on() -> None:
    names = variable_names(known_arguments("")[0])
    assert len(list(engine_variable_problems(settings(*(f"{name}=1" for name in names))))) == len(names)
    with pytest.raises(PlanError, match="SEED, which the engine reads"):
        make_plan(settings("SEED=1"))
    kept = ["VLLM_LOGGING_LEVEL=DEBUG", "NCCL_DEBUG=INFO", "HF_HUB_DISABLE_XET=1", "SEED="]
    planned = make_plan(settings(*kept)).engine.environment
    assert dict(pair.split("=", 1) for pair in kept).items() <= planned.items()
