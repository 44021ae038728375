"""Findings of the policy tools, and the waivers that excuse some of them."""

from __future__ import annotations

import datetime
import fnmatch
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

WAIVERS = Path(__file__).with_name("waivers.yaml")
LONGEST_DAYS = 400  # a waiver is looked at again at least once a year


@dataclass(frozen=True)
class Finding:
    """One rule that one resource breaks.

    Attributes:
        kind: what was looked at: plan or dockerfile.
        check: the tool's id of the rule.
        resource: the resource's address, or the Dockerfile's path.
        what: the rule in words.
    """

    kind: str
    check: str
    resource: str
    what: str


@dataclass(frozen=True)
class Waiver:
    """Excuses one rule for the resources that match a pattern (``*`` and ``?``), with a reason, until a day."""

    kind: str
    check: str
    resource: str
    reason: str
    until: datetime.date

    def excuses(self, finding: Finding) -> bool:
        """Whether the finding is what this waiver is about."""
        return (self.kind, self.check) == (finding.kind, finding.check) and fnmatch.fnmatchcase(
            finding.resource, self.resource
        )


def load_waivers(path: Path = WAIVERS) -> list[Waiver]:
    """The waivers of a file.

    Raises:
        ValueError: one of them lacks a part, or a part is empty.
    """
    found = []
    for entry in yaml.safe_load(path.read_text()) or []:
        missing = [key for key in ("kind", "check", "resource", "reason", "until") if not entry.get(key)]
        if missing or not isinstance(entry["until"], datetime.date):
            raise ValueError(f"{path.name}: {entry.get('check', entry)} needs {', '.join(missing) or 'a day as until'}")
        found.append(Waiver(**{key: _plain(value) for key, value in entry.items()}))
    return found


def _plain(value: Any) -> Any:
    return value if isinstance(value, datetime.date) else " ".join(str(value).split())


def judge(
    findings: Sequence[Finding], waivers: Sequence[Waiver], today: datetime.date, *, looked_at: Sequence[str]
) -> list[str]:
    """What is wrong, a line each: findings without a waiver, waivers that expired, last too long, or excuse nothing.

    Args:
        findings: what the tools found.
        waivers: what is excused.
        today: the day of the run.
        looked_at: the kinds for which everything was looked at, so that a waiver which excuses nothing is known to be
            of no use.
    """
    problems = [
        f"{finding.check} {finding.resource}: {finding.what}"
        for finding in findings
        if not any(waiver.excuses(finding) for waiver in waivers)
    ]
    for waiver in waivers:
        name = f"waiver {waiver.check} {waiver.resource}"
        if waiver.until < today:
            problems.append(f"{name}: expired on {waiver.until}. Mend the finding, or say anew why it may stay")
        elif waiver.until > today + datetime.timedelta(days=LONGEST_DAYS):
            problems.append(f"{name}: lasts until {waiver.until}. Set until to a day within {LONGEST_DAYS} days")
        if waiver.kind in looked_at and not any(waiver.excuses(finding) for finding in findings):
            problems.append(f"{name}: excuses nothing. Remove it")
    return problems
