"""Measures an endpoint's speed and its cost per million tokens: `python -m smoke_tests.benchmark` (docs/benchmark.md).

`run` applies load by concurrency (closed loop) or by rate (open loop), and writes a record. Its client is lightweight, so
that the client does not become the bottleneck. `compare` compares two records. `report` renders records as one HTML page.
Figures have vLLM bench's names and formulas, so that the results of both can be compared.
"""
