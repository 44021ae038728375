"""Measures the benchmark client of smoke_tests against engines with known timings."""
