"""Verifies that nothing of a stack is left in AWS, and deletes leftovers.

`python -m smoke_tests.teardown --stack dev` sweeps every service that a stack uses, by tag and by name, with the
caller's own AWS credentials. It needs neither Pulumi nor the stack's state.
"""
