"""How the matrix's Python programs are asked: a JSON line in, `{"do": NAME, ...}`; a JSON line out, a value or an error."""

from __future__ import annotations

import contextlib
import io
import json
import os
import runpy
import sys
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

BASE = os.environ["MATRIX_BASE"]
HELLO = [{"role": "user", "content": "Say hello."}]
PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOL = {"name": "weather", "description": "The weather of a city.", "parameters": PARAMETERS}


def versions(*packages: str) -> Callable[..., str]:
    """An operation that tells the versions of packages."""
    return lambda **_: ", ".join(f"{package} {version(package)}" for package in packages)


def snippet(path: str, variables: dict[str, str]) -> str:
    """What a snippet prints; run here, because the imports alone take seconds."""
    before = dict(os.environ)
    os.environ.update(variables)
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed):
            runpy.run_path(path)
    finally:
        os.environ.clear()
        os.environ.update(before)
    return printed.getvalue()


def serve(operations: dict[str, Callable[..., Any]]) -> None:
    """Do what is asked until there is nothing more. What libraries print goes to stderr."""
    operations = {"run_snippet": snippet, **operations}
    out, sys.stdout = sys.stdout, sys.stderr
    for line in sys.stdin:
        asked = json.loads(line)
        try:
            result = {"value": operations[asked.pop("do")](**asked)}
        except Exception as error:  # whatever a client raises is what is looked at
            result = {"error": describe(error)}
        print(json.dumps(result), file=out, flush=True)


def describe(error: BaseException) -> dict[str, Any]:
    """An exception as the harness compares it."""
    status = getattr(error, "status_code", None)
    names = [kind.__name__ for kind in type(error).__mro__]
    return {"classes": names, "status": status, "message": str(error)[:500]}
