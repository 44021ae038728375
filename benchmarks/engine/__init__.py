"""Measures vLLM: starts, memory and throughput on a GPU, and what may be kept between starts."""
