"""Checks of a stack on AWS, with the caller's own credentials, for what the endpoint itself does not report.

They run with the other conformance tests when `--stack` names a stack on AWS, and are not collected otherwise.
"""
