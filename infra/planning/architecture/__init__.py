"""A model's architecture, normalized from any config.json: tensors, caches, context length, quantization."""
