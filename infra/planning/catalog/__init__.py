"""Data: GPUs, instance types, models, prices."""
