"""docs/clients.md is written by `make test-clients`; here it is held to the snippets, the pins and the list of clients."""

import re

from tests.clients_matrix.matrix import CLIENTS, FOLDER, ROOT
from tests.clients_matrix.page import BEGIN, COLUMNS, PAGE


def test_the_page_shows_every_client_and_none_that_fails() -> None:
    table = PAGE.read_text().split(BEGIN)[1].split("\n## ")[0]
    rows = [line.strip("| ").split(" | ") for line in table.splitlines() if line.startswith("| [")]
    assert [row[0].partition("]")[0].removeprefix("[") for row in rows] == [client.name for client in CLIENTS]
    for row in rows:
        assert len(row) == 1 + len(COLUMNS)
        assert set(row[1:]) <= {"yes", "n/a"}, f"{row}; see the page, and run make test-clients"


def test_the_page_shows_the_snippets_that_were_run() -> None:
    page = PAGE.read_text()
    for path in (FOLDER / "snippets").iterdir():
        assert path.read_text().strip() in page, f"{path.name} has changed; run make test-clients"
        assert path.name in {client.snippet for client in CLIENTS}, f"{path.name} is no client's"


def test_the_page_tells_the_versions_that_are_installed() -> None:
    page = PAGE.read_text()
    pins = "".join(path.read_text() for path in (ROOT / "requirements").glob("clients-*.txt"))
    for name, version in re.findall(r"^(openai|anthropic|litellm|langchain-openai)==(\S+)", pins, re.MULTILINE):
        assert f"{name} {version}" in page, f"{name} {version} has not been tried; run make test-clients"
