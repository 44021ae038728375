"""Problems are reported before anything is installed, one line each, with what to do."""

import socket
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic.alias_generators import to_camel

from infra.settings import Settings
from local import preflight
from local.machine import Machine

ROOT = Path(__file__).parents[2]
GOOD = Machine("Linux", "x86_64", 2, frozenset({"avx2"}), memory_gib=8, shared_memory_gib=4)


def test_a_good_machine_has_no_problem() -> None:
    assert preflight.problems(GOOD, preflight.free_port(), free_gib=10, installed=False) == []


@pytest.mark.parametrize(
    ("machine", "free_gib", "words"),
    [
        (replace(GOOD, system="Darwin"), 10, "vLLM has no wheel for Darwin. Run this on Linux"),
        (replace(GOOD, architecture="ppc64le"), 10, "vLLM has no wheel for ppc64le"),
        (replace(GOOD, cpu_flags=frozenset()), 10, "no AVX2"),
        (replace(GOOD, memory_gib=2.0), 10, "2.0 GiB of memory are free and 3.5 are needed"),
        (replace(GOOD, shared_memory_gib=0.06), 10, "Start the container with --shm-size=1g"),
        (GOOD, 2.5, "2.5 GiB of disk are free here and 4 are needed"),
        (
            replace(GOOD, gpu_names=("H200",), gpu_memory_gib=140),
            10,
            "10.0 GiB of disk are free here and 18 are needed",
        ),
    ],
)
def test_each_problem_is_one_line_that_says_what_to_do(machine: Machine, free_gib: float, words: str) -> None:
    (problem,) = preflight.problems(machine, preflight.free_port(), free_gib, installed=False)
    assert words in problem
    assert "\n" not in problem


def test_all_problems_come_at_once() -> None:
    assert len(preflight.problems(replace(GOOD, memory_gib=1), preflight.free_port(), 0.1, installed=True)) == 2


def test_a_busy_port_names_another() -> None:
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        port = busy.getsockname()[1]
        (problem,) = preflight.problems(GOOD, port, 10, installed=True)
    assert (
        problem == f"port {port} is busy (Address already in use). Set another, for example make local PORT={port + 1}"
    )


def test_a_port_that_does_not_exist() -> None:
    assert preflight.port_problem(70000) == "port 70000 is out of range. Set PORT between 1 and 65535"


@pytest.mark.parametrize("port", [0, -1])
def test_a_port_below_the_range(port: int) -> None:
    assert preflight.port_problem(port) == f"port {port} is out of range. Set PORT between 1 and 65535"


def test_a_mistyped_stack_and_setting_are_found_before_the_installation() -> None:
    assert preflight.stack_problems("org/dev", ["maxModelLen=4096", "apiKeys=x", "engineArgs=[--a, b=c]"], ROOT) == []
    stack, form, key, far = preflight.stack_problems("prdo", ["maxModelLen", "maxModelLn=4", "zzz=1"], ROOT)
    assert stack.startswith("there is no Pulumi.prdo.yaml. Set STACK to one of: dev, prod")
    assert form == "SET: found 'maxModelLen', which is not key=value. Set for example SET='gpu=h100'"
    assert key == "SET: maxModelLn is an unknown setting; did you mean maxModelLen?"
    assert far == "SET: zzz is an unknown setting; Pulumi.yaml lists the settings"


def test_the_keys_are_those_of_the_settings() -> None:
    assert sorted(preflight.setting_keys(ROOT)) == sorted(map(to_camel, Settings.model_fields))


def test_no_free_port_is_given_twice() -> None:
    assert len({preflight.free_port() for _ in range(1000)}) == 1000


def test_the_metrics_have_one_port_unless_it_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "METRICS_PORT", preflight.free_port())
    assert preflight.metrics_port(8000) == preflight.METRICS_PORT
    assert preflight.metrics_port(preflight.METRICS_PORT) != preflight.METRICS_PORT
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", preflight.METRICS_PORT))
        busy.listen()
        assert preflight.metrics_port(8000) != preflight.METRICS_PORT
