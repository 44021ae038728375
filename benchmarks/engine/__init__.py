"""Measures vLLM: starts, memory and throughput on a GPU, and the safety of its caches between starts."""
