"""Reads Pulumi.yaml and Pulumi.<stack>.yaml without Pulumi, for make plan and make local."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from infra.errors import SettingsError
from infra.plain_secrets import AWS_SECRETS, in_plain_text, is_plain
from infra.settings import PROJECT, Settings, secret_keys
from infra.settings_problems import parse_settings

ROOT = Path(__file__).resolve().parent.parent


def load_stack(stack: str, overrides: Mapping[str, Any] | None = None, root: Path = ROOT) -> Settings:
    """The settings of a stack, as ``pulumi up`` would read them.

    Encrypted values cannot be read without Pulumi and are treated as unset; no plan depends on a secret.

    Args:
        stack: name of the stack; ``Pulumi.<stack>.yaml`` must exist under ``root``.
        overrides: values that override the file's, keyed as in the file.
        root: folder that contains Pulumi.yaml.

    Raises:
        SettingsError: the stack does not exist, its file is not valid YAML, or its settings are invalid.
    """
    path = stack_file(stack, root)
    if not path.is_file():
        known = sorted(p.name[len("Pulumi.") : -len(".yaml")] for p in root.glob("Pulumi.*.yaml"))
        raise SettingsError(
            stack,
            [
                f"there is no {path.name}. Set one of: {', '.join(known) or 'none exists yet'}; or copy one to {path.name}"
            ],
        )
    try:
        content = yaml.safe_load(path.read_text()) or {}
    except yaml.YAMLError as error:
        place = getattr(error, "problem_mark", None)
        where = f" at line {place.line + 1}" if place else ""
        raise SettingsError(
            stack, [f"{path.name} is not valid YAML{where}: {getattr(error, 'problem', error)}"]
        ) from None
    except RecursionError:
        raise SettingsError(stack, [f"{path.name} is nested too deeply"]) from None
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise SettingsError(stack, [f"cannot read {path.name}: {reason}"]) from None
    config = content.get("config") or {} if isinstance(content, dict) else {}
    if not isinstance(config, dict):
        raise SettingsError(stack, [f"{path.name}: config is not a mapping of keys to values"])
    values: dict[str, Any] = {}
    in_the_clear = []
    for key, value in config.items():
        namespace, _, name = str(key).rpartition(":")
        if key in AWS_SECRETS or (namespace in ("", PROJECT) and name in secret_keys()):
            in_the_clear += [in_plain_text(name if name in secret_keys() else key)] if is_plain(value) else []
        elif namespace in ("", PROJECT) and not _is_encrypted(value):
            values[name] = value
    try:
        settings = parse_settings(values | dict(overrides or {}), stack)
    except SettingsError as error:
        raise SettingsError(stack, in_the_clear + error.problems) from None
    if in_the_clear:
        raise SettingsError(stack, in_the_clear)
    return settings


def stack_file(stack: str, root: Path = ROOT) -> Path:
    """The file of a stack. Pulumi names it after the stack without the `ORGANIZATION/` prefix."""
    return root / f"Pulumi.{stack.rpartition('/')[2]}.yaml"


def region_of(stack: str, root: Path = ROOT, default: str = "us-east-1") -> str:
    """The stack's AWS region, from ``aws:region``."""
    return aws_setting(stack, "region", root) or default


def aws_setting(stack: str, name: str, root: Path = ROOT) -> str:
    """The stack's setting of Pulumi's AWS provider, such as ``aws:profile``; empty if it is not set."""
    path = stack_file(stack, root)
    content = yaml.safe_load(path.read_text()) if path.is_file() else None
    config = (content or {}).get("config") or {}
    return str(config.get(f"aws:{name}", ""))


def parse_overrides(pairs: Iterable[str], stack: str = "stack") -> dict[str, Any]:
    """Parse ``key=value`` pairs, with YAML types for the values (``gpuCount=2`` is a number).

    Raises:
        SettingsError: a pair has no ``=``.
    """
    values: dict[str, Any] = {}
    for pair in pairs:
        key, separator, text = pair.partition("=")
        if not separator or not key:
            raise SettingsError(stack, [f"--set {pair}: found no key=value. Set for example --set gpu=h100"])
        try:
            values[key] = yaml.safe_load(text) if text else ""
        except yaml.YAMLError:
            values[key] = text
        except RecursionError:
            raise SettingsError(
                stack, [f"--set {key}: found a value that is nested too deeply. Set a plain value"]
            ) from None
    return values


def _is_encrypted(value: object) -> bool:
    return isinstance(value, dict) and set(value) == {"secure"}
