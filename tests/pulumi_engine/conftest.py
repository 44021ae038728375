"""Each test gets a stack of its own; all are skipped where the engine is not at hand."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
from _pytest.mark import ParameterSet

from tests.pulumi_engine.scene import ENGINE, Scene

STARTS_IT = {"scene", "deployed", "foreign", "foreign_kubernetes", "consumer", "package"}
Deployed = Callable[[Mapping[str, Any]], Scene]


def whole_but(names: Iterable[str], *often: str) -> list[ParameterSet]:
    """Names as parameters: those for every run, and the others for ``make test-pulumi-all`` alone."""
    names = list(names)
    assert set(often) <= set(names)
    return [pytest.param(name, marks=[] if name in often else pytest.mark.whole_matrix, id=name) for name in names]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.timeout(300))
            if not ENGINE.is_file() and STARTS_IT & set(item.fixturenames):  # type: ignore[attr-defined]
                item.add_marker(pytest.mark.skip(reason=f"needs Pulumi's engine with stand-in providers at {ENGINE}"))


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    """A project folder with an empty state."""
    return Scene(tmp_path)


@pytest.fixture(scope="session")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> Deployed:
    """Stacks ``dev`` with these settings that are up, each made once: to be copied (``Scene(like=...)``), not changed."""
    known: dict[str, Scene] = {}

    def find(settings: Mapping[str, Any]) -> Scene:
        key = repr(sorted(settings.items()))
        if key not in known:
            known[key] = Scene(tmp_path_factory.mktemp("deployed") / "scene").init("dev")
            known[key].write(settings)
            known[key].up()
        return known[key]

    return find


@pytest.fixture
def dev(deployed: Deployed, tmp_path: Path) -> Scene:
    """Stack dev as it is in the repository, up: a copy for this test."""
    return Scene(tmp_path / "scene", like=deployed({}))
