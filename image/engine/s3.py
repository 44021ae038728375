"""Models in Amazon S3, ``s3://BUCKET/PREFIX``: lists the files that vLLM needs, and downloads them from any offset.

A file is identified by its ETag and checked by its size: S3 has no hash of the content for every object. A download is never
put together from two versions of an object, because each request names the ETag. boto3 finds the credentials (of the task's
role) and is imported where it is used: not every image has it.
"""

from __future__ import annotations

import functools
import hashlib
import re
from dataclasses import dataclass
from typing import Any

from image.engine.arguments import EngineError
from image.engine.hub import HubFile, Listing, wanted_files
from image.engine.patience import HubUnreachableError

SCHEME = "s3://"
ETAG = "etag-"
"""The start of a file's hash that is an ETag, which says nothing about the file's content."""
CONNECTIONS = 16
# The characters that have no meaning of their own in an IAM policy or a path.
_ADDRESS = re.compile(r"s3://(?P<bucket>[a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(?P<prefix>(/[A-Za-z0-9_=+@.-]+)*)/?")
_DENIED = ("AccessDenied", "403", "Forbidden", "AllAccessDisabled")


@dataclass(frozen=True)
class S3Address:
    """A folder in a bucket. ``prefix`` has no slash at its end, and is empty for the whole bucket."""

    bucket: str
    prefix: str

    def key(self, name: str) -> str:
        """The key of a file in the folder."""
        return f"{self.prefix}/{name}" if self.prefix else name


def is_in_s3(name: str) -> bool:
    """Whether it is a folder in S3, which is downloaded as a Hub model is."""
    return name.startswith(SCHEME)


def parse_address(text: str) -> S3Address:
    """The folder that ``s3://BUCKET/PREFIX`` names.

    Raises:
        ValueError: it is not in that format; one line.
    """
    match = _ADDRESS.fullmatch(text)
    if not match or ".." in text:
        raise ValueError("is not s3://BUCKET/PREFIX, of letters, digits and _ = + @ . - in each part of PREFIX")
    return S3Address(match["bucket"], match["prefix"].strip("/"))


class S3:
    """A client of S3 with the methods of `image.engine.hub.Hub`.

    Args:
        client: boto3's; None: with the credentials of the machine or task.
    """

    endpoint = "S3"
    keeps_commits = False  # what was replaced in a bucket is gone

    def __init__(self, client: Any = None) -> None:
        self._given = client

    @functools.cached_property
    def _client(self) -> Any:
        # Made only if something is downloaded: an engine that finds its weights needs no boto3.
        return self._given if self._given is not None else _client()

    def files(self, address: S3Address) -> dict[str, tuple[int, str]]:
        """Each file of a folder: its bytes and its ETag. boto3's errors pass through."""
        start = f"{address.prefix}/" if address.prefix else ""
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=address.bucket, Prefix=start)
        found = (item for page in pages for item in page.get("Contents", ()))
        return {
            item["Key"][len(start) :]: (int(item["Size"]), str(item["ETag"]))
            for item in found
            if not item["Key"].endswith("/")
        }

    def read(self, address: S3Address, name: str) -> bytes:
        """The content of a small file. boto3's errors pass through."""
        return bytes(self._client.get_object(Bucket=address.bucket, Key=address.key(name))["Body"].read())

    def listing(self, repository: str, revision: str, mistral: bool | None = None, *, needs: str = "model") -> Listing:
        """The files of a model that vLLM needs; the commit is a hash of their names, sizes and ETags.

        Raises:
            HubUnreachableError: a retry may succeed.
            EngineError: the folder has no model, or the credentials have no access.
        """
        address = _parsed(repository)
        try:
            found = self.files(address)
        except Exception as error:  # boto3's errors have no common class without importing it
            raise refusal(error, repository) from None
        files = [
            HubFile(name, size, ETAG + re.sub(r"[^0-9A-Za-z-]", "", etag))
            for name, (size, etag) in found.items()
            if not name.startswith("/") and ".." not in name
        ]
        if not any(file.name in ("config.json", "params.json") for file in files):
            what = "no config.json" if files else "no files"
            raise EngineError(f"weights: {repository} has {what}; set model to the folder that contains config.json")
        wanted = wanted_files(repository, files, mistral, needs)
        chosen = tuple(file for file in files if file.name in wanted)
        state = "\n".join(f"{file.name} {file.size} {file.hash}" for file in chosen)
        return Listing(repository, hashlib.sha1(state.encode(), usedforsecurity=False).hexdigest(), chosen)

    def open(self, listing: Listing, file: HubFile, start: int) -> S3Body:
        """A file's bytes, from offset ``start``.

        Raises:
            HubUnreachableError: a retry may succeed.
            EngineError: the credentials have no access, or the object was replaced or deleted.
        """
        address = _parsed(listing.repository)
        part = {"Range": f"bytes={start}-"} if start else {}
        try:
            answer = self._client.get_object(
                Bucket=address.bucket,
                Key=address.key(file.name),
                IfMatch=f'"{file.hash.removeprefix(ETAG)}"',
                **part,
            )
        except Exception as error:
            raise refusal(error, f"{listing.repository}/{file.name}") from None
        return S3Body(answer["Body"], 206 if start else 200)


class S3Body:
    """The answer to one request; a connection that breaks is a ConnectionError."""

    def __init__(self, body: Any, status: int) -> None:
        self._body, self.status = body, status
        self.headers: dict[str, str] = {}

    def __enter__(self) -> S3Body:
        return self

    def __exit__(self, *_: object) -> None:
        self._body.close()

    def read1(self, amount: int) -> bytes:
        """At most so many bytes; none at the end."""
        try:
            return bytes(self._body.read(amount))
        except OSError:
            raise
        except Exception as error:  # botocore's and urllib3's, of several classes
            raise ConnectionError(str(error)) from None


def refusal(error: Exception, what: str) -> EngineError:
    """boto3's error in one line."""
    if isinstance(error, EngineError):  # there is no boto3
        return error
    code = str(getattr(error, "response", {}).get("Error", {}).get("Code", "")) or type(error).__name__
    if code in _DENIED:
        return EngineError(
            f"weights: access to {what} is denied ({code}); allow s3:ListBucket and s3:GetObject in the bucket's policy if it "
            "belongs to another account, and kms:Decrypt in the key's policy if a KMS key encrypts it"
        )
    if code in ("NoSuchBucket", "NoSuchKey", "404"):
        return EngineError(f"weights: {what} was not found in S3 ({code}); check model")
    if code in ("PreconditionFailed", "412"):
        return EngineError(f"weights: {what} was replaced during the download; start again")
    if code in ("NoCredentialsError", "PartialCredentialsError"):
        return EngineError(f"weights: there are no AWS credentials to read {what} with")
    return HubUnreachableError(f"weights: {what} cannot be read from S3 ({code}); try again later")


def _parsed(repository: str) -> S3Address:
    try:
        return parse_address(repository)
    except ValueError as error:
        raise EngineError(f"weights: {repository} {error}") from None


def _client() -> Any:
    try:
        import boto3  # only the gateway's image is certain to have it
        from botocore.config import Config
    except ImportError:
        raise EngineError(
            "weights: this image cannot read S3 itself, because it has no boto3; the fetch task of the deploy downloads the weights"
        ) from None
    return boto3.client("s3", config=Config(max_pool_connections=CONNECTIONS, retries={"mode": "standard"}))
