"""The configurations of matrix.yaml."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from infra.settings import PROJECT, Settings
from infra.settings_problems import parse_settings

ROOT = Path(__file__).resolve().parent.parent
MATRIX = Path(__file__).with_name("matrix.yaml")


@dataclass(frozen=True)
class Entry:
    """One configuration.

    Attributes:
        name: its name.
        stack: the stack file that it is based on.
        settings: its overrides, keyed as in a stack file.
        stack_name: the Pulumi stack's name; the stack file's unless the matrix overrides it.
        apply: whether an AWS emulator supports it; otherwise it is only planned.
    """

    name: str
    stack: str
    settings: dict[str, Any]
    stack_name: str
    apply: bool

    def values(self) -> dict[str, Any]:
        """All values of the configuration with their namespaces, including those of the stack file."""
        own = {f"{PROJECT}:{key}": value for key, value in self.settings.items()}
        return {**stack_values(self.stack), **own}

    def parsed(self) -> Settings:
        """The configuration's settings, typed and validated.

        Raises:
            SettingsError: the configuration is invalid.
        """
        prefix = f"{PROJECT}:"
        ours = {k.removeprefix(prefix): v for k, v in self.values().items() if k.startswith(prefix)}
        return parse_settings(ours, self.stack_name)


def stack_values(stack: str) -> dict[str, Any]:
    """The values of a stack file, with their namespaces."""
    return dict(yaml.safe_load((ROOT / f"Pulumi.{stack}.yaml").read_text())["config"])


def load_matrix() -> dict[str, Entry]:
    """The configurations by name, in the order of the file."""
    found = yaml.safe_load(MATRIX.read_text())
    return {
        name: Entry(
            name, entry["stack"], entry["settings"], entry.get("stack_name", entry["stack"]), entry.get("apply", True)
        )
        for name, entry in found.items()
    }
