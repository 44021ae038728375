"""tests/ mirrors the source: each folder has its counterpart, and each module of tests its module or a reason."""

from pathlib import Path

from tests.test_repository import ROOT, tracked

OF_THE_REPOSITORY = ("help", "imports", "makefile", "mirror", "prose", "repository")
"""Modules directly in tests/: they test every folder."""
WITH_TARGETS_OF_THEIR_OWN = ("pulumi_engine", "clients_matrix")
"""Folders that test the whole product through another program: Pulumi's engine and the clients' SDKs."""
PREFIXES = {"engine": "engine_", "gateway": "gateway_", "aws": "aws_", "kubernetes": "kubernetes_", "teardown": "teardown_",
            "local": "local_", "policy": "policy_"}  # fmt: skip
SEVERAL = {
    "clients": {"chat_page": "the gateway's chat page in a browser", "clients_page": "docs/clients.md"},
    "image": {"compose": "compose.yaml"},
    "image/engine": {"engine_image": "the Dockerfile and what it copies"},
    "image/gateway": {
        "gateway_breakdown": "an engine whose core has died",
        "gateway_clients": "paths, keys and errors of other clients than OpenAI's",
        "gateway_costs": "parsing cost over body and request_head",
        "gateway_counting": "what metrics, demand and telemetry leave out",
        "gateway_deployed": "the gateway in the environment that the plan renders",
        "gateway_framing": "HTTP framing over request_head, body and edge",
        "gateway_fuzz": "mutated requests against the whole gateway",
        "gateway_holding": "hold and queue over admission, waking and fleet",
        "gateway_hostile": "malformed requests over edge, body and request_head",
        "gateway_image": "the Dockerfile and what it copies",
        "gateway_keep_alive": "SSE comments over comments, relay and exchange",
        "gateway_meanings": "one figure in CloudWatch, Prometheus and /info",
        "gateway_memory": "memory of the whole process under a flood",
        "gateway_nginx": "differences to nginx",
        "gateway_openai_sdk": "the OpenAI SDK against the whole gateway",
        "gateway_poison": "a request that kills its engine",
        "gateway_promises": "promises of docs/gateway.md about a failing engine",
        "gateway_reports": "bugs reported for other gateways",
        "gateway_simulation": "routing, fleet and admission over simulated time",
        "gateway_storm": "clients that disconnect and engines that fail, at random",
    },
    "image/monitoring": {
        "dashboard": "the Grafana and Prometheus files",
        "panels": "the dashboard's queries in a real Prometheus",
    },
    "infra": {
        "any_settings": "random settings through the whole program",
        "order": "dependencies between the resources of both targets",
        "program": "what the whole program registers and exports",
        "proxies": "a proxy from the settings to both containers",
        "refusals": "docs/refusals.md",
        "timeouts": "timeouts of every hop of both targets",
    },
    "infra/aws": {
        "aws_adopted": "adopted_weights and weights",
        "aws_matrix": "every configuration of policy/matrix.yaml",
        "aws_rules": "the rules that other tests apply to every program",
        "aws_safeguards": "time_to_live, budget and budget_watch",
        "aws_safety": "flow_logs, access_logs and firewall",
        "aws_seeing": "alarms, metrics and dashboard",
        "aws_updates": "names, aliases and order of every resource",
    },
    "infra/planning": {
        "engine_profile": "engine, speculation, quantization and engine_processes",
        "every_plan": "each model with each GPU",
        "measured_architectures": "architecture/ against measurements",
        "measured_memory": "memory against measurements",
        "odd_configs": "mutated config.json files through the whole plan",
        "planned_engine_arguments": "engine_arguments, and what it changes in a plan",
        "real_models": "config.json files of published models through the whole plan",
    },
    "local": {"local_make": "targets of the Makefile"},
    "smoke_tests": {
        "benchmark_accuracy": "measured times against a paced server",
        "benchmark_chunks": "timeline and figures",
        "benchmark_client": "stream_client and load",
        "benchmark_proxy": "the benchmark behind a proxy",
        "benchmark_run": "the run command from the first option to the report",
        "command_line": "options that all programs share",
        "conformance_page": "docs/conformance.md",
        "key_command": "the keys package through its command",
        "manners": "every program as a process",
        "sabotage": "the conformance tests against known faults",
    },
    "smoke_tests/aws": {"aws_checks": "every check of the folder against a faked account"},
}
"""Modules that test several modules together, by folder, and what they test."""


def sources(folder: str) -> set[str]:
    """The modules and packages that a folder of tests may name."""
    path = ROOT / folder
    found = {entry.stem for entry in path.iterdir() if entry.suffix == ".py" or entry.is_dir()}
    if folder == "smoke_tests":
        found |= {f"benchmark_{entry.stem}" for entry in (path / "benchmark").iterdir()}
    return found


def strays(files: list[Path]) -> tuple[list[str], set[tuple[str, str]]]:
    """Modules of tests without a counterpart, and the entries of SEVERAL that were needed."""
    found, used = [], set()
    for path in files:
        folder, name = str(path.parent), path.stem.removeprefix("test_")
        if folder == ".":
            if name not in OF_THE_REPOSITORY:
                found.append(str(path))
        elif folder.partition("/")[0] not in WITH_TARGETS_OF_THEIR_OWN:
            if not (ROOT / folder).is_dir():
                found.append(str(path))
            elif name in SEVERAL.get(folder, {}):
                used.add((folder, name))
            elif not {name, name.removeprefix(PREFIXES.get(path.parent.name, ""))} & sources(folder):
                found.append(str(path))
    return found, used


def test_tests_mirror_the_source() -> None:
    files = [path.relative_to(ROOT / "tests") for path in tracked("tests/**/test_*.py", "tests/test_*.py")]
    assert len(files) > 100
    found, used = strays(files)
    assert found == []
    assert used == {(folder, name) for folder, names in SEVERAL.items() for name in names}, "the list is out of date"


def test_a_module_without_a_counterpart_is_found() -> None:
    wrong = ["test_x.py", "nowhere/test_a.py", "infra/test_no_such_module.py", "image/gateway/test_gateway_x.py"]
    right = ["test_help.py", "infra/aws/test_aws_iam.py", "infra/test_settings.py", "local/test_local_weights.py"]
    assert strays([Path(name) for name in (*wrong, *right)])[0] == wrong
