"""When the model's own weights are used, and the reason that is reported otherwise."""

import http.server
import json
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from fakes.fake_hub import FakeModel, fake_hub
from infra.planning import make_plan
from infra.planning.plan import ServingPlan
from infra.stack_files import load_stack
from local import download, folders, preflight, weights
from local.arguments import kept_on
from local.machine import Machine
from local.progress import Progress

BIG = Machine("Linux", "x86_64", 16, frozenset({"avx2"}), memory_gib=64, shared_memory_gib=4)


def plan(stack: str = "dev", **overrides: object) -> ServingPlan:
    return make_plan(load_stack(stack, overrides))


@pytest.fixture(autouse=True)
def roomy_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "free_gib", lambda path: 500.0)


def test_a_machine_that_can_has_no_obstacle() -> None:
    assert weights.problem(plan(), BIG) is None
    assert weights.problem(plan("prod"), replace(BIG, gpu_names=("H100",), gpu_memory_gib=80)) is None


@pytest.mark.parametrize(
    ("stack", "machine", "because"),
    [
        ("dev", replace(BIG, cpu_cores=4), "its 7.5 GiB of weights would answer too slowly on 4 CPU cores"),
        ("dev", replace(BIG, memory_gib=12), "its 7.5 GiB of weights need more than half of the 12 GiB of memory"),
        ("prod", BIG, "its weights are fp8, which needs a GPU"),
        ("prod", replace(BIG, gpu_names=("A10G",), gpu_memory_gib=24),
         "its 32.0 GiB of weights do not fit on A10G (24 GiB)"),
    ],
)  # fmt: skip
def test_obstacles(stack: str, machine: Machine, because: str) -> None:
    assert weights.problem(plan(stack), machine) == because


def test_a_full_disk_is_an_obstacle_unless_the_weights_are_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights, "free_gib", lambda path: 5.0)
    monkeypatch.setattr(folders, "MODELS", tmp_path)
    assert weights.problem(plan(), BIG) == "its 7.5 GiB of weights do not fit on the disk"
    folder = weights.folder_of(plan().model, "")
    folder.mkdir()
    assert not weights.is_here(plan().model, "")
    (folder / weights.COMPLETE).touch()
    assert weights.is_here(plan().model, "")
    assert weights.problem(plan(), BIG) is None


class Hub(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        model = self.path.split("/resolve/")[0].lstrip("/")
        status = {"a/open": 200, "a/gated": 403 if self.headers["Authorization"] else 401}.get(model, 404)
        self.send_response(status)
        self.end_headers()
        if status == 200:
            self.wfile.write(b"{}")

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def hub() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_what_the_hub_says(hub: str) -> None:
    assert weights.hub_problem("a/open", "", {"HF_ENDPOINT": hub}) is None
    told = "it is not on the Hub, or it is gated and HF_TOKEN is not set"
    assert weights.hub_problem("a/gated", "", {"HF_ENDPOINT": hub}) == told
    told = "it is gated and HF_TOKEN has no access to it"
    assert weights.hub_problem("a/gated", "", {"HF_ENDPOINT": hub, "HF_TOKEN": "t"}) == told
    assert weights.hub_problem("a/none", "", {"HF_ENDPOINT": hub}) == "it is not on the Hub"
    assert weights.hub_is_reachable({"HF_ENDPOINT": hub})


def test_no_network() -> None:
    nowhere = {"HF_ENDPOINT": f"http://127.0.0.1:{preflight.free_port()}"}
    assert weights.hub_problem("a/open", "", nowhere) == "the Hugging Face Hub cannot be reached"
    assert not weights.hub_is_reachable(nowhere)


def test_weights_are_fetched_as_the_engines_container_fetches_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("MODELS", "CACHE", "LOGS"):
        monkeypatch.setattr(folders, name, tmp_path / name)
    planned = plan()
    with fake_hub() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.address)
        content = bytes(range(256)) * 1024
        server.models[planned.model] = FakeModel({"config.json": b"{}", "model.safetensors": content}, gated=True)
        because = weights.fetch(planned, Path(sys.executable), Progress())
        assert because is not None
        assert "is gated, and no token is set" in because
        assert not weights.is_here(planned.model, "")
        server.models[planned.model].gated = False
        server.models[planned.model].cuts["model.safetensors"] = 100_000
        assert weights.fetch(planned, Path(sys.executable), Progress()) is None
        assert [one.start for one in server.served if one.name == "model.safetensors"] == [0, 100_000]
    assert weights.is_here(planned.model, "")
    assert (weights.folder_of(planned.model, "") / "model.safetensors").read_bytes() == content


def test_adapters_and_a_draft_model_are_there_before_vllm_starts_offline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("MODELS", "CACHE", "LOGS"):
        monkeypatch.setattr(folders, name, tmp_path / name)
    draft = '{"model": "acme/draft", "num_speculative_tokens": 2}'
    planned = plan(loraAdapters=["sql=acme/sql"])
    planned = replace(
        planned, engine=replace(planned.engine, args=(*planned.engine.args, "--speculative-config", draft))
    )
    on_gpu, on_cpu = kept_on(replace(BIG, gpu_names=("H100",)), planned), kept_on(BIG, planned)
    with fake_hub() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.address)
        model = FakeModel({"config.json": b"{}", "model.safetensors": b"w" * 2000})
        adapter = FakeModel({"adapter_config.json": b"{}", "adapter_model.safetensors": b"a" * 2000})
        server.models |= {planned.model: model, "acme/sql": adapter, "acme/draft": model}
        monkeypatch.setenv("HF_HOME", str(folders.CACHE / "huggingface"))
        download.main(planned.model, "main", str(tmp_path / "link"))
        assert not weights.others_are_here(planned, on_cpu)
        download.main(planned.model, "main", str(tmp_path / "link"), on_cpu)
        assert weights.others_are_here(planned, on_cpu)
        assert not weights.others_are_here(planned, on_gpu), "a CPU does not use the draft model"
        download.main(planned.model, "main", str(tmp_path / "link"), on_gpu)
        assert weights.others_are_here(planned, on_gpu)
        assert (tmp_path / "link" / "model.safetensors").is_file()
        told = weights.with_folders(planned, on_gpu)
        (name, _, folder), config = told[told.index("--lora-modules") + 1].partition("="), told[-1]
        assert (name, Path(folder).name) == ("sql", adapter.commit)
        assert Path(json.loads(config)["model"]).parts[-3] == "models--acme--draft"


def test_a_folder_is_used_where_it_is(tmp_path: Path) -> None:
    assert weights.is_here(str(tmp_path), "")
    assert weights.folder_of(str(tmp_path), "") == tmp_path
