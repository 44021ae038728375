"""Detects secrets in plain text and rejects them by key, before any message could print their values."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

# Values that are certainly secrets: the kind of secret, its pattern, and the setting that encrypts it.
FORMS = (
    ("a Hugging Face token", r"hf_[A-Za-z0-9]{16,}", "hfToken"),
    ("an API key", r"sk-(?:[a-z]+-)?[A-Za-z0-9]{20,}", "apiKeys"),
    ("an AWS access key", r"(?:AKIA|ASIA)[A-Z0-9]{16}", ""),
    ("a GitHub token", r"gh[pousr]_[A-Za-z0-9]{30,}", ""),
    ("a private key", r"-----BEGIN [A-Z ]*PRIVATE KEY", ""),
)
# Names of variables and options whose values are always secret.
HUB_TOKENS = r"(?:HF|HUGGING_?FACE)(?:_HUB|_API)?_TOKEN"
NAMES = (
    (HUB_TOKENS, "hfToken"),
    (r"VLLM_API_KEY", "apiKeys"),
    (r"(?:.*_)?(?:TOKEN|SECRET|PASSWORD|PASSWD|API_KEY|ACCESS_KEY|PRIVATE_KEY|CREDENTIALS)", ""),
)
OPTIONS = {"--api-key": "apiKeys", "--hf-token": "hfToken"}
# Secret settings of Pulumi's AWS provider.
AWS_SECRETS = frozenset({"aws:secretKey", "aws:token"})


def in_plain_text(key: str) -> str:
    """The problem line for a secret setting that is not encrypted."""
    return (
        f"{key}: found in plain text. Rotate it, because it was stored in a file, and set the new value: "
        f"pulumi config set --secret {key}"
    )


def is_plain(value: object) -> bool:
    """Whether the value of a secret key in a stack file is unencrypted or only partly encrypted."""
    if isinstance(value, Mapping):
        return set(value) != {"secure"} and any(map(is_plain, value.values()))
    if isinstance(value, list):
        return any(map(is_plain, value))
    return value not in (None, "")


def misplaced(key: str, value: Any) -> str:
    """The problem line for a secret in a setting that is not secret, or an empty string. Never contains the value."""
    items = [str(item) for item in value] if isinstance(value, list | tuple) else [str(value)]
    for number, item in enumerate(items):
        for what, form, setting in FORMS:
            if re.search(rf"(?<![A-Za-z0-9_-]){form}", item):
                return _refusal(key, f"found what looks like {what}", setting)
        name, sign, text = item.partition("=")
        if key == "engineArgs":
            first, *rest = name.split(maxsplit=1) or [""]  # two words in one item
            name, sign, text = first.replace("_", "-"), sign or " " * bool(rest), text or "".join(rest)
        if key == "engineEnvironment" and text:
            for pattern, setting in NAMES:
                if re.fullmatch(pattern, name, re.IGNORECASE):
                    return _refusal(key, f"found {name}, a secret by its name", setting)
        following = text if sign else next(iter(items[number + 1 :]), "")
        if key == "engineArgs" and name in OPTIONS and following and (sign or not following.startswith("--")):
            return _refusal(key, f"found {name} with its value", OPTIONS[name])
    return ""


def _refusal(key: str, found: str, setting: str) -> str:
    instead = (
        f"pulumi config set --secret {setting}" if setting else "a role or your own secret instead; remove it here"
    )
    return f"{key}: {found}, in plain text. Rotate it, because it was stored in a file, and set {instead}"
