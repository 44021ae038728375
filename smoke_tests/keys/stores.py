"""Where a keys document is kept. A write names the version that it is made from, so that no concurrent one is lost."""

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
    """Somebody else wrote in between."""


class Store(Protocol):
    """One keys document."""

    notice_seconds: float
    """How long running gateways may take to notice a change."""

    def read(self) -> tuple[str, str]:
        """The document and its version; raises TargetError."""

    def write(self, document: str, version: str) -> None:
        """Put another one in the place of that version; raises ConflictError or TargetError."""


class FileStore:
    """A file on this machine, readable by its owner only."""

    notice_seconds = 2.0

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> tuple[str, str]:
        """The file's text, empty where there is none; its version is its hash."""
        try:
            text = self._path.read_text("utf-8") if self._path.exists() else ""
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
            raise TargetError(f"cannot read {self._path}: {reason}") from None
        return text, hashlib.sha256(text.encode()).hexdigest()

    def write(self, document: str, version: str) -> None:
        """In one step, so that a gateway never reads half of it; the file's mode stays as it is."""
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
    """One writer at a time; the lock ends with its process."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


class SecretStore:
    """A secret in Secrets Manager.

    A write makes a version beside the current one and then moves the label AWSCURRENT to it, away from the version that
    was read: AWS refuses that where the label is elsewhere by now.
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
        """Make the document current in the place of that version."""
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
            # A version without a label is one that AWS deletes in time. A label too many must not hide that a key is made.
            with contextlib.suppress(TargetError):
                self._call("update_secret_version_stage", VersionStage=pending, RemoveFromVersionId=new)

    def _keep_seed(self, version: str) -> None:
        """The version that Pulumi made must stay: where it is gone, the next deploy would make it again, as current."""
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
    """A label is not where it was."""
