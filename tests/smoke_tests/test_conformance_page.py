"""docs/conformance.md lists what each conformance test checks and the faults that it catches. `UPDATE_DOCS=1` updates it."""

import ast
import os
from pathlib import Path

from tests.smoke_tests.faults import FAULTS

REPOSITORY = Path(__file__).resolve().parents[2]
PAGE = REPOSITORY / "docs" / "conformance.md"
BEGIN, END = "<!-- made by tests/smoke_tests/test_conformance_page.py -->\n", "<!-- end -->\n"


def claims(path: Path) -> dict[str, str]:
    """Return the docstring of each test in a file."""
    functions = [node for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef)]
    return {
        function.name: (ast.get_docstring(function) or "").replace("\n", " ")
        for function in functions
        if function.name.startswith("test_")
    }


def table() -> str:
    lines = ["| Test | Checks that | Faults that it catches |", "|---|---|---|"]
    for path in sorted((REPOSITORY / "smoke_tests").glob("test_*.py")):
        for name, claim in claims(path).items():
            caught = [
                fault
                for fault, told in FAULTS.items()
                if told.file == path.name and any(test.partition("[")[0] == name for test in told.tests)
            ]
            faults = ", ".join(f"`{fault}`" for fault in caught)
            lines.append(f"| `{path.stem}::{name}` | {claim} | {faults} |")
    return "\n".join(lines) + "\n"


def test_every_test_says_what_it_claims() -> None:
    for path in (REPOSITORY / "smoke_tests").glob("test_*.py"):
        for name, claim in claims(path).items():
            assert claim.endswith("."), f"{path.name}::{name} claims nothing"


def test_the_page_is_as_the_tests_are() -> None:
    before, _, rest = PAGE.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    page = f"{before}{BEGIN}{table()}{END}{after}"
    if os.environ.get("UPDATE_DOCS"):
        PAGE.write_text(page)
    assert PAGE.read_text() == page
