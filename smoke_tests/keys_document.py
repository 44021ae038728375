"""The document that an endpoint takes its keys from, where the tests may add a key to it and take it out again."""

import json
from pathlib import Path
from typing import Protocol

from infra.output_file import replace
from smoke_tests.errors import TargetError


class KeysDocument(Protocol):
    """A keys document and how long a gateway may take to notice that it changed."""

    notice_seconds: float

    def read(self) -> str:
        """The document; raises TargetError."""

    def write(self, document: str) -> None:
        """Put another one in its place; raises TargetError."""


class KeysFile:
    """A file on this machine."""

    notice_seconds = 30.0

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> str:
        """The file's text."""
        try:
            return self._path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise TargetError(f"--rotate-keys: cannot read {self._path}: {error}") from None

    def write(self, document: str) -> None:
        """Replace the file in one step and keep its mode, so that a gateway never reads half of it."""
        try:
            replace(self._path, document, new_mode=0o600)
        except OSError as error:
            raise TargetError(f"--rotate-keys: cannot write {self._path}: {error.strerror}") from None


class KeysSecret:
    """A secret in Secrets Manager. Every write makes a version; the last one is the document that was there before."""

    notice_seconds = 180.0

    def __init__(self, arn: str, region: str | None) -> None:
        self._arn = arn
        self._region = region

    def read(self) -> str:
        """The secret's text."""
        return self._call("get_secret_value", SecretId=self._arn)

    def write(self, document: str) -> None:
        """Make it the secret's current version."""
        self._call("put_secret_value", SecretId=self._arn, SecretString=document)

    def _call(self, operation: str, **arguments: str) -> str:
        # Imported here: boto3 takes half a second to load, and most runs rotate no key.
        import boto3
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            client = boto3.client("secretsmanager", region_name=self._region)
            return str(getattr(client, operation)(**arguments).get("SecretString", ""))
        except ClientError as error:
            detail = error.response.get("Error", {})
            raise TargetError(f"--rotate-keys: {operation}: {detail.get('Code')}: {detail.get('Message')}") from None
        except BotoCoreError as error:
            raise TargetError(f"--rotate-keys: {operation}: {error}") from None


def with_key(document: str, name: str, key: str) -> str:
    """Return the document with one more named key; what was in it stays as it is, byte for byte."""
    if not document.lstrip().startswith("{"):
        return f"{document.rstrip()}\n{name}={key}\n"
    before, _, _ = document.rpartition("}")
    comma = "," if json.loads(document) else ""
    return f"{before.rstrip()}{comma} {json.dumps(name)}: {json.dumps(key)}}}"
