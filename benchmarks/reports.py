"""The results of a run: where it was measured, printed and written as JSON."""

from __future__ import annotations

import json
import os
import platform
from pathlib import Path
from typing import Any

from image.gateway import __version__


def context() -> dict[str, Any]:
    """The report's schema version, the gateway's, Python's and the platform's, and how busy the machine is."""
    return {
        "schema": 1,
        "gateway": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "load_before": os.getloadavg()[0],
    }


def publish(report: dict[str, Any], out: Path | None) -> None:
    """Print a report, and write it to a file if one is named."""
    text = json.dumps(report, indent=1)
    print(text)
    if out:
        out.write_text(text + "\n")
