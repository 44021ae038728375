"""Ends the Pulumi program with an error that the user can correct."""

from __future__ import annotations

import sys
from typing import NoReturn

import pulumi

SHOWN_TO_THE_USER = 32
"""The exit status that tells Pulumi's language host that the program has already reported its error."""


def refuse(message: str, component: pulumi.Resource | None = None) -> NoReturn:
    """End the program with exactly these lines; also works inside an ``apply``.

    After any other error, including ``pulumi.RunError``, the host would add its own message that the program failed. Another
    program's component raises that error, because exiting is not a component's decision.

    Args:
        message: the lines.
        component: the component that they are about; None: the program itself.

    Raises:
        pulumi.RunError: the component is of another program; the message names it.
    """
    if component is not None and not getattr(component, "is_whole_program", False):
        raise pulumi.RunError(f"{title_of(component)}: {message}")
    pulumi.log.error(message)
    sys.exit(SHOWN_TO_THE_USER)


def title_of(component: pulumi.Resource) -> str:
    """What messages call a component: the last word of its type, and its name."""
    return f"{component.pulumi_resource_type.rpartition(':')[2]} {component.pulumi_resource_name}"
