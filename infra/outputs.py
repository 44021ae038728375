"""The order of a stack's outputs: few for people first, everything that programs read in one nested output after them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pulumi

DETAILS = "stackDetails"
"""The nested output. Pulumi sorts outputs by name, and shows at most 150 characters of a text: this one comes last."""
FOR_PEOPLE = ("endpoint", "getApiKey", "howToOpen", "model", "openaiBaseUrl")
"""The outputs for people, in the order in which Pulumi shows them."""


def for_people_first(outputs: Mapping[str, pulumi.Input[Any]]) -> dict[str, pulumi.Input[Any]]:
    """The outputs as they are exported; `smoke_tests.stack.flat` is the way back."""
    first: dict[str, pulumi.Input[Any]] = {name: outputs[name] for name in FOR_PEOPLE if name in outputs}
    rest = {name: value for name, value in outputs.items() if name not in first}
    return {**first, DETAILS: rest}


def key_command(stack: str) -> str:
    """The command that prints an API key, run in the project's folder. It is short, whatever the key is kept in."""
    return f"make api-key STACK={stack}"
