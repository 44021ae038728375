"""`python -m smoke_tests.benchmark report RECORD.json... -o report.html`."""

import argparse
from pathlib import Path

from smoke_tests.benchmark.record import RecordError, read_record
from smoke_tests.benchmark.report.page import page


def main(arguments: list[str]) -> int:
    """Write the page; return 0. Raises RecordError for a file that is no record, or a page that cannot be written."""
    parser = argparse.ArgumentParser(
        prog="python -m smoke_tests.benchmark report",
        description="One self-contained HTML page with plots. Several records are laid over one another.",
        allow_abbrev=False,
    )
    parser.add_argument("records", type=Path, nargs="+", metavar="RECORD.json", help="records, the newest last")
    parser.add_argument(
        "-o", "--output", type=Path, default=Path("report.html"), metavar="FILE", help="(default report.html)"
    )
    options = parser.parse_args(arguments)
    text = page([read_record(path) for path in options.records])
    try:
        options.output.write_text(text, encoding="utf-8")
    except OSError as error:
        raise RecordError(f"cannot write {options.output}: {error.strerror}") from None
    print(f"report: {options.output} ({len(text.encode()) / 1024:.0f} KiB)")
    return 0
