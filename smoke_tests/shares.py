"""Fractions on the command line and in settings: 0.1 for 10%, and 10 is neither 10 nor 1,000%."""

import argparse
import math

LARGEST = 10.0
"""1000%, which is as far as the settings of a stack go."""


def share(value: object) -> float:
    """Return a fraction: a number from 0 to 1, or a percentage from 0% to 1000%, such as 10%.

    Raises ValueError, which says what to set.
    """
    text = str(value).strip()
    percent = text.endswith("%")
    try:
        number = float(text.removesuffix("%")) / (100 if percent else 1)
    except ValueError:
        number = math.nan
    if not 0 <= number <= (LARGEST if percent else 1):
        meant = f" ({text}% is {number / 100:g})" if 1 < number <= 100 and not percent else ""
        raise ValueError(f"{text!r} must be a fraction, for example 0.1 for 10%{meant}")
    return number


def share_option(text: str) -> float:
    """The same as the type of an option."""
    try:
        return share(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
