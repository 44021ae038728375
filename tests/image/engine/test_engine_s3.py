"""Weights in S3, against moto's S3 within this process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError, NoCredentialsError

from image.engine import s3
from image.engine.arguments import EngineError, settle
from image.engine.models import localized, repositories
from image.engine.prepare import fetch
from image.engine.s3 import S3, parse_address
from image.engine.weights import Repository, ensure
from tests.buckets import filled_bucket

MODEL = "s3://acme-models/llms/tiny"
FILES = {
    "config.json": b"{}",
    "model-00001-of-00001.safetensors": bytes(range(256)) * 4096,
    "pytorch_model.bin": b"old" * 1024,
    "original/consolidated.00.pth": b"other" * 1024,
}


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    with filled_bucket(FILES, "llms/tiny", monkeypatch) as client:
        client.put_object(Bucket="acme-models", Key="llms/tiny/folder/", Body=b"")
        client.put_object(Bucket="acme-models", Key="llms/tiny-2/config.json", Body=b"another model")
        yield client


def test_the_deploys_step_fetches_what_vllm_needs_and_a_start_finds_it(tmp_path: Path, bucket: Any) -> None:
    launch = settle([MODEL, "--max-model-len", "64"], {"HF_HOME": str(tmp_path)})
    lines: list[str] = []
    (weights,) = fetch(launch, None, lines.append, ask=True)
    names = {str(path.relative_to(weights.folder)) for path in weights.folder.rglob("*") if path.is_file()}
    assert names == {"config.json", "model-00001-of-00001.safetensors"}
    assert all((weights.folder / name).read_bytes() == FILES[name] for name in names)
    assert any("complete and verified" in line for line in lines)
    bucket.delete_object(Bucket="acme-models", Key="llms/tiny/config.json")  # a start asks S3 for nothing
    (again,) = fetch(launch, None, lines.append)
    assert again == weights
    assert localized(launch.arguments, {again.repository: again.folder})[0] == str(weights.folder)


def test_a_changed_file_is_a_new_commit_and_only_it_is_downloaded(tmp_path: Path, bucket: Any) -> None:
    one = Repository(MODEL)
    first = ensure(one, tmp_path, S3(bucket), lambda _: None, ask=True)
    bucket.put_object(Bucket="acme-models", Key="llms/tiny/config.json", Body=b'{"a": 1}')
    second = ensure(one, tmp_path, S3(bucket), lambda _: None, ask=True)
    assert first.commit != second.commit
    assert (second.folder / "config.json").read_bytes() == b'{"a": 1}'
    weights = "model-00001-of-00001.safetensors"
    assert (first.folder / weights).resolve() == (second.folder / weights).resolve()


def test_an_interrupted_download_resumes_and_a_replaced_object_does_not(tmp_path: Path, bucket: Any) -> None:
    client = S3(bucket)
    listing = client.listing(MODEL, "main")
    file = next(file for file in listing.files if file.name.endswith(".safetensors"))
    with client.open(listing, file, 100) as answer:
        assert (answer.status, answer.read1(50)) == (206, FILES[file.name][100:150])
    blobs = Repository(MODEL).folder(tmp_path) / "blobs"
    blobs.mkdir(parents=True)
    (blobs / f"{file.hash}.part").write_bytes(FILES[file.name][:1000])
    found = ensure(Repository(MODEL), tmp_path, client, lambda _: None)
    assert (found.folder / file.name).read_bytes() == FILES[file.name]
    bucket.put_object(Bucket="acme-models", Key=f"llms/tiny/{file.name}", Body=b"new")
    with pytest.raises(EngineError, match="was replaced during the download"):
        client.open(listing, file, 100)


class Refusing:
    """A client whose every request fails."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def get_paginator(self, _: str) -> Any:
        raise self._error


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (ClientError({"Error": {"Code": "AccessDenied"}}, "ListObjectsV2"), "is denied"),
        (ClientError({"Error": {"Code": "NoSuchBucket"}}, "ListObjectsV2"), "was not found in S3"),
        (NoCredentialsError(), "there are no AWS credentials"),
        (ClientError({"Error": {"Code": "SlowDown"}}, "ListObjectsV2"), "try again later"),
    ],
)
def test_what_s3_refuses_is_one_line(tmp_path: Path, error: Exception, told: str, no_waiting: list[float]) -> None:
    with pytest.raises(EngineError) as raised:
        ensure(Repository(MODEL), tmp_path, S3(Refusing(error)), lambda _: None)
    assert told in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_folder_without_a_model_names_the_setting(tmp_path: Path, bucket: Any) -> None:
    for model, told in (("s3://acme-models/llms", "has no config.json"), ("s3://acme-models/none", "has no files")):
        with pytest.raises(EngineError, match=told):
            ensure(Repository(model), tmp_path, S3(bucket), lambda _: None)


def test_without_boto3_a_start_finds_its_weights_and_names_who_downloads_them(
    tmp_path: Path, bucket: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    ensure(Repository(MODEL), tmp_path, S3(bucket), lambda _: None)
    monkeypatch.setattr(s3, "_client", _without)
    assert ensure(Repository(MODEL), tmp_path, S3(), lambda _: None).size_bytes > 0
    with pytest.raises(EngineError, match="the fetch task"):
        ensure(Repository("s3://acme-models/llms/tiny-2"), tmp_path, S3(), lambda _: None)


def _without() -> Any:
    raise EngineError("the fetch task")


@pytest.mark.parametrize(
    "text", ["s3://", "s3:///x", "s3://UPPER/x", "s3://b/x", "s3://bucket/a/../b", "s3://bucket/*", "s3://bucket/a b", "s3://bucket//a"]
)  # fmt: skip
def test_an_address_that_a_policy_could_read_differently_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not s3://BUCKET/PREFIX"):
        parse_address(text)


def test_a_models_folder_is_named_without_a_colon() -> None:
    assert repositories([MODEL]) == [Repository(MODEL)]
    assert Repository(MODEL).folder(Path("/w")).name == "models--s3--acme-models--llms--tiny"
