"""What a region sells: the catalog of instance types, and the plan's lines about what it does not sell."""

import gzip
import json
import re
from pathlib import Path
from typing import Any

import moto.ec2
import pytest

from infra.errors import PlanError
from infra.planning import make_plan
from infra.planning.catalog import gpus
from infra.planning.catalog.gpus import gpu_specs, known_instance_types, known_regions
from infra.planning.plan import ServingPlan
from infra.settings import Gpu
from infra.stack_files import load_stack

DATA = json.loads(Path(gpus.__file__).with_name("instances.json").read_text())
AWS = json.loads(gzip.decompress((Path(moto.ec2.__file__).parent / "resources/instance_types.json.gz").read_bytes()))
SUPPORTED_BY_THE_CATALOG = r"(g4dn|g5|g6|gr6|g6f|gr6f|g6e|g7|g7e|p4d|p4de|p5|p5e|p5en|p6-b200|p6-b300)\.\d*(x?large)"


def plan(region: str = "us-east-1", stack: str = "dev", **changes: Any) -> ServingPlan:
    return make_plan(load_stack(stack, changes), region=region)


def test_every_figure_of_every_type_is_that_of_aws() -> None:
    assert set(known_instance_types()) == {name for name in AWS if re.fullmatch(SUPPORTED_BY_THE_CATALOG, name)}
    for name, known in known_instance_types().items():
        told = AWS[name]
        (gpu,) = told["GpuInfo"]["Gpus"]
        assert known.gpus == (gpu["Count"] or 1), name
        assert known.fractional == (gpu["Count"] == 0), name
        assert known.vcpus == told["VCpuInfo"]["DefaultVCpus"], name
        assert known.memory_gib * 1024 == told["MemoryInfo"]["SizeInMiB"], name
        assert known.nvme_gb == told["InstanceStorageInfo"]["TotalSizeInGB"], name
        assert known.ebs_mb_per_second == told["EbsInfo"]["EbsOptimizedInfo"]["MaximumThroughputInMBps"], name
        assert set(known.purchase) == set(told["SupportedUsageClasses"]), name
        # CUDA reports less than the data sheet: the driver and error correction take a part.
        assert 0.88 < known.gpu_memory_gib * 1024 / gpu["MemoryInfo"]["SizeInMiB"] < 1.0, name


def test_every_price_has_a_source_a_date_and_a_region() -> None:
    for known in known_instance_types().values():
        assert known.usd_per_hour > 0
        assert known.price_source.startswith("AWS ")
        assert re.fullmatch(r"20\d\d-\d\d(-\d\d)?", known.priced_on)
        assert known.price_region in known_regions()
    assert "remembered" not in json.dumps(DATA)


def test_every_gpu_has_its_compute_capability() -> None:
    assert {gpu: spec.compute_capability for gpu, spec in gpu_specs().items()} == {
        Gpu.T4: 75, Gpu.A10G: 86, Gpu.L4: 89, Gpu.L40S: 89, Gpu.RTX_PRO_4500: 120, Gpu.RTX_PRO_6000: 120, Gpu.A100: 80,
        Gpu.H100: 90, Gpu.H200: 90, Gpu.B200: 100, Gpu.B300: 103,
    }  # fmt: skip


def test_a_type_that_the_region_sells_only_as_capacity_blocks_is_a_warning_with_alternatives() -> None:
    found = plan(stack="prod")
    assert found.replicas.instance_types[0].name == "p5.4xlarge"
    (line,) = found.warnings
    assert line.startswith(
        "p5.4xlarge: us-east-1 sells it through capacity blocks only (believed, not confirmed). Set "
    )
    assert "capacity: capacity-block with the capacityReservationId" in line
    assert "aws:region to one of ap-northeast-1" in line
    assert "gpu: rtx-pro-6000 (g7e.2xlarge, $3.36 an hour)" in line
    assert not plan("ap-northeast-1", "prod").warnings
    assert not plan(stack="prod", capacity="capacity-block", capacityReservationId="cr-1").warnings


@pytest.mark.parametrize(
    ("region", "changes", "found", "advice"),
    [
        ("eu-west-1", {"gpu": "l40s"}, "g6e.xlarge, g6e.2xlarge, g6e.4xlarge: not offered in eu-west-1", "aws:region to one of"),
        ("us-east-1", {"capacity": "capacity-block", "capacityReservationId": "cr-1"}, "not sold as capacity-block (on-demand, spot only)", "capacity: on-demand"),
        ("us-east-1", {"gpu": "h200", "instanceTypes": ["p5e.48xlarge"]}, "p5e.48xlarge: not offered in us-east-1", "gpu: h200 (p5en.48xlarge"),
        ("us-east-1", {"gpu": "h100", "capacity": "spot", "instanceTypes": ["p5.4xlarge"]}, "through capacity blocks only", "capacity-block"),
    ],
)  # fmt: skip
def test_what_a_region_does_not_sell_is_named(region: str, changes: dict[str, Any], found: str, advice: str) -> None:
    (line,) = [text for text in plan(region, **changes).warnings if found in text]
    assert advice in line.split("Set ")[1]


def test_the_types_that_the_region_offers_are_chosen() -> None:
    assert plan("us-east-1", gpu="h200").replicas.instance_types[0].name == "p5en.48xlarge"
    assert plan("ap-southeast-2", gpu="h200").replicas.instance_types[0].name == "p5e.48xlarge"
    assert plan("moon-north-1", gpu="h200").replicas.instance_types  # an unknown region is not refused


def test_a_fraction_of_a_gpu_is_chosen_only_by_name_and_named() -> None:
    assert all(
        not k.fractional for k in plan(gpu="l4", model="Qwen/Qwen3-0.6B", maxModelLen=1024).replicas.instance_types
    )
    found = plan(gpu="l4", maxModelLen=4096, instanceTypes=["g6f.4xlarge"])
    assert found.memory.gpu_memory_gib == 11.02
    assert "g6f.4xlarge has a fraction of a GPU" in found.warnings[0]


def test_a_t4_has_neither_bfloat16_nor_fp8() -> None:
    assert "does not support bfloat16" in plan(gpu="t4", maxModelLen=4096).warnings[0]
    for changes in ({"kvCacheDtype": "fp8"}, {"kvCacheDtype": "bfloat16"}):
        with pytest.raises(PlanError, match=r"^kvCacheDtype: found .* NVIDIA T4"):
            plan(gpu="t4", maxModelLen=4096, **changes)
    assert "--quantization" not in plan(gpu="t4", maxModelLen=4096, quantization="auto").engine.args
    for gpu in ("rtx-pro-4500", "rtx-pro-6000", "b200", "b300"):
        assert "--quantization" in plan(gpu=gpu, maxModelLen=4096, quantization="auto").engine.args


def test_what_would_fit_is_sold_in_the_stacks_region() -> None:
    """A suggestion that is then answered with "not offered" helps nobody."""

    def suggested(region: str, **values: Any) -> str:
        with pytest.raises(PlanError) as raised:
            make_plan(load_stack("dev", {"model": "Qwen/Qwen3-32B", "gpu": "l4", **values}), region=region)
        return raised.value.problems[0].partition(". Set ")[2]

    assert "rtx-pro-6000" in suggested("us-east-1")
    assert suggested("ap-southeast-1").startswith("gpu: a100 (p4de.24xlarge")
    assert "rtx-pro-6000" in suggested("ap-southeast-1", target="kubernetes")  # its nodes may be anywhere
