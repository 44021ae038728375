"""The gateway's memory under floods; `python -m benchmarks.gateway.hostile` runs the same for a minute."""

from __future__ import annotations

import sys

import pytest

from benchmarks.gateway import hostile


@pytest.mark.skipif(sys.platform != "linux", reason="reads the resident memory in /proc")
async def test_no_flood_takes_the_gateways_memory() -> None:
    result = await hostile.run(seconds=4, connections=1)
    assert result["memory_growth_mib"] < 20, result
    assert sum(result["sent_mib"].values()) > 50, "that was no flood"
