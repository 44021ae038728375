"""Each test gets a stack of its own; all are skipped where the engine is not at hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.pulumi_engine.scene import ENGINE, Scene


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.timeout(300))
            if not ENGINE.is_file():
                item.add_marker(pytest.mark.skip(reason=f"needs Pulumi's engine with stand-in providers at {ENGINE}"))


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    """A project folder with an empty state."""
    return Scene(tmp_path)
