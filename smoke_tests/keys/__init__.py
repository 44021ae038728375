"""Manages an endpoint's API keys: `python -m smoke_tests.keys --stack dev --add alice`, or `make key`; see docs/keys.md."""
