"""Stores for a keys document. A write names the version that it is based on, so that concurrent writes are not lost."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import boto3
from botocore.exceptions import BotoCoreError, ClientError

from infra.output_file import replace
from smoke_tests.errors import TargetError
from smoke_tests.stack import SIGN_IN

SEED_LABEL = "pulumi-seed"


class ConflictError(Exception):
    """Another process wrote in between."""


class Store(Protocol):
    """One keys document."""

    notice_seconds: float
    """The longest time in which running gateways pick up a change."""

    def read(self) -> tuple[str, str]:
        """The document and its version; raises TargetError."""

    def write(self, document: str, version: str) -> None:
        """Replace that version; raises ConflictError or TargetError."""


class FileStore:
    """A file on this machine, readable by its owner only."""

    notice_seconds = 2.0

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> tuple[str, str]:
        """The file's text, empty if there is no file; its version is its hash."""
        try:
            text = self._path.read_text("utf-8") if self._path.exists() else ""
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
            raise TargetError(f"cannot read {self._path}: {reason}") from None
        return text, hashlib.sha256(text.encode()).hexdigest()

    def write(self, document: str, version: str) -> None:
        """Replace the file atomically, so that a gateway never reads a partial one; the mode is preserved."""
        try:
            path = self._path.resolve()
            path.parent.mkdir(parents=True, exist_ok=True)
            with _locked(path.parent):
                if self.read()[1] != version:
                    raise ConflictError
                replace(path, document, new_mode=0o600)
        except OSError as error:
            raise TargetError(f"cannot write {self._path}: {error.strerror}") from None


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """One writer at a time. The lock is released when its process exits."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


class SecretStore:
    """A secret in Secrets Manager.

    A write creates a version and then moves the label AWSCURRENT to it from the version that was read. AWS rejects the
    move if another process has moved the label.
    """

    notice_seconds = 60.0

    def __init__(self, arn: str, region: str | None, profile: str | None = None) -> None:
        self._arn = arn
        try:
            self._client: Any = boto3.Session(profile_name=profile).client("secretsmanager", region_name=region)
        except BotoCoreError as error:
            raise TargetError(str(error)) from None

    def read(self) -> tuple[str, str]:
        """The secret's text and the id of its version."""
        answer = self._call("get_secret_value", VersionStage="AWSCURRENT")
        if "SecretString" not in answer:
            raise TargetError(f"the secret {self._arn} is binary; store a keys document")
        return answer["SecretString"], answer["VersionId"]

    def write(self, document: str, version: str) -> None:
        """Make the document current, replacing that version."""
        pending = f"pending-{secrets.token_hex(8)}"
        self._keep_seed(version)
        new = self._call("put_secret_value", SecretString=document, VersionStages=[pending])["VersionId"]
        try:
            self._call(
                "update_secret_version_stage",
                VersionStage="AWSCURRENT",
                MoveToVersionId=new,
                RemoveFromVersionId=version,
            )
        except _RefusedError:
            raise ConflictError from None
        finally:
            # AWS eventually deletes versions without a label. Failing to remove the extra label must not hide a new key.
            with contextlib.suppress(TargetError):
                self._call("update_secret_version_stage", VersionStage=pending, RemoveFromVersionId=new)

    def _keep_seed(self, version: str) -> None:
        """Keep the version that Pulumi created: without it, the next deploy would create it again as the current one."""
        stages = self._call("describe_secret").get("VersionIdsToStages", {})
        if not any(SEED_LABEL in labels for labels in stages.values()):
            self._call("update_secret_version_stage", VersionStage=SEED_LABEL, MoveToVersionId=version)

    def _call(self, operation: str, **arguments: Any) -> dict[str, Any]:
        try:
            answer: dict[str, Any] = getattr(self._client, operation)(SecretId=self._arn, **arguments)
            return answer
        except ClientError as error:
            detail = error.response.get("Error", {})
            if operation == "update_secret_version_stage" and detail.get("Code") == "InvalidParameterException":
                raise _RefusedError(str(detail.get("Message"))) from None
            raise TargetError(f"{operation} of {self._arn}: {detail.get('Code')}: {detail.get('Message')}") from None
        except BotoCoreError as error:
            raise TargetError(f"{operation} of {self._arn}: {error}; {SIGN_IN}") from None


class _RefusedError(TargetError):
    """The label has moved."""
