"""The error that ends a command of this package with one line instead of a traceback."""


class TargetError(Exception):
    """The endpoint cannot be found or reached, or rejects the key; the message is shown to the user."""
