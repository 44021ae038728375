"""What is run against a deployed endpoint: conformance tests and a benchmark.

`python -m smoke_tests --stack dev` says whether the endpoint is right;
`python -m smoke_tests.benchmark --stack dev` says how fast it is and what a million tokens cost.
Both take `--endpoint URL` instead of a stack, so they work against any OpenAI-compatible server.
"""

from infra.interrupts import quiet_while_importing

quiet_while_importing()
