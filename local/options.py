"""The command line of `make local`."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from dataclasses import dataclass

from local.make_names import Parser

DEFAULT_PORT = 8000


@dataclass(frozen=True)
class Options:
    """The options of this run."""

    stack: str
    model: str | None
    port: int
    weights: str
    scale_down_minutes: int | None
    settings: tuple[str, ...]
    check: bool
    started: float | None
    installing: float


def split_pairs(text: str) -> tuple[str, ...]:
    """Split `key=value key=[a, b]` into pairs: a new pair begins at each ` key=` outside of brackets and quotes."""
    starts, depth, quote = [0], 0, ""
    for place, letter in enumerate(text):
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "\"'" and (place == 0 or text[place - 1] in " =[,{:"):
            quote = letter
        elif letter in "[{":
            depth += 1
        elif letter in "]}":
            depth -= 1
        elif letter.isspace() and depth <= 0 and re.match(r"\s[A-Za-z]\w*=", text[place : place + 64]):
            starts.append(place + 1)
    pairs = (text[start:end].strip() for start, end in zip(starts, [*starts[1:], len(text)], strict=True))
    return tuple(pair for pair in pairs if pair)


def parse(arguments: Sequence[str]) -> Options:
    """Parse the command line; exits with usage on an error."""
    parser = Parser(
        prog="python3 -m local", description="Run the stack's plan as processes on this machine.", allow_abbrev=False
    )
    parser.add_argument("--stack", default="dev", help="stack file to take the plan from (dev)")
    parser.add_argument("--model", help="Hugging Face Hub id or a folder; overrides the stack's")
    parser.add_argument(
        "--port", type=int, default=DEFAULT_PORT, help=f"port of the endpoint on 127.0.0.1 ({DEFAULT_PORT})"
    )
    parser.add_argument(
        "--weights",
        choices=("auto", "real", "stand-in"),
        default="auto",
        help="real: only the model's own; stand-in: a tiny random model; auto: real if this machine can run it (default: auto)",
    )
    parser.add_argument("--scale-down-minutes", type=int, help="stop vLLM after this many minutes without a request")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="any other setting of a stack file"
    )
    parser.add_argument(
        "--pairs", default="", metavar="PAIRS", help="several settings in one argument, as in make's SET"
    )
    parser.add_argument(
        "--check", action="store_true", help="test the endpoint, then stop; exit with 1 if a check fails"
    )
    parser.add_argument("--started", type=float, help=argparse.SUPPRESS)  # passed from the first stage to the second
    parser.add_argument("--installing", type=float, default=0.0, help=argparse.SUPPRESS)
    found = parser.parse_args(arguments)
    if found.scale_down_minutes is not None and found.scale_down_minutes < 1:
        parser.error(f"--scale-down-minutes: found {found.scale_down_minutes}. Set 1 or more, or leave it out")
    return Options(
        stack=found.stack, model=found.model or None, port=found.port, weights=found.weights,
        scale_down_minutes=found.scale_down_minutes, settings=(*found.set, *split_pairs(found.pairs)), check=found.check,
        started=found.started, installing=found.installing,
    )  # fmt: skip
