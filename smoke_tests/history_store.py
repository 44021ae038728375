"""Stores for verifications: a folder of this machine, or an S3 bucket. Nothing is ever overwritten or deleted."""

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from infra.output_file import OutputError, check, replace
from infra.web_address import redact
from smoke_tests.errors import TargetError
from smoke_tests.history_entry import Entry, EntryError, parse_entry
from smoke_tests.stack import PROJECT_FOLDER

RESULTS_FOLDER = PROJECT_FOLDER / ".results"
PREFIX = "vllm-endpoint"
Warn = Callable[[str], None]


class Store(Protocol):
    """A store for entries."""

    def check(self) -> None:
        """Raise TargetError if an entry cannot be saved."""

    def keep(self, entry: Entry) -> str:
        """Save an entry; returns its path or URL. Raises TargetError."""

    def entries(self, name: str) -> Iterator[Entry]:
        """The entries of one stack, the newest first; unreadable ones are skipped with a warning. Raises TargetError."""


def _warn(text: str) -> None:
    print(f"warning: {text}", file=sys.stderr)


@dataclass(frozen=True)
class FolderStore:
    """One file per entry, in one folder per stack."""

    folder: Path = RESULTS_FOLDER
    warn: Warn = _warn

    def __str__(self) -> str:
        return str(self.folder)

    def check(self) -> None:
        """Create the folder, and test that it is writable."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            check(self.folder / "entry.json")
        except (OSError, OutputError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            raise TargetError(f"the results cannot be kept in {self.folder}: {reason}; give --folder") from None

    def keep(self, entry: Entry) -> str:
        """Save an entry atomically, so that a reader never reads a partial one."""
        path = self.folder / entry.name / f"{entry.id}.json"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            replace(path, redact(entry.as_json()))
        except OSError as error:
            raise TargetError(f"the results cannot be kept in {path.parent}: {error.strerror}") from None
        return str(path)

    def entries(self, name: str) -> Iterator[Entry]:
        """The newest first; ids begin with the time."""
        for path in sorted((self.folder / name).glob("*.json"), reverse=True):
            try:
                yield parse_entry(path.read_text(encoding="utf-8"), str(path))
            except EntryError as error:
                self.warn(str(error))
            except (OSError, UnicodeDecodeError) as error:
                self.warn(f"{path} cannot be read: {error}")


@dataclass(frozen=True)
class BucketStore:
    """One object per entry, under ``vllm-endpoint/<stack>/``, with the caller's own AWS credentials."""

    bucket: str
    region: str | None = None
    warn: Warn = _warn

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{PREFIX}"

    def check(self) -> None:
        """Nothing: S3 reports a missing permission for the list of earlier entries before the run, and for a write after it."""

    def keep(self, entry: Entry) -> str:
        """Save an entry; S3 itself refuses to replace an object with the same key."""
        key = f"{PREFIX}/{entry.name}/{entry.id}.json"
        body = redact(entry.as_json()).encode()
        put = {"Body": body, "ContentType": "application/json", "IfNoneMatch": "*"}
        self._ask("s3:PutObject", lambda s3: s3.put_object(Bucket=self.bucket, Key=key, **put))
        return f"s3://{self.bucket}/{key}"

    def entries(self, name: str) -> Iterator[Entry]:
        """The newest first; ids begin with the time."""
        prefix = f"{PREFIX}/{name}/"

        def list_keys(s3: Any) -> list[str]:
            pages = s3.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=prefix)
            return [found["Key"] for page in pages for found in page.get("Contents", ())]

        def read(s3: Any) -> bytes:
            return bytes(s3.get_object(Bucket=self.bucket, Key=key)["Body"].read())

        for key in sorted(self._ask("s3:ListBucket", list_keys), reverse=True):
            text = self._ask("s3:GetObject", read)
            try:
                yield parse_entry(text.decode("utf-8", "replace"), f"s3://{self.bucket}/{key}")
            except EntryError as error:
                self.warn(str(error))

    def _ask(self, permission: str, question: Callable[[Any], Any]) -> Any:
        # Imported here: boto3 takes half a second to load, and a folder does not need it.
        import boto3
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            return question(boto3.client("s3", region_name=self.region or "us-east-1"))
        except ClientError as error:
            told = error.response.get("Error", {})
            raise TargetError(
                f"resultsBucket: {self.bucket}: {told.get('Code')}: {told.get('Message')}; {permission} is required (docs/verify.md)"
            ) from None
        except BotoCoreError as error:
            raise TargetError(
                f"resultsBucket: {self.bucket}: {error}; sign in to AWS (AWS_PROFILE, aws sso login)"
            ) from None


def store_for(*, bucket: str = "", region: str | None = None, folder: Path | None = None) -> Store:
    """The named bucket, else the folder, else ``.results`` in the clone."""
    return BucketStore(bucket, region) if bucket and folder is None else FolderStore(folder or RESULTS_FOLDER)
