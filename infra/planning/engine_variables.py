"""Checks ``engineEnvironment`` for variables that the engine's entrypoint reads as arguments of vLLM.

The entrypoint accepts the names of other images, such as ``KV_CACHE_DTYPE``. In a deploy, they would change the engine without
the plan: its memory, batches and cold start are derived from the settings. So each is refused, with the setting to use.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

from image.engine.arguments import variable_names
from infra.planning.engine_arguments import OTHERWISE, SETTINGS, STACK, known_arguments
from infra.settings import Settings

# Variables that do not mean one argument.
_INSTEAD = {
    "VLLM_EXTRA_ARGS": "engineArgs", "VLLM_CONFIG_FILE": "engineArgs", "TASK": "engineArgs: [--runner, pooling]", "VLLM_FAST_BOOT": "fastBoot",
    "IMAGE_LIMIT": "imageLimit", "VIDEO_LIMIT": "videoLimit", "VLLM_SCALEDOWN_MINUTES": "scaleDownMinutes",
    "VLLM_TIMEOUT_MINUTES": "startupTimeoutMinutes",
}  # fmt: skip


def engine_variable_problems(settings: Settings) -> Iterator[str]:
    """One line for each variable of engineEnvironment that the entrypoint would read as an argument."""
    known, _ = known_arguments(settings.engine_image)
    names = variable_names(known)
    for pair in settings.engine_environment:
        name, _, value = pair.partition("=")
        if name not in names or not value.strip():
            continue
        argument = names[name]
        if setting := _INSTEAD.get(name) or SETTINGS.get(argument) or OTHERWISE.get(argument):
            fix = f"Remove it, and set {setting}"
        elif argument in STACK:
            fix = "Remove it"
        elif known.arguments[argument].kind == "flag":
            fix = f"Remove it, and set engineArgs: {json.dumps([argument])}"
        else:
            fix = f"Remove it, and set engineArgs: {json.dumps([argument, value])}"
        means = f"as {argument}" if argument else "as arguments"
        yield f"engineEnvironment: found {name}, which the engine reads {means}, past the plan. {fix}"
