"""Findings of the policy tools, and waivers for accepted findings."""

from __future__ import annotations

import datetime
import fnmatch
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

WAIVERS = Path(__file__).with_name("waivers.yaml")
LONGEST_DAYS = 400  # each waiver must be reviewed at least once a year


@dataclass(frozen=True)
class Finding:
    """One rule that one resource violates.

    Attributes:
        kind: what was checked: plan or dockerfile.
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
    """Accepts violations of one rule by resources that match a pattern (``*`` and ``?``), with a reason, until a date."""

    kind: str
    check: str
    resource: str
    reason: str
    until: datetime.date

    def excuses(self, finding: Finding) -> bool:
        """Whether this waiver applies to the finding."""
        return (self.kind, self.check) == (finding.kind, finding.check) and fnmatch.fnmatchcase(
            finding.resource, self.resource
        )


def load_waivers(path: Path = WAIVERS) -> list[Waiver]:
    """The waivers of a file.

    Raises:
        ValueError: a waiver lacks a field, or a field is empty.
    """
    found = []
    for entry in yaml.safe_load(path.read_text()) or []:
        missing = [key for key in ("kind", "check", "resource", "reason", "until") if not entry.get(key)]
        if missing or not isinstance(entry["until"], datetime.date):
            raise ValueError(
                f"{path.name}: {entry.get('check', entry)} requires {', '.join(missing) or 'a date as until'}"
            )
        found.append(Waiver(**{key: _plain(value) for key, value in entry.items()}))
    return found


def _plain(value: Any) -> Any:
    return value if isinstance(value, datetime.date) else " ".join(str(value).split())


def judge(
    findings: Sequence[Finding], waivers: Sequence[Waiver], today: datetime.date, *, looked_at: Sequence[str]
) -> list[str]:
    """The problems, one line each: findings without a waiver, and waivers that expired, last too long, or are unused.

    Args:
        findings: the findings of the tools.
        waivers: the accepted findings.
        today: the date of the run.
        looked_at: the kinds that were checked completely, so that an unused waiver of these kinds is a problem.
    """
    problems = [
        f"{finding.check} {finding.resource}: {finding.what}"
        for finding in findings
        if not any(waiver.excuses(finding) for waiver in waivers)
    ]
    for waiver in waivers:
        name = f"waiver {waiver.check} {waiver.resource}"
        if waiver.until < today:
            problems.append(f"{name}: expired on {waiver.until}. Fix the finding, or set a new reason and date")
        elif waiver.until > today + datetime.timedelta(days=LONGEST_DAYS):
            problems.append(f"{name}: lasts until {waiver.until}. Set until to a date within {LONGEST_DAYS} days")
        if waiver.kind in looked_at and not any(waiver.excuses(finding) for finding in findings):
            problems.append(f"{name}: matches no finding. Remove it")
    return problems
