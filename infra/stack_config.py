"""Reading the settings inside a Pulumi program."""

from __future__ import annotations

import json
from typing import Any

import pulumi

from infra.settings import PROJECT, Settings, config_keys
from infra.settings_problems import SettingsError, parse_settings


def read_settings() -> Settings:
    """The settings of the stack that runs.

    Raises:
        SettingsError: naming every unknown key, bad value and contradiction of this project's namespace.
    """
    config = pulumi.Config(PROJECT)
    declared = config_keys()
    values: dict[str, Any] = {}
    problems: list[str] = []
    for key in _keys_of_the_stack() | set(declared):
        text = config.get(key)
        if text is None:
            continue
        values[key] = text
        if declared.get(key, {}).get("type") == "array":
            try:
                values[key] = json.loads(text)
            except ValueError:
                problems.append(
                    f"{key}: found text that is no list. Set it with pulumi config set --path '{key}[0]' VALUE"
                )
                del values[key]
    try:
        settings = parse_settings(values, pulumi.get_stack())
    except SettingsError as error:
        raise SettingsError(pulumi.get_stack(), problems + error.problems) from None
    if problems:
        raise SettingsError(pulumi.get_stack(), problems)
    return settings


def _keys_of_the_stack() -> set[str]:
    """Every key of this project's namespace, so that a misspelt one is refused instead of ignored."""
    prefix = f"{PROJECT}:"
    return {name[len(prefix) :] for name in pulumi.runtime.config.CONFIG.get() if name.startswith(prefix)}
