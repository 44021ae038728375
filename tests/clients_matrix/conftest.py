"""Fixtures of the matrix, and what becomes of its results."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest

from tests.clients_matrix import page
from tests.clients_matrix.matrix import CLIENTS, INSTALLED, Client
from tests.clients_matrix.program import Program, lay_out
from tests.clients_matrix.stage import Stage

RESULTS = INSTALLED / "results.json"
_results = page.Results()


@pytest.fixture(scope="session")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    lay_out()
    made = Stage(tmp_path_factory.mktemp("stage"))
    yield made
    made.close()


@pytest.fixture(scope="module", params=CLIENTS, ids=lambda client: client.name)
def client(request: pytest.FixtureRequest) -> Client:
    chosen: Client = request.param
    return chosen


@pytest.fixture(scope="module")
def program(client: Client, stage: Stage) -> Iterator[Program]:
    made = Program(client.command(stage.page_origin), stage.base)
    try:
        _results.versions[client.name] = made.ask("version")
        yield made
    finally:
        made.close()


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    found = re.search(r"::test_(\w+)\[(.+)\]$", report.nodeid)
    if found is None or (report.when != "call" and not report.failed and not report.skipped):
        return
    reason = ""
    if report.skipped and isinstance(report.longrepr, tuple):
        reason = report.longrepr[2].removeprefix("Skipped: ")
    elif report.failed:
        crash = getattr(report.longrepr, "reprcrash", None)
        reason = crash.message if crash else str(report.longrepr)
    _results.add(found[2], found[1], report.outcome, reason)


def pytest_sessionstart() -> None:
    """A run of some tests alone rewrites their cells; the others stay as the last run left them."""
    if RESULTS.is_file():
        _results.load(json.loads(RESULTS.read_text()))


def pytest_sessionfinish() -> None:
    if INSTALLED.is_dir() and _results.cells:
        RESULTS.write_text(json.dumps(_results.document(), indent=2) + "\n")
        if _results.whole:
            page.PAGE.write_text(page.with_results(page.PAGE.read_text(), _results))
