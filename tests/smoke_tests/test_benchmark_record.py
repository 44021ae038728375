"""The record: what is written is read back, and what is no record is one line."""

import io
import json
from pathlib import Path
from typing import Any

import pytest

from smoke_tests.benchmark.__main__ import main
from smoke_tests.benchmark.record import RecordError, as_text, parse_record, read_record, write_record
from tests.smoke_tests.benchmark_records import document, measurement, record


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    whole = record(measurement(), measurement({"mode": "open", "request_rate": 2.5}))
    write_record(whole, path)
    assert read_record(path) == whole
    assert [file.name for file in tmp_path.iterdir()] == ["record.json"]


def test_a_measurement_is_one_line() -> None:
    lines = as_text(record(measurement(), measurement())).splitlines()
    assert sum('"figures":' in line for line in lines) == 2
    assert json.loads("\n".join(lines))["schema_version"] == 2


def test_keys_of_a_later_version_are_left_alone() -> None:
    text = json.dumps(document(later="x") | {"deployment": document()["deployment"] | {"moon": "full"}})
    assert parse_record(text, "a.json") == record()


def broken(**changes: Any) -> str:
    return json.dumps(document() | changes)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{", "a.json is not JSON"),
        ("[]", "a.json is not a benchmark record"),
        ('{"figures": 1}', "a.json is not a benchmark record"),
        (broken(kind="other"), "a.json is not a benchmark record"),
        (broken(schema_version=1), "schema version 1, this version reads 2; run the benchmark again"),
        (broken(schema_version=3), "schema version 3, this version reads 2; use the version that wrote it"),
        (broken(measurements=[measurement(duration="x")]), "a.json is damaged: measurements.0.figures.duration"),
        (broken(measurements=[measurement(success_rate=1.5)]), "success_rate: Input should be less than or equal to 1"),
        (broken(measurements=[measurement(duration=float("nan"))]), "a.json is damaged: measurements.0.figures.duration"),
        (broken(date=None, tool=None), "(and 1 more)"),
    ],
)  # fmt: skip
def test_what_is_no_record_is_one_line(text: str, told: str) -> None:
    with pytest.raises(RecordError) as raised:
        parse_record(text, "a.json")
    assert told in str(raised.value)
    assert "\n" not in str(raised.value)


def test_files_that_cannot_be_read_or_written_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match=r"cannot read .*missing.json: No such file"):
        read_record(tmp_path / "missing.json")
    with pytest.raises(RecordError, match=r"cannot write .*: No such file"):
        write_record(record(), tmp_path / "nowhere" / "record.json")
    (tmp_path / "folder").mkdir()
    with pytest.raises(RecordError, match="cannot write"):
        write_record(record(), tmp_path / "folder")
    assert [file.name for file in tmp_path.iterdir()] == ["folder"]


def test_a_record_is_read_from_standard_input_and_with_a_byte_order_mark(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As `benchmark --json - | compare BASE -` and PowerShell's `>` make it."""
    text = as_text(record()).encode()
    base = tmp_path / "base.json"
    base.write_bytes(b"\xef\xbb\xbf" + text)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text)))
    assert main(["compare", str(base), "-"]) == 0
    with pytest.raises(SystemExit):
        main(["compare", "-", "-"])
    assert "both standard input" in capsys.readouterr().err
