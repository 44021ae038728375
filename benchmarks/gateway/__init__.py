"""Measures the gateway: cost per request, overload, floods, malformed requests."""
