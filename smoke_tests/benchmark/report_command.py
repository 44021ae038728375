"""`python -m smoke_tests.benchmark report RECORD.json... -o report.html`."""

import argparse
from pathlib import Path

from infra.output_file import is_same_file, is_standard_output, output_path, write
from smoke_tests.benchmark.record import read_record
from smoke_tests.benchmark.report.page import page


def main(arguments: list[str]) -> int:
    """Write the page; return 0. Raises RecordError if a file is not a record, OutputError if the page cannot be written."""
    parser = argparse.ArgumentParser(
        prog="python -m smoke_tests.benchmark report",
        description="One self-contained HTML page with plots. Several records share the same plots.",
        allow_abbrev=False,
    )
    parser.add_argument("records", type=Path, nargs="+", metavar="RECORD.json", help="records, the newest last")
    parser.add_argument("-o", "--output", type=str, default="report.html", metavar="FILE", help="(default report.html)")
    options = parser.parse_args(arguments)
    options.output = output_path(options.output, "-o")
    for path in options.records:
        if is_same_file(path, options.output):
            parser.error(f"-o: {options.output} is one of the records and would be overwritten; name another file")
    text = page([read_record(path) for path in options.records])
    write(options.output, text, precious=False)
    if not is_standard_output(options.output):
        print(f"report: {options.output} ({len(text.encode()) / 1024:.0f} KiB)")
    return 0
