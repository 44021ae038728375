"""The options of `python -m smoke_tests.benchmark run`, checked before the first request."""

import argparse
import re
from collections.abc import Callable
from typing import TypeVar

from infra.command_line import LARGEST_COUNT, count, count_or_zero, positive, zero_or_more
from infra.output_file import is_same_file
from smoke_tests.benchmark.cost import OUTPUT_TO_INPUT_PRICE, DailyPattern, parse_pattern
from smoke_tests.benchmark.record import Lengths
from smoke_tests.benchmark.workload import PATHS
from smoke_tests.options import add_json_file, add_quiet, file_path, new_parser
from smoke_tests.target import add_target_options

T = TypeVar("T")
SLO_NAMES = ("ttft", "tpot", "e2el")
DEFAULT_REQUESTS = 50
REQUESTS_PER_CONCURRENCY = 4


def parse(arguments: list[str]) -> argparse.Namespace:
    """Return the options; exits with one line if they are wrong."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.burstiness is not None and options.request_rate is None:
        parser.error("--burstiness needs --request-rate; give both")
    if options.shared_prefixes is not None and not options.shared_prefix_tokens:
        parser.error("--shared-prefixes needs --shared-prefix-tokens")
    if options.dataset is not None and options.prompt_tokens is not None:
        parser.error(
            "--prompt-tokens and --dataset: the prompts of the data file have their own lengths; give one of them"
        )
    if options.dataset is not None and options.json is not None and is_same_file(options.dataset, options.json):
        parser.error(f"--dataset and --json both name {options.json}, which would be overwritten; name another file")
    options.concurrency = options.concurrency or ([10] if options.request_rate is None else None)
    return options


def _parser() -> argparse.ArgumentParser:
    parser = new_parser(
        "smoke_tests.benchmark",
        "How fast is this endpoint, and what do a million tokens cost? Sends streamed requests and times each token.",
        "Other commands: compare BASE.json NEW.json; report RECORD.json... -o FILE.html. docs/benchmark.md explains every figure.",
        "%(prog)s [run] (--stack NAME | --endpoint URL) [options]; --help lists them",
    )
    add_target_options(parser)
    load = parser.add_argument_group("load")
    kind = load.add_mutually_exclusive_group()
    kind.add_argument(
        "--concurrency",
        type=_many(count),
        metavar="N[,N...]",
        help="closed loop: so many at once (default 10); several are a sweep",
    )
    kind.add_argument(
        "--request-rate",
        type=_many(positive),
        metavar="R[,R...]",
        help="open loop: so many a second, at random (Poisson) times; several are a sweep",
    )
    load.add_argument(
        "--burstiness",
        type=positive,
        metavar="B",
        help="open loop: 1 Poisson (default), less comes in bursts, a million evenly",
    )
    much = load.add_mutually_exclusive_group()
    much.add_argument(
        "--requests",
        type=count,
        metavar="N",
        help=f"requests of each load (default {DEFAULT_REQUESTS}, or {REQUESTS_PER_CONCURRENCY} times the concurrency where that is more)",
    )
    much.add_argument(
        "--duration",
        type=positive,
        metavar="S",
        help="seconds in which each load sends requests; what then runs is finished and counted",
    )
    load.add_argument(
        "--warmup",
        type=count_or_zero,
        metavar="N",
        help="requests before each load, in no figure (default: as many as run at once, at most 16)",
    )
    load.add_argument(
        "--timeout-seconds", type=positive, default=600.0, metavar="S", help="a request's limit (default 600)"
    )
    load.add_argument(
        "--cold-start", action="store_true", help="first wake the stack from zero, and record where the seconds went"
    )
    work = parser.add_argument_group("requests")
    work.add_argument("--prompt-tokens", type=_lengths, metavar="N|N-M", help="tokens in, about (default 128)")
    work.add_argument(
        "--max-tokens", type=_lengths, metavar="N|N-M", help="tokens out (default 256, or the data file's)"
    )
    work.add_argument(
        "--dataset",
        type=file_path,
        metavar="FILE",
        help="prompts and answer lengths from ShareGPT-like JSON or JSON lines",
    )
    work.add_argument(
        "--shared-prefix-tokens",
        type=count_or_zero,
        default=0,
        metavar="N",
        help="begin prompts with so many tokens that others begin with, too (default 0)",
    )
    work.add_argument(
        "--shared-prefixes", type=count, metavar="N", help="how many different shared beginnings (default 1)"
    )
    work.add_argument("--api", choices=sorted(PATHS), default="chat", help="which API (default chat)")
    work.add_argument("--temperature", type=zero_or_more, default=0.0, help="of the sampling (default 0)")
    work.add_argument(
        "--seed", type=int, default=0, help="makes lengths and arrival times; the same seed, the same ones"
    )
    work.add_argument(
        "--same-prompts",
        action="store_true",
        help="the same prompts in every run; a prefix cache may know them from the last one",
    )
    cost = parser.add_argument_group("cost")
    cost.add_argument(
        "--usd-per-hour", type=zero_or_more, metavar="X", help="an active hour (default: the stack's output)"
    )
    cost.add_argument(
        "--usd-per-hour-idle", type=zero_or_more, metavar="X", help="an idle hour (default: the stack's output)"
    )
    cost.add_argument(
        "--usd-per-cold-start", type=zero_or_more, metavar="X", help="a cold start (default: the stack's output)"
    )
    cost.add_argument(
        "--scale-down-minutes",
        type=zero_or_more,
        metavar="M",
        help="from the last request to zero (default: the stack's output)",
    )
    cost.add_argument(
        "--busy-hours",
        type=_pattern,
        metavar="PATTERN",
        help='when the load comes: 8 hours a day, or "9-12,13-18" of the clock; the rest is idle and paid',
    )
    cost.add_argument(
        "--output-input-price",
        type=positive,
        default=OUTPUT_TO_INPUT_PRICE,
        metavar="X",
        help=f"an output token costs so many input tokens (default {OUTPUT_TO_INPUT_PRICE:g})",
    )
    told = parser.add_argument_group("results")
    told.add_argument(
        "--goodput",
        type=_slo,
        nargs="+",
        default=[],
        metavar="NAME:MS",
        help="count requests that keep these, e.g. ttft:500 tpot:50 e2el:3000",
    )
    add_json_file(told, "the record")
    add_quiet(told)
    return parser  # fmt: skip


def _many(each: Callable[[str], T]) -> Callable[[str], list[T]]:
    return lambda text: list(dict.fromkeys(each(part) for part in text.split(",")))


def _lengths(text: str) -> Lengths:
    match = re.fullmatch(r"(\d+)(?:-(\d+))?", text)
    low = int(match[1]) if match else 0
    high = int(match[2] or match[1]) if match else 0
    if not 1 <= low <= high <= LARGEST_COUNT:
        raise argparse.ArgumentTypeError(
            f"{text!r} must be a length in tokens, such as 128, or a range, such as 64-256"
        )
    return Lengths(low=low, high=high)


def _pattern(text: str) -> DailyPattern:
    try:
        return parse_pattern(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _slo(text: str) -> tuple[str, float]:
    name, _, limit = text.partition(":")
    if name not in SLO_NAMES:
        raise argparse.ArgumentTypeError(
            f"{text!r} must be NAME:MILLISECONDS, where NAME is one of {', '.join(SLO_NAMES)}"
        )
    return name, positive(limit)
