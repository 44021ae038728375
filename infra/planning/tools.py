"""Calling tools: which of vLLM's parsers reads the calls that a model makes."""

from __future__ import annotations

import re

from infra.settings import Settings

NO_TOOLS = "none"
# Families whose chat template tells the model of tools, with the parser that vLLM's documentation names for them. Those
# for code or pictures have other forms, or none.
_PARSERS = (
    (re.compile(r"Qwen/Qwen(2\.5|3)-\d+(\.\d+)?B\b"), "hermes"),
    (re.compile(r"meta-llama/(Meta-)?Llama-3\.1-\d+B-Instruct\b"), "llama3_json"),
)


def tool_call_parser(settings: Settings) -> str:
    """The parser's name, empty where the model calls no tools or none is known for it."""
    if settings.tool_call_parser:
        return "" if settings.tool_call_parser == NO_TOOLS else settings.tool_call_parser
    return next((parser for family, parser in _PARSERS if family.match(settings.model)), "")
