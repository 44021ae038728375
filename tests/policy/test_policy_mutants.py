"""The faults of policy/mutants still match the code, and the script that inserts them works."""

from pathlib import Path

import pytest

from policy.mutants import Mutant, load_mutants, parse

MUTANTS = load_mutants()
ONE = "a.py: a wrong number\n- 1\n+ 2"


def test_there_are_enough_and_none_is_there_twice() -> None:
    assert len(MUTANTS) >= 40
    assert len({(m.file, m.old, m.new) for m in MUTANTS}) == len(MUTANTS)
    assert len({(m.file, m.breaks) for m in MUTANTS}) == len(MUTANTS)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda m: f"{Path(m.file).name} {m.breaks}")
def test_a_fault_fits_the_code(mutant: Mutant) -> None:
    assert mutant.applied()


def test_a_fault_that_no_longer_fits_is_an_error(tmp_path: Path) -> None:
    (mutant,) = parse(ONE)
    for text, times in (("x = 3", 0), ("x = 1 + 1", 2)):
        (tmp_path / "a.py").write_text(text)
        with pytest.raises(ValueError, match=f"occurs {times} times"):
            mutant.applied(tmp_path)
    (tmp_path / "a.py").write_text("x = 1")
    assert mutant.applied(tmp_path) == "x = 2"


def test_a_fault_that_is_not_python_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("x = 1")
    with pytest.raises(ValueError, match="no longer valid Python"):
        Mutant("a.py", "nothing", "1", "(").applied(tmp_path)


def test_several_lines_and_none() -> None:
    (mutant,) = parse("a.py: two lines: one of them\n- first\n-   second\n+")
    assert (mutant.breaks, mutant.old, mutant.new) == ("two lines: one of them", "first\n  second", "")
    for text in ("a.py: no new text\n- 1", "a.py: no old text\n+ 1", "no heading\n- 1\n+ 2"):
        with pytest.raises(ValueError, match="must have the form `file"):
            parse(text)
