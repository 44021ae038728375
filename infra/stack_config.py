"""Reading the settings inside a Pulumi program."""

from __future__ import annotations

import json
from typing import Any

import pulumi

from infra.errors import SettingsError
from infra.plain_secrets import AWS_SECRETS, in_plain_text
from infra.settings import PROJECT, Settings, list_keys, secret_keys
from infra.settings_problems import parse_settings


def read_settings() -> Settings:
    """The settings of the current stack.

    Raises:
        SettingsError: lists every unknown key, invalid value and conflict in this project's namespace, and every secret
            that is not encrypted.
    """
    config = pulumi.Config(PROJECT)
    values: dict[str, Any] = {}
    problems = [in_plain_text(name) for name in sorted(AWS_SECRETS & _all_keys()) if _is_plain(name)]
    for key in sorted(_keys_of_the_stack()):
        text = config.get(key)
        if text is None:
            continue
        if key in secret_keys() and text and _is_plain(f"{PROJECT}:{key}"):
            problems.append(in_plain_text(key))
            continue
        values[key] = _from_json(text) if key in list_keys() else _pairs(text) if key == "apiKeys" else text
    try:
        settings = parse_settings(values, pulumi.get_stack())
    except SettingsError as error:
        raise SettingsError(pulumi.get_stack(), problems + error.problems) from None
    if problems:
        raise SettingsError(pulumi.get_stack(), problems)
    return settings


def _from_json(text: str) -> Any:
    # Pulumi passes lists and objects as JSON, and strings unchanged.
    try:
        return json.loads(text)
    except ValueError:
        return text


def _pairs(text: str) -> str:
    """Join keys that were set individually (``pulumi config set --secret --path apiKeys.alice``) into one string."""
    keys = _from_json(text) if text.lstrip().startswith("{") else None
    return ",".join(f"{name}={key}" for name, key in keys.items()) if isinstance(keys, dict) else text


def _is_plain(name: str) -> bool:
    return not pulumi.runtime.is_config_secret(name)


def _all_keys() -> set[str]:
    return set(pulumi.runtime.config.CONFIG.get())


def _keys_of_the_stack() -> set[str]:
    """Every key of this project's namespace, so that a misspelt key is rejected instead of ignored."""
    prefix = f"{PROJECT}:"
    return {name[len(prefix) :] for name in _all_keys() if name.startswith(prefix)}
