"""Whole lives of a stack on Pulumi's own CLI and engine, with stand-in providers (``make test-pulumi``)."""
