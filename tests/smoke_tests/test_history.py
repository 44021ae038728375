"""What is kept of verifications: in a folder and in a bucket, never overwritten, and shown as a table."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto import mock_aws

from smoke_tests import history
from smoke_tests.benchmark.record import Deployment
from smoke_tests.errors import TargetError
from smoke_tests.history_entry import Entry, checked_name, digest, new_id, parse_entry
from smoke_tests.history_store import BucketStore, FolderStore, store_for
from tests.smoke_tests.benchmark_records import document, measurement

COST = {
    "usd_per_hour": 1.149, "usd_per_million_input_tokens": 0.1, "usd_per_million_output_tokens": 0.638,
    "usd_per_million_total_tokens": 0.2,
}  # fmt: skip


def entry(number: int = 0, **changes: Any) -> Entry:
    """An entry of the minute `number`."""
    date = datetime(2026, 11, 21, 12, number, tzinfo=UTC)
    point = measurement(median_ttft_ms=123.4, output_throughput=1234.0) | {"cost": COST}
    return Entry.model_validate({
        "id": new_id(date, "0123456789abcdef"), "name": "dev", "date": date.isoformat(), "config_hash": "0123456789abcdef",
        "commit": "abc1234", "passed": True, "conformance": {"passed": 60, "failed": 0, "skipped": 2},
        "benchmark": document(point),
    } | changes)  # fmt: skip


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    with mock_aws():
        boto3.client("s3", region_name="us-east-1").create_bucket(Bucket="acme-results")
        yield "acme-results"


@pytest.fixture(params=["folder", "bucket"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> FolderStore | BucketStore:
    told: list[str] = []
    if request.param == "folder":
        return FolderStore(tmp_path / "results", told.append)
    return BucketStore(request.getfixturevalue("bucket"), "us-east-1", told.append)


def test_what_is_kept_comes_back_the_newest_first(store: FolderStore | BucketStore) -> None:
    made = [entry(number) for number in (2, 0, 1)]
    for one in made:
        store.keep(one)
    store.keep(entry(5, name="dev-eu"))
    assert [found.date for found in store.entries("dev")] == sorted((one.date for one in made), reverse=True)
    assert next(store.entries("dev")) == made[0]
    assert list(store.entries("nobody")) == []


def test_two_at_the_same_moment_are_both_kept(store: FolderStore | BucketStore) -> None:
    places = {store.keep(entry(3)) for _ in range(5)}
    assert len(places) == len(list(store.entries("dev"))) == 5


def test_what_cannot_be_read_is_told_and_left_out(store: FolderStore | BucketStore) -> None:
    good = entry(1)
    path = Path(store.keep(good).removeprefix("s3://acme-results/"))
    for name, text in (("0.json", "{"), ("1.json", '{"schema_version": 99}'), ("2.json", '{"schema_version": 1}')):
        if isinstance(store, FolderStore):
            path.with_name(name).write_text(text)
        else:
            boto3.client("s3").put_object(Bucket="acme-results", Key=str(path.with_name(name)), Body=text)
    assert list(store.entries("dev")) == [good]
    told = vars(store)["warn"].__self__
    assert len(told) == 3
    assert any("not JSON" in line for line in told)
    assert any("schema version 99" in line for line in told)
    assert any("damaged: id" in line for line in told)


def test_a_bucket_that_refuses_is_one_line_with_the_permission(bucket: str) -> None:
    with pytest.raises(TargetError, match=r"resultsBucket: gone: NoSuchBucket.* s3:ListBucket is required") as refused:
        list(BucketStore("gone").entries("dev"))
    assert "\n" not in str(refused.value)
    with pytest.raises(TargetError, match=r"s3:PutObject is required"):
        BucketStore("gone").keep(entry())


def test_s3_itself_refuses_to_replace_an_object(bucket: str) -> None:
    store, one = BucketStore(bucket), entry()
    store.keep(one)
    with pytest.raises(TargetError, match="PreconditionFailed"):
        store.keep(one)


def test_a_name_that_is_no_folder_is_refused() -> None:
    assert checked_name("local-dev") == "local-dev"
    for name in ("../up", "a/b", "", ".hidden", "a b"):
        with pytest.raises(TargetError, match="--name"):
            checked_name(name)


def test_an_endpoint_without_a_stack_is_known_by_what_it_tells() -> None:
    one, moved = (Deployment(endpoint=url, model="m/m", runs_on="2 cores") for url in ("http://a", "http://b"))
    other = Deployment(endpoint="http://a", model="m/m", engine_arguments=("--x",), runs_on="2 cores")
    assert digest(one) == digest(moved) != digest(other)
    assert digest(Deployment(endpoint="http://a", model="m", config_hash="0123")) == "0123"


def test_the_table_shows_verdict_configuration_figures_and_price(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = FolderStore(tmp_path)
    store.keep(entry(0))
    store.keep(entry(1, passed=False, reasons=["median_ttft_ms at 10 at once: 100 became 200"], commit=None))
    store.keep(entry(2, benchmark=None))
    store.keep(entry(3, benchmark={"schema_version": 1}))
    assert history.main(["--name", "dev", "--folder", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert " ".join(lines[0].split()) == "date (UTC) id config commit verdict tests at once tokens/s TTFT ms $/M out"
    assert lines[1].split()[-2:] == ["-", "-"]
    failed = next(i for i, line in enumerate(lines) if "FAILED" in line)
    assert lines[failed + 1].strip() == "median_ttft_ms at 10 at once: 100 became 200"
    assert lines[-3].split()[:2] == ["2026-11-21", "12:00"]
    assert lines[-3].split()[3:] == ["01234567", "abc1234", "passed", "60/60", "10", "1,234", "123", "0.638"]
    assert lines[-1] == f"4 results of dev, in {tmp_path}"


def test_json_has_the_figures_and_not_the_samples(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    FolderStore(tmp_path).keep(entry(0))
    FolderStore(tmp_path).keep(entry(1))
    assert history.main(["--name", "dev", "--folder", str(tmp_path), "--json", "--limit", "1"]) == 0
    text = capsys.readouterr().out
    (told,) = json.loads(text)
    assert told["date"].startswith("2026-11-21T12:01")
    assert told["loads"][0]["figures"]["output_throughput"] == 1234.0
    assert told["loads"][0]["cost"]["usd_per_million_output_tokens"] == 0.638
    assert "samples" not in text


def test_an_entrys_record_is_written_for_compare_and_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = FolderStore(tmp_path / "results")
    one = entry()
    store.keep(one)
    store.keep(entry(1))
    place = ["--name", "dev", "--folder", str(tmp_path / "results")]
    assert history.main([*place, "--record", one.id.rpartition("-")[2], str(tmp_path / "record.json")]) == 0
    assert json.loads((tmp_path / "record.json").read_text())["kind"] == "vllm-endpoint benchmark"
    assert history.main([*place, "--record", "20261121", str(tmp_path / "x.json")]) == 4
    assert "2 entries for '20261121'" in capsys.readouterr().err


def test_nothing_kept_says_how_to_begin(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert history.main(["--name", "dev", "--folder", str(tmp_path)]) == 0
    assert "has no results of dev. Create the first with make verify STACK=dev" in capsys.readouterr().out


def test_the_stacks_bucket_is_found_in_its_outputs() -> None:
    assert history.bucket_of({"verify": {"resultsBucket": "acme-results"}}) == "acme-results"
    assert history.bucket_of({"verify": {"resultsBucket": ""}}) == history.bucket_of({}) == ""
    assert isinstance(store_for(bucket="acme-results"), BucketStore)
    assert isinstance(store_for(bucket="acme-results", folder=Path("x")), FolderStore)


def test_an_entry_survives_writing_and_reading() -> None:
    one = entry(compared={"base": "x", "regressions": ["y"]})
    assert parse_entry(one.as_json(), "here") == one
