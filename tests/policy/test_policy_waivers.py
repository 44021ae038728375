"""The policy gate: what passes, what fails, and that it detects a tool that no longer finds anything."""

import datetime
from pathlib import Path

import pytest

from policy.check import KNOWN_BAD, MUST_SEE, unseen
from policy.waivers import Finding, Waiver, judge, load_waivers

TODAY = datetime.date(2026, 11, 21)
OPEN = Finding("plan", "CKV_AWS_24", "aws_vpc_security_group_ingress_rule.ssh", "SSH open to the internet")
EXCUSE = Waiver("plan", "CKV_AWS_24", "aws_vpc_security_group_ingress_rule.*", "a bastion", datetime.date(2027, 6, 1))


def wrong(findings: list[Finding], waivers: list[Waiver], today: datetime.date = TODAY) -> list[str]:
    return judge(findings, waivers, today, looked_at=["plan", "dockerfile"])


def test_a_finding_fails_and_a_waiver_excuses_it() -> None:
    assert wrong([OPEN], []) == ["CKV_AWS_24 aws_vpc_security_group_ingress_rule.ssh: SSH open to the internet"]
    assert wrong([OPEN], [EXCUSE]) == []


@pytest.mark.parametrize(
    "other",
    [
        Finding("plan", "CKV_AWS_25", OPEN.resource, "another rule"),
        Finding("plan", OPEN.check, "aws_security_group.ssh", "another resource"),
        Finding("dockerfile", OPEN.check, OPEN.resource, "another kind"),
    ],
)
def test_a_waiver_excuses_its_own_rule_and_resource_only(other: Finding) -> None:
    assert len(wrong([OPEN, other], [EXCUSE])) == 1


def test_an_expired_waiver_fails_although_it_excuses() -> None:
    (problem,) = wrong([OPEN], [EXCUSE], datetime.date(2027, 6, 2))
    assert "expired on 2027-06-01" in problem
    assert wrong([OPEN], [EXCUSE], datetime.date(2027, 6, 1)) == []


def test_a_waiver_that_excuses_nothing_fails_where_everything_was_looked_at() -> None:
    (problem,) = wrong([], [EXCUSE])
    assert "matches no finding" in problem
    assert judge([], [EXCUSE], TODAY, looked_at=["dockerfile"]) == []


def test_a_waiver_for_ever_fails() -> None:
    for_ever = Waiver(EXCUSE.kind, EXCUSE.check, EXCUSE.resource, EXCUSE.reason, datetime.date(2099, 1, 1))
    (problem,) = wrong([OPEN], [for_ever])
    assert "within 400 days" in problem


@pytest.mark.parametrize("lacking", ["reason", "until", "resource"])
def test_a_waiver_without_reason_day_or_resource_is_refused(lacking: str, tmp_path: Path) -> None:
    parts = {"kind": "plan", "check": "X", "resource": "a.*", "reason": "because", "until": "2027-01-01"}
    path = tmp_path / "waivers.yaml"
    path.write_text("- " + "\n  ".join(f"{key}: {value}" for key, value in parts.items() if key != lacking))
    with pytest.raises(ValueError, match=f"X requires {lacking}"):
        load_waivers(path)
    path.write_text("- {kind: plan, check: X, resource: a.b, reason: because, until: soon}")
    with pytest.raises(ValueError, match="a date as until"):
        load_waivers(path)


def test_the_committed_waivers_say_why() -> None:
    waivers = load_waivers()
    assert len({(w.kind, w.check, w.resource) for w in waivers}) == len(waivers)
    for waiver in waivers:
        assert len(waiver.reason.split()) >= 6, waiver
        assert waiver.resource.strip("*"), "a waiver of a rule as a whole"


def test_a_tool_that_goes_blind_is_told() -> None:
    seen = [Finding("plan", check, KNOWN_BAD, "") for check in MUST_SEE]
    assert unseen(seen) == []
    (problem,) = unseen([finding for finding in seen if finding.check != "CKV_AWS_79"])
    assert problem.startswith("CKV_AWS_79 no longer detects IMDSv1")
    elsewhere = [Finding("plan", check, "aws_lb.ours", "") for check in MUST_SEE]
    assert len(unseen(elsewhere)) == len(MUST_SEE)
