"""Validates arguments that are outputs, once their values are known, with the rules and the words of plain settings."""

from __future__ import annotations

from typing import Any

import pulumi
from pydantic import SecretStr, TypeAdapter, ValidationError
from pydantic.alias_generators import to_camel

from infra.inputs import is_output
from infra.settings import SECRET_FIELDS, Settings, keys_text
from infra.settings_problems import as_argument, describe


def validated(settings: Settings, title: str) -> Settings:
    """Settings whose outputs raise an error when they turn out to be a value that cannot be used.

    Secrets among them become text: ``api_keys`` the keys document.

    Args:
        settings: the settings.
        title: the component that the error names.
    """
    update: dict[str, Any] = {}
    for name in Settings.model_fields:
        value = getattr(settings, name)
        if is_output(value):
            update[name] = _checked(name, value, title)
        elif isinstance(value, tuple) and any(map(is_output, value)):
            update[name] = tuple(_checked_item(name, item, title) if is_output(item) else item for item in value)
    return settings.model_copy(update=update) if update else settings


def _checked(name: str, value: pulumi.Output[Any], title: str) -> pulumi.Output[Any]:
    found = value.apply(lambda known: _valid(name, known, title))
    return pulumi.Output.secret(found) if name in SECRET_FIELDS else found


def _checked_item(name: str, value: pulumi.Output[Any], title: str) -> pulumi.Output[Any]:
    return value.apply(lambda known: _valid(name, [known], title)[0])


def _valid(name: str, value: Any, title: str) -> Any:
    """The value as the setting's own rules take it.

    Raises:
        pulumi.RunError: they do not.
    """
    key = to_camel(name)
    if value in ("", [], {}, None):
        raise pulumi.RunError(
            f"{title}: {key}: found an empty value, but an argument that is an output must have one. Leave the argument out"
        )
    adapter: TypeAdapter[Any] = TypeAdapter(Settings.model_fields[name].rebuild_annotation())
    try:
        valid = adapter.validate_python(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        detail = {**first, "loc": (key, *first["loc"])}
        raise pulumi.RunError(f"{title}: {as_argument(describe(key, name, detail, value))}") from None
    if isinstance(valid, SecretStr):
        return valid.get_secret_value()
    if name in SECRET_FIELDS:
        return keys_text(valid)
    return list(valid) if isinstance(valid, tuple) else valid
