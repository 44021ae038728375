"""docs/clients.md: the matrix that a run found, and a snippet for each client that the run has tried."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tests.clients_matrix.matrix import CLIENTS, FOLDER, ROOT, Client

PAGE = ROOT / "docs" / "clients.md"
BEGIN, END = "<!-- written by make test-clients -->\n", "<!-- end -->\n"
COLUMNS = {
    "chat": "Chat",
    "stream": "Stream",
    "models": "Models",
    "errors": "Errors",
    "broken": "Broken stream",
    "retry": "429, retry",
    "cancel": "Cancel",
    "cold": "Cold start",
    "more": "More",
    "snippet": "Snippet",
}
LANGUAGES = {".py": "python", ".mjs": "javascript", ".sh": "bash", ".java": "java", ".html": "html"}
MARKS = {"passed": "yes", "failed": "**no**", "skipped": "n/a"}


@dataclass
class Results:
    """What a run found: client -> column -> (outcome, reason)."""

    versions: dict[str, str] = field(default_factory=dict)
    cells: dict[str, dict[str, tuple[str, str]]] = field(default_factory=dict)

    def add(self, client: str, column: str, outcome: str, reason: str) -> None:
        """One test's outcome: passed, failed or skipped."""
        self.cells.setdefault(client, {})[column] = (outcome, reason)

    def load(self, document: dict[str, Any]) -> None:
        """What an earlier run found, of the clients that still exist."""
        names = {client.name for client in CLIENTS}
        self.versions |= {name: version for name, version in document["versions"].items() if name in names}
        for client, cells in document["clients"].items():
            if client in names:
                self.cells[client] = {column: (cell[0], cell[1]) for column, cell in cells.items()}

    @property
    def whole(self) -> bool:
        """Whether every cell of the matrix is there."""
        return all(set(COLUMNS) <= self.cells.get(client.name, {}).keys() for client in CLIENTS)

    def document(self) -> dict[str, Any]:
        """For a program."""
        return {"versions": self.versions, "clients": self.cells}


def table(results: Results) -> str:
    """The matrix, and what is behind each cell that is not a yes."""
    lines = [
        f"| Client | {' | '.join(COLUMNS.values())} |",
        f"|---|{'---|' * len(COLUMNS)}",
    ]
    notes = []
    for client in CLIENTS:
        cells = results.cells[client.name]
        marks = [MARKS[cells[column][0]] for column in COLUMNS]
        lines.append(f"| [{client.name}](#{_anchor(client)}) | {' | '.join(marks)} |")
        notes += [
            f"- {client.name}, {COLUMNS[column].lower()}: {cells[column][1].splitlines()[0][:300]}"
            for column in COLUMNS
            if cells[column][0] == "failed"
        ]
    return "\n".join([*lines, *(["", "What failed:", "", *notes] if notes else []), ""])


def _anchor(client: Client) -> str:
    return "".join(
        letter for letter in client.name.lower().replace(" ", "-") if letter.isalnum() or letter in "-_."
    ).replace(".", "")


def section(client: Client, version: str, shown: set[str]) -> str:
    """A client's versions, notes and snippet. A snippet of several clients is shown once."""
    text = f"### {client.name}\n\n{version}. {client.notes}\n"
    if tried := [*client.more, *client.refused]:
        text += f"\nAlso tried: {', '.join(name.replace('_', ' ') for name in tried)}.\n"
    if client.snippet not in shown:
        shown.add(client.snippet)
        path = FOLDER / "snippets" / client.snippet
        text += f"\n```{LANGUAGES[path.suffix]}\n{path.read_text().strip()}\n```\n"
    return text


def generated(results: Results) -> str:
    """All of the page that a run writes."""
    shown: set[str] = set()
    sections = [section(client, results.versions.get(client.name, "not started"), shown) for client in CLIENTS]
    return f"{table(results)}\n## Snippets\n\n{chr(10).join(sections)}"


def with_results(text: str, results: Results) -> str:
    """The page with what this run found."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{generated(results)}\n{END}{after}"
