"""API keys: several, named, compared without timing leaks, reloaded without a restart."""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Protocol

from image.gateway import errors
from image.gateway.backends import FileKeys, InlineKeys, KeysSetting, NoKeys, SecretsManagerKeys
from image.gateway.headers import KEY_HEADERS
from image.gateway.keys_document import KeysError, rfc_3339
from image.gateway.keys_document import parse as parse_document
from image.gateway.limits import Key
from image.gateway.telemetry import Telemetry

if TYPE_CHECKING:
    from mypy_boto3_secretsmanager import SecretsManagerClient

__all__ = ["KeyRing", "KeySource", "KeysError", "keep_fresh", "load", "parse_document", "presented", "source_of"]

_EVERYBODY = Key("")


# One per header that can contain a key, so that a request cannot try many keys at once.
_MOST_PRESENTED = len(KEY_HEADERS)


def presented(headers: Iterable[tuple[bytes, bytes]]) -> list[bytes]:
    """The distinct keys in a request's headers: `Authorization: Bearer`, `x-api-key` and `api-key`."""
    found: list[bytes] = []
    for name, value in headers:
        if name in KEY_HEADERS:
            if name == b"authorization":
                if value[:7].lower() != b"bearer ":
                    continue  # another scheme is meant for a proxy
                value = value[7:]
            value = value.strip()
            if value and value not in found:
                found.append(value)
    return found


class KeyRing:
    """The keys that are valid now.

    Only digests are stored, keyed with a secret of this process: an attacker cannot choose a digest, so the time of a
    lookup reveals nothing about a key.
    """

    def __init__(self) -> None:
        self._secret = os.urandom(32)
        self._keys: dict[bytes, Key] | None = {}
        self._priorities: dict[str, int] = {}

    @property
    def names(self) -> int:
        """Number of key names that share this gateway; 1 if no key is required."""
        return 1 if self._keys is None else len({key.name for key in self._keys.values()})

    def priority(self, name: str) -> int:
        """The priority of a name: the highest of its keys."""
        return self._priorities.get(name, 0)

    def allow_everybody(self) -> None:
        """Require no key from now on."""
        self._keys = None

    def replace(self, keys: dict[str, Key]) -> None:
        """Replace all valid keys."""
        self._keys = {self._digest(text.encode()): key for text, key in keys.items()}
        self._priorities = {}
        for key in keys.values():
            self._priorities[key.name] = max(key.priority, self._priorities.get(key.name, key.priority))

    def authenticate(self, headers: Iterable[tuple[bytes, bytes]]) -> Key:
        """The key of a request, without a name if no key is required; raises the 401.

        Claude Code sends the variables ANTHROPIC_AUTH_TOKEN and ANTHROPIC_API_KEY in two headers, and the second often
        belongs to another service. So one valid key is enough; only valid keys of different names are a conflict.
        """
        if self._keys is None:
            return _EVERYBODY
        texts = presented(headers)
        if len(texts) > _MOST_PRESENTED:
            raise errors.conflicting_keys()
        known = [key for text in texts if (key := self._keys.get(self._digest(text))) is not None]
        if not known:
            raise errors.bad_key()
        now = time.time()
        valid = [key for key in known if key.expires is None or key.expires > now]
        if not valid:
            raise errors.expired_key(rfc_3339(known[0].expires or now))
        if any(key.name != valid[0].name for key in valid):
            raise errors.conflicting_keys()
        return valid[0]

    def _digest(self, key: bytes) -> bytes:
        return hashlib.blake2b(key, key=self._secret, digest_size=32).digest()


class KeySource(Protocol):
    """The source of a keys document."""

    name: str
    reload_seconds: float

    async def read(self) -> str | None:
        """The document, or None if it has not changed since the last call; raises KeysError."""


class _Inline:
    name = "environment"
    reload_seconds = float("inf")

    def __init__(self, setting: InlineKeys) -> None:
        self._document = setting.document

    async def read(self) -> str:
        return self._document


class _File:
    name = "file"
    reload_seconds = 2.0

    def __init__(self, setting: FileKeys) -> None:
        self._path = setting.path
        self._seen: tuple[int, int, int] | None = None

    async def read(self) -> str | None:
        return await asyncio.to_thread(self._read)

    def _read(self) -> str | None:
        try:
            # Kubernetes swaps a symbolic link and editors rename: the inode changes even if the time does not.
            stat = self._path.stat()
            seen = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
            if seen == self._seen:
                return None
            document = self._path.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            what = error.strerror if isinstance(error, OSError) else "is not UTF-8"
            raise KeysError(f"the keys file {self._path}: {what}") from None
        self._seen = seen
        return document


class _SecretsManager:
    name = "secretsmanager"
    reload_seconds = 60.0

    def __init__(self, setting: SecretsManagerKeys) -> None:
        self._secret_id = setting.secret_id
        self._client: SecretsManagerClient | None = None
        self._seen: str | None = None

    async def read(self) -> str | None:
        return await asyncio.to_thread(self._read)

    def _read(self) -> str | None:
        from image.gateway import aws  # imported here: only a gateway with Secrets Manager needs boto3's memory

        try:
            if self._client is None:
                self._client = aws.session().client("secretsmanager", config=aws.CONFIG)
            answer = self._client.get_secret_value(SecretId=self._secret_id, VersionStage="AWSCURRENT")
        except aws.ERRORS as error:
            raise KeysError(f"the keys secret {self._secret_id}: {aws.describe(error)}") from None
        if "SecretString" not in answer:
            raise KeysError(f"the keys secret {self._secret_id} has no text value")
        if answer["VersionId"] == self._seen:
            return None
        self._seen = answer["VersionId"]
        return answer["SecretString"]


def source_of(setting: KeysSetting) -> KeySource | None:
    """The source for a setting; None if no key is required."""
    match setting:
        case NoKeys():
            return None
        case InlineKeys():
            return _Inline(setting)
        case FileKeys():
            return _File(setting)
        case SecretsManagerKeys():
            return _SecretsManager(setting)


async def load(ring: KeyRing, source: KeySource | None) -> None:
    """Load the keys at startup; raises KeysError."""
    if source is None:
        ring.allow_everybody()
    else:
        ring.replace(parse_document(await source.read() or ""))


async def keep_fresh(ring: KeyRing, source: KeySource, seconds: float, telemetry: Telemetry) -> None:
    """Reload the keys periodically. If a reload fails, the old keys stay valid: a half-written file must not lock out
    clients.
    """
    failed = False
    while True:
        await asyncio.sleep(seconds)
        try:
            document = await source.read()
            if document is not None:
                ring.replace(parse_document(document))
                telemetry.event("keys_replaced", source=source.name)
            failed = False
        except KeysError as error:
            telemetry.metrics.key_reload_failures.inc()
            if not failed:
                telemetry.event("keys_not_replaced", level="error", error=str(error))
            failed = True
