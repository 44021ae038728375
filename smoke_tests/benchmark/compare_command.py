"""`python -m smoke_tests.benchmark compare BASE.json NEW.json`."""

import argparse
from dataclasses import fields
from pathlib import Path

from smoke_tests.benchmark.compare import Thresholds, as_text, compare
from smoke_tests.benchmark.record import read_record
from smoke_tests.shares import share_option

HELP = {
    "max_slowdown": "throughputs, means and medians of times",
    "max_tail_slowdown": "99th percentiles of 100 requests and more",
    "max_cost_increase": "dollars a million tokens",
    "max_cold_start_slowdown": "the cold start",
    "max_success_rate_drop": "the success rate, in points: 0.01 lets 100%% become 99%%",
}


def main(arguments: list[str]) -> int:
    """Print the comparison; return 0 without a regression, 1 with one, 2 if the records are not comparable.

    Raises RecordError if a file is not a record.
    """
    parser = argparse.ArgumentParser(
        prog="python -m smoke_tests.benchmark compare",
        description="Compares two records. Exit status: 0, no figure exceeds its limit; 1, a figure does; 2, the records are not comparable.",
        allow_abbrev=False,
    )
    parser.add_argument("base", type=Path, metavar="BASE.json", help="the record to compare with; - is standard input")
    parser.add_argument("new", type=Path, metavar="NEW.json", help="the record to judge; - is standard input")
    for each in fields(Thresholds):
        parser.add_argument(
            f"--{each.name.replace('_', '-')}",
            type=share_option,
            default=each.default,
            metavar="FRACTION",
            help=f"{HELP[each.name]} (default {each.default})",
        )
    parser.add_argument("--anyway", action="store_true", help="judge the records even if they are not comparable")
    options = parser.parse_args(arguments)
    if str(options.base) == str(options.new) == "-":
        parser.error("BASE and NEW are both standard input; name a file for one of them")
    thresholds = Thresholds(**{each.name: getattr(options, each.name) for each in fields(Thresholds)})
    comparison = compare(read_record(options.base), read_record(options.new), thresholds, anyway=options.anyway)
    print(as_text(comparison, str(options.base), str(options.new)))
    return {None: 2, True: 0, False: 1}[comparison.passed]
