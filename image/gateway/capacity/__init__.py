"""Scalers, one per platform: they start the first replica if none is running."""
