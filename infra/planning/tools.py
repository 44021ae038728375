"""Tool calling: chooses vLLM's tool call parser for a model."""

from __future__ import annotations

import re

from infra.settings import Settings

NO_TOOLS = "none"
# Model families whose chat template supports tools, with their parser according to vLLM's documentation. Variants for code
# or images use other formats, or none.
_PARSERS = (
    (re.compile(r"Qwen/Qwen(2\.5|3)-\d+(\.\d+)?B\b"), "hermes"),
    (re.compile(r"meta-llama/(Meta-)?Llama-3\.1-\d+B-Instruct\b"), "llama3_json"),
)


def tool_call_parser(settings: Settings) -> str:
    """The parser's name; empty if the model does not support tools or its parser is not known."""
    if settings.tool_call_parser:
        return "" if settings.tool_call_parser == NO_TOOLS else settings.tool_call_parser
    return next((parser for family, parser in _PARSERS if family.match(settings.model)), "")
