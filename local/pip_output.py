"""How far pip is, read from what it prints."""

from __future__ import annotations

import re
from pathlib import Path

_FETCHED = re.compile(r"^(?:Downloading|Using cached) (\S+?)(?:-\d\S*)? \(([^)]*)\)$", re.MULTILINE)
_FOUND = re.compile(r"^(?:Collecting|Processing) (\S+)", re.MULTILINE)
_SIZE = re.compile(r"^ *(?:Downloading|Using cached) \S+ \(([^)]* MB)\)$", re.MULTILINE)
_TOTAL = re.compile(r"^# (\d+) packages\b", re.MULTILINE)


def packages(requirements: Path, with_dependencies: bool) -> int | None:
    """How many packages a list installs; None: it does not say.

    A list that is installed with its dependencies says it in a comment, `# 92 packages`, as only pip could count them.
    """
    text = requirements.read_text(encoding="utf-8")
    if not with_dependencies:
        return sum(1 for line in text.splitlines() if re.match(r"\s*\w", line))
    said = _TOTAL.search(text)
    return int(said[1]) if said else None


def step(output: str, site_packages: Path | None, total: int | None) -> str:
    """What pip does now, such as "fetching boto3, 23 of 92 packages".

    Args:
        output: what pip has printed.
        site_packages: where it installs; packages are counted there while it unpacks, as it prints nothing then.
        total: how many packages there will be, as far as that is known.
    """
    if named := re.findall(r"^Installing collected packages: (.+)$", output, re.MULTILINE):
        whole = len(named[-1].split(","))
        there = len(list(site_packages.glob("*.dist-info"))) if site_packages else 0
        return f"unpacking, {min(there, whole)} of {whole} packages"
    found = _FOUND.findall(output)
    if not found:
        return "making the environment"
    # Once pip has resolved everything from metadata alone, it downloads without indentation.
    fetched = _FETCHED.findall(output)
    names = [name for name, _ in fetched] or found
    last = re.split(r"[=<>~!;\[@]|-\d", names[-1].rpartition("/")[2])[0]
    sizes = _SIZE.findall(output[output.rfind(names[-1]) :])
    verb = "resolving" if not fetched and ".metadata (" in output else "fetching"
    return f"{verb} {last}{f' ({sizes[-1]})' if sizes else ''}, {_count(len(names), total)}"


def _count(done: int, total: int | None) -> str:
    return f"{done} of {max(done, total)} packages" if total else f"{done} packages"
