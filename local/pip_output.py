"""Derives pip's progress from its output."""

from __future__ import annotations

import re
from pathlib import Path

_FETCHED = re.compile(r"^(?:Downloading|Using cached) (\S+?)(?:-\d\S*)? \(([^)]*)\)$", re.MULTILINE)
_FOUND = re.compile(r"^(?:Collecting|Processing) (\S+)", re.MULTILINE)
_SIZE = re.compile(r"^ *(?:Downloading|Using cached) \S+ \(([^)]* MB)\)$", re.MULTILINE)
_TOTAL = re.compile(r"^# (\d+) packages\b", re.MULTILINE)


def packages(requirements: Path, with_dependencies: bool) -> int | None:
    """The number of packages that a requirements file installs; None if unknown.

    A file that is installed with dependencies declares the number in a comment, `# 92 packages`, because only pip could
    count them.
    """
    text = requirements.read_text(encoding="utf-8")
    if not with_dependencies:
        return sum(1 for line in text.splitlines() if re.match(r"\s*\w", line))
    said = _TOTAL.search(text)
    return int(said[1]) if said else None


def step(output: str, site_packages: Path | None, total: int | None) -> str:
    """Pip's current step, such as "fetching boto3, 23 of 92 packages".

    Args:
        output: pip's output so far.
        site_packages: the target folder, in which packages are counted while pip unpacks, because pip prints nothing then.
        total: the number of packages, if known.
    """
    if named := re.findall(r"^Installing collected packages: (.+)$", output, re.MULTILINE):
        whole = len(named[-1].split(","))
        there = len(list(site_packages.glob("*.dist-info"))) if site_packages else 0
        return f"unpacking, {min(there, whole)} of {whole} packages"
    found = _FOUND.findall(output)
    if not found:
        return "creating the environment"
    # If pip resolved everything from metadata alone, its download lines are not indented.
    fetched = _FETCHED.findall(output)
    names = [name for name, _ in fetched] or found
    last = re.split(r"[=<>~!;\[@]|-\d", names[-1].rpartition("/")[2])[0]
    sizes = _SIZE.findall(output[output.rfind(names[-1]) :])
    verb = "resolving" if not fetched and ".metadata (" in output else "fetching"
    return f"{verb} {last}{f' ({sizes[-1]})' if sizes else ''}, {_count(len(names), total)}"


def _count(done: int, total: int | None) -> str:
    return f"{done} of {max(done, total)} packages" if total else f"{done} packages"
