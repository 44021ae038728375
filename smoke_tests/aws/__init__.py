"""Checks of a stack on AWS, with the caller's own credentials: what the endpoint itself cannot tell.

They run with the other conformance tests when `--stack` names a stack on AWS, and are not collected otherwise.
"""
