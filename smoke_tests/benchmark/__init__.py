"""How fast an endpoint is and what a million tokens cost: `python -m smoke_tests.benchmark`.

A closed loop of streamed requests by a client of our own that is small enough not to be what is measured.
Figures carry vLLM bench's names and its formulas, so that they can be laid side by side.
"""
