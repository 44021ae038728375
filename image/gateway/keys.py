"""API keys: several, named, compared without telling how near a guess was, replaced without a restart."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import re
from typing import TYPE_CHECKING, Any, Protocol

from image.gateway.limits import Key, Limits
from image.gateway.settings import FileKeys, InlineKeys, KeysSetting, NoKeys, SecretsManagerKeys
from image.gateway.telling import Telling

if TYPE_CHECKING:
    from mypy_boto3_secretsmanager import SecretsManagerClient

_NAMED = re.compile(r"([A-Za-z0-9_.-]{1,64})=(.*[^=].*)")
_EVERYBODY = Key("")


class KeysError(Exception):
    """Keys cannot be had; the message names the source and never holds a key."""


class _Pairs(list[tuple[str, Any]]):
    """A JSON object as its pairs: a name may stand twice, and a list is no object."""


def parse_document(document: str) -> dict[str, Key]:
    """Each key's text -> whose it is. A document is a JSON object {name: key}, or lines of `name=key` or a bare key
    ("default"). In JSON a value may be {"key": key, "limits": {...}} too; see `limits.Limits`.

    A name may stand more than once, so that the old key is good until clients have the new one. What is left of a
    bare key's last "=" is never its name: base64 ends in "=". Raises KeysError.
    """
    pairs: list[tuple[str, Any]]
    if document.lstrip().startswith("{"):
        try:
            pairs = json.loads(document, object_pairs_hook=_Pairs)
        except ValueError:
            # Python's message would quote nothing, but its cause holds the document: `from None`.
            raise KeysError("the keys document begins as JSON but is not; set {name: key} or lines") from None
    else:
        lines = (line.strip() for line in document.splitlines())
        pairs = []
        for line in lines:
            if line and not line.startswith("#"):
                named = _NAMED.fullmatch(line)
                pairs.append((named[1], named[2].strip()) if named else ("default", line))
    keys: dict[str, Key] = {}
    for name, value in pairs:
        text, limits = _with_limits(name, value) if isinstance(value, _Pairs) else (value, None)
        if not isinstance(text, str) or not re.fullmatch(r"[\x21-\x7e]{1,512}", text):
            raise KeysError(f"the key named {name!r} is not 1 to 512 printable ASCII characters without spaces")
        if keys.setdefault(text, Key(name, limits)).name != name:
            raise KeysError(f"{name!r} and {keys[text].name!r} are the same key; give each name its own")
    if not keys:
        raise KeysError("the keys document holds no key; set `none` to let everybody in")
    return keys


def _with_limits(name: str, pairs: _Pairs) -> tuple[Any, Limits]:
    value = dict(pairs)
    if value.keys() - {"key", "limits"} or not isinstance(value.get("limits", _Pairs()), _Pairs):
        raise KeysError(f'{name!r} is not of the form {{"key": ..., "limits": {{"concurrency": ...}}}}')
    try:
        return value.get("key"), Limits.parse(dict(value.get("limits", ())))
    except ValueError as error:
        raise KeysError(f"the limits of {name!r}: {error}") from None


class KeyRing:
    """The keys that are good now.

    Only digests are kept, under a secret of this process: an attacker cannot choose a digest, so the time a look-up
    takes tells nothing about a key.
    """

    def __init__(self) -> None:
        self._secret = os.urandom(32)
        self._keys: dict[bytes, Key] | None = {}

    @property
    def names(self) -> int:
        """How many names share this gateway; 1 when no key is asked for."""
        return 1 if self._keys is None else len({key.name for key in self._keys.values()})

    def allow_everybody(self) -> None:
        """From now on no key is asked for."""
        self._keys = None

    def replace(self, keys: dict[str, Key]) -> None:
        """From now on these keys are good, and no others."""
        self._keys = {self._digest(text.encode()): key for text, key in keys.items()}

    def find(self, authorization: bytes | None) -> Key | None:
        """Whose key is in an Authorization header; nameless when no key is asked for; None: not let in."""
        if self._keys is None:
            return _EVERYBODY
        if authorization is None or authorization[:7].lower() != b"bearer ":
            return None
        return self._keys.get(self._digest(authorization[7:].strip()))

    def _digest(self, key: bytes) -> bytes:
        return hashlib.blake2b(key, key=self._secret, digest_size=32).digest()


class KeySource(Protocol):
    """Where a keys document is."""

    name: str
    reload_seconds: float

    async def read(self) -> str | None:
        """The document, or None when it has not changed since the last call; raises KeysError."""


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
            # Kubernetes swaps a symbolic link, an editor renames: the inode tells what the time may not.
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
        from image.gateway import aws  # here, so that only a gateway that needs boto3 pays its memory

        try:
            if self._client is None:
                self._client = aws.session().client("secretsmanager", config=aws.CONFIG)
            answer = self._client.get_secret_value(SecretId=self._secret_id)
        except aws.ERRORS as error:
            raise KeysError(f"the keys secret {self._secret_id}: {aws.describe(error)}") from None
        if "SecretString" not in answer:
            raise KeysError(f"the keys secret {self._secret_id} holds no text")
        if answer["VersionId"] == self._seen:
            return None
        self._seen = answer["VersionId"]
        return answer["SecretString"]


def source_of(setting: KeysSetting) -> KeySource | None:
    """The source a setting names; None when no key is asked for."""
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
    """Fill the ring for the first time; raises KeysError."""
    if source is None:
        ring.allow_everybody()
    else:
        ring.replace(parse_document(await source.read() or ""))


async def keep_fresh(ring: KeyRing, source: KeySource, seconds: float, telling: Telling) -> None:
    """Read the source every so often. What cannot be read changes nothing: half a written file must lock nobody out."""
    failed = False
    while True:
        await asyncio.sleep(seconds)
        try:
            document = await source.read()
            if document is not None:
                ring.replace(parse_document(document))
                telling.event("keys_replaced", source=source.name)
            failed = False
        except KeysError as error:
            telling.metrics.key_reload_failures.inc()
            if not failed:
                telling.event("keys_not_replaced", level="error", error=str(error))
            failed = True
