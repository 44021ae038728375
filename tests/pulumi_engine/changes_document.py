"""docs/changes.md: read, compared and written, a row for every setting on every kind of stack."""

from __future__ import annotations

import fcntl
from pathlib import Path

from tests.pulumi_engine.alternatives import ALTERNATIVES, JUSTIFIED, STACKS, alternative
from tests.pulumi_engine.changes import Row
from tests.pulumi_engine.scene import ROOT

DOCUMENT = ROOT / "docs" / "changes.md"
NAMES = {"dev": "dev", "domain": "with a domain", "vpc": "in an existing VPC"}
HEADING = """# What changing a setting does to a deployed stack

The tests change each setting on three deployed stacks, and change it back, with Pulumi's own engine: `dev` (Pulumi.dev.yaml: a
network of its own, an internal load balancer), a stack with a `domain`, and one in an existing VPC. A second `pulumi up` after
each change must change nothing. A setting that acts only together with another is changed on a stack that has the other.
`tests/pulumi_engine/test_changes.py` checks this page; `UPDATE_DOCS=1 make test-pulumi-all` writes it.

"Back" says what users notice when the setting is changed back, if that differs.

"""
COLUMNS = "| Setting | Changed to | Stack | What users of the endpoint notice | Steps |\n|---|---|---|---|---|\n"
REPLACED = """
## What is replaced, and why

A load balancer, file system, access point, secret or service is replaced or deleted by these settings alone:

"""
UNTRIED = """
## Not run yet

These changes have no row in the table. `UPDATE_DOCS=1 make test-pulumi-all` runs them and adds their rows.

"""
Rows = dict[tuple[str, str], Row]


def parse(text: str) -> Rows:
    """The document's rows by setting and stack."""
    by_name = {name: stack for stack, name in NAMES.items()}
    rows: Rows = {}
    for line in text.splitlines():
        cells = [cell.strip().replace("\\|", "|") for cell in line.replace("\\|", "\0").strip("|").split("|")]
        if not line.startswith("| `") or len(cells) != 5:
            continue
        key, value, stacks, notice, steps = (cell.replace("\0", "|") for cell in cells)
        for name in stacks.split(", "):
            rows[key.strip("`"), by_name[name]] = Row(value.strip("`"), notice, steps)
    return rows


def render(rows: Rows) -> str:
    """The document of these rows, in the order of the settings; stacks of which the same is said share a row."""
    lines = []
    for key in ALTERNATIVES:
        said: dict[Row, list[str]] = {}
        for stack in STACKS:
            if row := rows.get((key, stack)):
                said.setdefault(row, []).append(NAMES[stack])
        for row, stacks in said.items():
            cells = (f"`{key}`", f"`{row.value}`", ", ".join(stacks), row.notice, row.steps)
            lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n")
    reasons = "".join(
        f"- `{key}` ({', '.join(sorted(loss.kinds))}): {loss.reason}.\n" for key, loss in JUSTIFIED.items()
    )
    return HEADING + COLUMNS + "".join(lines) + REPLACED + reasons + _untried(rows)


def _untried(rows: Rows) -> str:
    lacking = missing(rows)
    lines = [
        f"- {NAMES[stack]}: {', '.join(f'`{key}`' for key, on in lacking if on == stack)}.\n"
        for stack in STACKS
        if any(on == stack for _, on in lacking)
    ]
    return UNTRIED + "".join(lines) if lines else ""


def missing(rows: Rows) -> list[tuple[str, str]]:
    """Settings and stacks that a change is possible on and no row tells of."""
    return [
        (key, stack) for key in ALTERNATIVES for stack in STACKS if alternative(key, stack) and (key, stack) not in rows
    ]


def record(key: str, stack: str, row: Row, path: Path = DOCUMENT) -> None:
    """Put a row into the document, while other workers put theirs."""
    with path.open("a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        text = render({**parse(file.read()), (key, stack): row})
        file.truncate(0)
        file.write(text)
