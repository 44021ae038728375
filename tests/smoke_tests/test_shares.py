"""Fractions: what is meant is taken, and what could mean two things is refused."""

import pytest

from smoke_tests import verify
from smoke_tests.benchmark.__main__ import main
from smoke_tests.shares import share

OPTIONS = ("slowdown", "tail-slowdown", "cost-increase", "cold-start-slowdown", "success-rate-drop")


@pytest.mark.parametrize(
    ("text", "value"), [("0.1", 0.1), ("10%", 0.1), ("0", 0.0), ("1", 1.0), ("250%", 2.5), (0.25, 0.25)]
)
def test_a_fraction_and_a_percentage_are_taken(text: object, value: float) -> None:
    assert share(text) == pytest.approx(value)


@pytest.mark.parametrize("text", ["10", "1.5", "-0.1", "-10%", "nan", "inf", "ten", "", "%", "1001%"])
def test_everything_else_says_what_to_set(text: str) -> None:
    with pytest.raises(ValueError, match=r"must be a fraction, for example 0\.1 for 10%"):
        share(text)


@pytest.mark.parametrize("option", OPTIONS)
def test_ten_is_refused_by_each_option_of_each_command(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    for command, given in ((main, ["compare", "a.json", "b.json"]), (verify.main, ["--stack", "dev"])):
        with pytest.raises(SystemExit) as ended:
            command([*given, f"--max-{option}", "10"])
        assert ended.value.code == 2
        assert (
            f"--max-{option}: '10' must be a fraction, for example 0.1 for 10% (10% is 0.1)" in capsys.readouterr().err
        )
