"""What the scenes add to the engine kit's providers."""
