"""The one error that ends a command of this package with a line instead of a traceback."""


class TargetError(Exception):
    """The endpoint cannot be found, reached or entered; the message is for the person at the terminal."""
