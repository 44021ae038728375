"""Every configuration lives a whole life: up, up again unchanged, destroyed to nothing."""

from __future__ import annotations

import pytest

from policy.matrix import load_matrix
from tests.pulumi_engine.conftest import whole_but
from tests.pulumi_engine.scene import Scene

MATRIX = load_matrix()
# The four that differ most from dev and prod, whose lives test_engine_readme.py holds; make test-pulumi-all lives all.
OFTEN = ("existing-network-public-without-nat", "ttl-and-budget", "waf-and-every-log", "own-kms-key")


@pytest.mark.parametrize("name", whole_but(MATRIX, *OFTEN))
def test_up_again_unchanged_and_destroyed_to_nothing(scene: Scene, name: str) -> None:
    entry = MATRIX[name]
    scene.init(entry.stack_name, {**entry.settings, "protect": False}, of=entry.stack)
    first = scene.up()
    assert len(first.steps_of("create")) > 60
    assert scene.up().unchanged
    scene.destroy()
    assert scene.gone
