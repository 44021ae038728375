"""Resources that both containers get from their host."""

from typing import Any

from tests.infra.program import Program, run_program


def container(program: Program, name: str) -> dict[str, Any]:
    (found,) = [d.container() for d in program.all("TaskDefinition") if d.container()["name"] == name]
    return found


def test_the_engine_may_pin_memory_and_open_many_files() -> None:
    limits = {limit["name"]: limit for limit in container(run_program("dev"), "engine")["ulimits"]}
    assert limits["memlock"] == {"name": "memlock", "softLimit": -1, "hardLimit": -1}
    assert limits["nofile"]["softLimit"] >= 65536
    assert limits["nofile"]["hardLimit"] >= limits["nofile"]["softLimit"]


def test_logs_never_stop_a_container() -> None:
    for name in ("engine", "gateway"):
        logs = container(run_program("dev"), name)["logConfiguration"]
        assert logs["options"]["mode"] == "non-blocking", name


def test_both_reap_what_their_processes_leave() -> None:
    for name in ("engine", "gateway"):
        assert container(run_program("dev"), name)["linuxParameters"]["initProcessEnabled"] is True
