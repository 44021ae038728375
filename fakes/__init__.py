"""Fake counterparts on loopback, for tests and benchmarks: an engine behind the gateway, and a Hugging Face Hub."""
