"""The plan: decisions, problems, and what each problem suggests to set."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.errors import PlanError
from infra.planning import make_plan
from infra.planning.__main__ import main
from infra.planning.catalog.models import catalog
from infra.planning.engine import SHUTDOWN_TIMEOUT_SECONDS
from infra.planning.speculation import Speculation, speculation
from infra.settings import Gpu
from infra.settings_problems import parse_settings
from infra.stack_files import load_stack
from tests.infra.planning.plans import argument, no_hub, plan, reasons


def test_dev_is_the_cheapest_a10g_and_sleeps() -> None:
    dev = plan()
    assert dev.replicas.instance_types[0].name == "g5.xlarge"
    assert dev.memory.fits
    assert dev.cost.usd_per_hour_active == pytest.approx(1.006 + dev.cost.usd_per_hour_idle, abs=0.04)  # and its disk
    assert dev.cost.usd_per_hour_idle < 0.15


def test_prod_always_runs_one_h100() -> None:
    prod = plan("prod")
    assert [kind.name for kind in prod.replicas.instance_types] == ["p5.4xlarge"]
    assert prod.cost.usd_per_hour_idle == prod.cost.usd_per_hour_active > 6.88
    assert prod.gateway.count == 2


def test_what_is_not_set_is_left_to_vllm() -> None:
    args = plan().engine.args
    assert not {
        "--max-num-seqs",
        "--max-num-batched-tokens",
        "--quantization",
        "--kv-cache-dtype",
        "--enforce-eager",
    } & set(args)
    assert argument(args, "--max-model-len") == "16384"


def test_every_setting_of_the_engine_reaches_vllm() -> None:
    chosen = plan(
        gpu="l40s", gpuCount=4, model="Qwen/Qwen2.5-VL-7B-Instruct", modelRevision="", servedModelName="eyes", maxModelLen=8192,
        gpuMemoryUtilization=0.95, maxNumSeqs=12, maxNumBatchedTokens=10240, quantization="fp8", kvCacheDtype="fp8",
        speculative="ngram:3", enablePrefixCaching=False, imageLimit=5, videoLimit=1, fastBoot="eager",
        engineArgs=["--seed", "7"], engineEnvironment=["PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True"],
    )  # fmt: skip
    args = chosen.engine.args
    assert argument(args, "--served-model-name") == "eyes"
    assert argument(args, "--gpu-memory-utilization") == "0.95"
    assert argument(args, "--max-num-seqs") == "12"
    assert argument(args, "--max-num-batched-tokens") == "10240"
    assert argument(args, "--tensor-parallel-size") == "4"
    assert argument(args, "--quantization") == "fp8"
    assert argument(args, "--kv-cache-dtype") == "fp8"
    assert json.loads(argument(args, "--speculative-config"))["num_speculative_tokens"] == 3
    assert json.loads(argument(args, "--limit-mm-per-prompt")) == {"image": 5, "video": 1}
    assert argument(args, "--mm-encoder-tp-mode") == "data"
    assert {"--no-enable-prefix-caching", "--enforce-eager"} <= set(args)
    assert args[-2:] == ("--seed", "7")
    assert chosen.engine.environment["PYTORCH_CUDA_ALLOC_CONF"] == "expandable_segments:True"
    assert chosen.engine.shared_memory_mib >= 8 * 1024
    assert any("eager" in warning for warning in chosen.warnings)


def test_the_compile_cache_is_kept_unless_told_otherwise_and_never_shared_by_mistake() -> None:
    keys = [
        plan(**change).engine.compile_cache_key
        for change in ({}, {"maxModelLen": 8192}, {"gpu": "l4"}, {"engineImage": "x/y:1"})
    ]
    assert len(set(keys)) == 4
    environment = plan().engine.environment
    assert (environment["ENGINE_CACHE"], environment["ENGINE_PLAN_KEY"]) == ("/cache", keys[0])
    assert environment["ENGINE_IMAGE"] == plan().engine.image
    assert "VLLM_CACHE_ROOT" not in environment, "vLLM never writes in what replicas share"
    assert "ENGINE_CACHE" not in plan(fastBoot=False).engine.environment


def test_timeouts_nest() -> None:
    chosen = plan()
    hold = int(chosen.gateway.environment["GATEWAY_HOLD_TIMEOUT_NONSTREAM_SECONDS"])
    assert chosen.replicas.expected_cold_start_seconds < chosen.replicas.startup_timeout_seconds == hold
    assert hold < chosen.gateway.idle_timeout_seconds < int(chosen.gateway.environment["GATEWAY_KEEP_ALIVE_SECONDS"])
    drain = chosen.gateway.drain_timeout_seconds + int(chosen.gateway.environment["GATEWAY_DRAIN_DELAY_SECONDS"])
    assert drain + 5 <= chosen.gateway.stop_timeout_seconds <= 120
    assert SHUTDOWN_TIMEOUT_SECONDS + 15 <= chosen.engine.stop_timeout_seconds < hold


def test_what_does_not_fit_names_the_smallest_change() -> None:
    (reason,) = reasons("prod", gpu="a10g")
    assert reason.startswith("gpu: Qwen/Qwen3-32B-FP8 does not fit on one NVIDIA A10G: 32.07 GiB of weights")
    assert (
        "Set gpu: rtx-pro-6000 (g7e.2xlarge, $3.36 an hour); or gpuCount: 4 (g5.12xlarge, $5.67 an hour); or gpu: h100"
        in reason
    )


@pytest.mark.parametrize("change", [{"gpu": "a10g", "gpuCount": 4}, {"gpu": "h100"}, {"gpu": "a10g", "gpuCount": 8}])
def test_what_a_refusal_suggests_does_fit(change: dict[str, Any]) -> None:
    assert plan("prod", **change).memory.fits


def test_a_length_that_does_not_fit_names_one_that_does() -> None:
    (reason,) = reasons(maxModelLen=262_144)
    assert reason.startswith(
        "maxModelLen: one sequence of 262,144 tokens does not fit in the KV cache of one NVIDIA A10G"
    )
    suggested = int(reason.split("maxModelLen: ")[2].split(" ")[0])
    assert plan(maxModelLen=suggested).memory.fits


@pytest.mark.parametrize(
    ("overrides", "key", "advice"),
    [
        ({"gpuCount": 8, "model": "Qwen/Qwen3-14B"}, None, None),
        ({"gpuCount": 8, "model": "Qwen/Qwen2.5-VL-7B-Instruct"}, "gpuCount", "1 or 2 or 4"),
        ({"kvCacheDtype": "fp8"}, "kvCacheDtype", "kvCacheDtype: auto"),
        ({"quantization": "fp8", "model": "Qwen/Qwen3-8B-AWQ"}, "quantization", "awq already"),
        ({"quantization": "awq"}, "quantization", "quantization: fp8"),
        ({"maxModelLen": 300_000}, "maxModelLen", "at most 262144"),
        ({"imageLimit": 1}, "imageLimit", "vision model"),
        ({"videoLimit": 2}, "videoLimit", "videoLimit: 0"),
        ({"instanceTypes": ["g5.huge"]}, "instanceTypes", "g5.xlarge"),
        ({"instanceTypes": ["g6.xlarge"]}, "instanceTypes", "gpu: l4"),
        ({"instanceTypes": ["g5.xlarge"], "gpuCount": 4}, "instanceTypes", "larger type"),
        ({"instanceTypes": ["g5.xlarge"], "model": "Qwen/Qwen3-8B"}, "instanceTypes", "more memory"),
        ({"speculative": "magic beans"}, "speculative", "ngram"),
        ({"speculative": "{"}, "speculative", "JSON"),
        ({"model": "acme/unknown"}, "model", "infra/planning/catalog/models.json"),
    ],
)
def test_each_refusal_is_one_line_that_says_what_to_set(
    overrides: dict[str, Any], key: str | None, advice: str | None
) -> None:
    if key is None or advice is None:
        assert plan(**overrides).memory.fits
        return
    (found,) = reasons(**overrides)
    assert found.startswith(f"{key}: ")
    assert advice in found
    assert "\n" not in found


def test_a_quantization_that_the_gpu_cannot_run_names_one_that_can() -> None:
    activations = {"num_bits": 8, "type": "float"}
    group = {"weights": {"num_bits": 4}, "input_activations": activations}
    config = {
        "hidden_size": 64, "num_attention_heads": 4, "num_hidden_layers": 2, "vocab_size": 512, "max_position_embeddings": 32_768,
        "quantization_config": {"quant_method": "compressed-tensors", "config_groups": {"group_0": group}},
    }  # fmt: skip
    with pytest.raises(
        PlanError,
        match=r"^quantization: compressed-tensors needs compute capability 9.0 .* Set gpu: rtx-pro-4500 or .* gpu: h100 or gpu: h200 or gpu: b200 or gpu: b300$",
    ):
        make_plan(load_stack("dev", {"model": "acme/w4a8"}), fetch=lambda model, revision: config)
    assert make_plan(
        load_stack("dev", {"model": "acme/w4a8", "gpu": "h100"}), fetch=lambda model, revision: config
    ).memory.fits


def test_slow_reads_may_be_chosen() -> None:
    chosen = plan(
        instanceTypes=["g5.xlarge"], model="Qwen/Qwen3-8B", engineArgs=["--safetensors-load-strategy", "lazy"]
    )
    assert chosen.replicas.instance_types[0].name == "g5.xlarge"
    assert any("slow" in warning for warning in chosen.warnings)


def test_all_refusals_come_together() -> None:
    assert len(reasons(kvCacheDtype="fp8", imageLimit=1, maxModelLen=300_000)) == 3


def test_a_cluster_is_billed_for_the_replica_that_always_runs() -> None:
    chosen = plan(target="kubernetes")
    assert chosen.cost.usd_per_hour_idle == chosen.cost.usd_per_hour_active == 1.006
    assert "instanceTypes" not in json.loads(chosen.gateway.environment["GATEWAY_INFO"])


def test_an_instance_that_bills_for_idle_gpus_is_named() -> None:
    chosen = plan(gpu="h200")
    assert chosen.replicas.instance_types[0].name == "p5en.48xlarge"
    assert any("8 GPUs" in warning for warning in chosen.warnings)


def test_a100_with_80_gib_is_its_own_type() -> None:
    small, large = plan(gpu="a100", gpuCount=8), plan(gpu="a100", gpuCount=8, instanceTypes=["p4de.24xlarge"])
    assert small.memory.usable_gib < 40 < large.memory.usable_gib


@pytest.mark.parametrize(
    ("text", "config", "draft"),
    [
        ("ngram", {"method": "ngram", "num_speculative_tokens": 4, "prompt_lookup_max": 4}, ""),
        ("mtp", {"method": "mtp", "num_speculative_tokens": 1}, ""),
        ("Qwen/Qwen3-0.6B:5", {"model": "Qwen/Qwen3-0.6B", "num_speculative_tokens": 5}, "Qwen/Qwen3-0.6B"),
        ("eagle3:acme/head:3", {"method": "eagle3", "model": "acme/head", "num_speculative_tokens": 3}, "acme/head"),
        ("eagle:acme/head", {"method": "eagle", "model": "acme/head", "num_speculative_tokens": 4}, "acme/head"),
        ('{"method": "suffix"}', {"method": "suffix"}, ""),
    ],
)
def test_speculative_forms(text: str, config: dict[str, object], draft: str) -> None:
    found = speculation(text)
    assert isinstance(found, Speculation)
    assert json.loads(found.config) == config
    assert found.draft == draft


def test_no_speculation_unless_asked_for() -> None:
    assert speculation("") is None


def test_command_line_refuses_with_exit_code_1(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prod", "--set", "gpu=a10g"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: gpu: Qwen/Qwen3-32B-FP8 does not fit")
    assert len(error.strip().splitlines()) == 1


def test_command_line_json_has_the_promised_keys(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dev", "--set", "gpu=h200", "--set", "maxModelLen=8192", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    promised = "fits instance_types gpu_count weights_gib kv_cache_tokens max_full_length_sequences engine_args environment usd_per_hour_active usd_per_hour_idle"
    assert set(promised.split()) <= set(printed)
    assert printed["kv_cache_tokens"] == pytest.approx(874_048, rel=0.03)


def test_command_line_says_how_many_copies_share_the_gpus(capsys: pytest.CaptureFixture[str]) -> None:
    changes = ["--set", "gpu=h200", "--set", "gpuCount=8", "--set", "dataParallelSize=4"]
    assert main(["dev", *changes]) == 0
    assert "tokens in each of 4 copies of the model" in capsys.readouterr().out
    assert main(["dev", *changes, "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert (printed["tensor_parallel_size"], printed["data_parallel_size"]) == (2, 4)


def test_command_line_table_answers_the_three_questions(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dev"]) == 0
    table = capsys.readouterr().out
    assert "1 x NVIDIA A10G per replica (g5.xlarge" in table
    assert "5 sequences of 16,384 tokens" in table
    assert "an hour active" in table


def test_command_line_names_an_unknown_stack(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["staging"]) == 1
    assert "there is no Pulumi.staging.yaml. Set one of: dev, prod" in capsys.readouterr().err


@settings(max_examples=200, deadline=None)
@given(
    model=st.sampled_from(sorted(catalog())),
    gpu=st.sampled_from(list(Gpu)),
    count=st.sampled_from([1, 2, 4, 8]),
    length=st.sampled_from([0, 2048, 32_768, 131_072]),
    quantization=st.sampled_from(["", "fp8", "awq"]),
    kv=st.sampled_from(["auto", "fp8"]),
)
def test_every_combination_is_a_plan_that_fits_or_says_why(
    model: str, gpu: Gpu, count: int, length: int, quantization: str, kv: str
) -> None:
    values = {
        "model": model,
        "gpu": gpu,
        "gpuCount": count,
        "maxModelLen": length,
        "quantization": quantization,
        "kvCacheDtype": kv,
    }
    try:
        chosen = make_plan(parse_settings(values), fetch=no_hub)
    except PlanError as error:
        assert error.problems
        assert all("Set " in reason or "Remove " in reason for reason in error.problems)
    else:
        assert chosen.memory.fits
        assert chosen.memory.max_model_len > 0
        if chosen.architecture.keeps_cache:
            assert chosen.memory.kv_cache_tokens >= chosen.memory.max_model_len
        assert chosen.replicas.instance_types[0].gpus >= count
        assert chosen.engine.memory_mib < chosen.replicas.instance_types[0].memory_gib * 1024
