"""Programs that measure the product; their results are in docs/benchmarks."""
