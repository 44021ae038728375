"""How fast an endpoint is and what a million tokens cost: `python -m smoke_tests.benchmark` (docs/benchmark.md).

`run` loads by concurrency (closed loop) or by rate (open loop) with a client of our own that is small enough not to be what
is measured, and writes a record; `compare` holds two records against each other; `report` makes one HTML page of them.
Figures carry vLLM bench's names and its formulas, so that they can be laid side by side.
"""
