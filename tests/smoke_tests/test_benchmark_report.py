"""The report: one page, everything escaped, nothing fetched, and right in a real browser."""

import re
import shutil
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Error, sync_playwright

from smoke_tests.benchmark.__main__ import main
from smoke_tests.benchmark.record import Record, write_record
from smoke_tests.benchmark.report.page import page
from smoke_tests.benchmark.report.plot import Axis, axis, short
from tests.smoke_tests.benchmark_records import measurement, record

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
# In a container there is no user namespace to make a sandbox in; the rest keeps it from calling its maker.
BROWSER_OPTIONS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip
EVIL = '"><script>document.title="owned"</script><img src=x onerror="document.title=1">&amp;\'${7*7}'
COST = {"usd_per_hour": 1.2, "usd_per_million_input_tokens": 0.1, "usd_per_million_output_tokens": 0.4, "usd_per_million_total_tokens": 0.2}  # fmt: skip
DAILY = COST | {"pattern": "8 h a day", "busy_hours": 8, "active_hours": 8.2, "idle_hours": 15.8, "cold_starts": 1, "usd_per_day": 12.0}  # fmt: skip
PRICES = {"usd_per_hour_active": 1.2, "usd_per_hour_idle": 0.1, "scale_down_seconds": 600, "source": "the outputs of stack dev", "output_to_input_price": 4.0}  # fmt: skip
COLD = {"seconds_to_first_token": 130.0, "ledger_seconds": 129.0, "phases": [
    {"phase": "instance+image", "seconds": 80.0, "source": "ecs"}, {"phase": "ready", "seconds": 49.0, "source": "health"},
]}  # fmt: skip


def whole(**changes: Any) -> Record:
    """A record with all there can be in one."""
    points = [
        measurement(
            {"mode": "closed", "concurrency": at_once}, output_throughput=at_once * 90.0, p99_e2el_ms=900.0 + at_once
        )
        | {"cost": COST | {"with_idle_hours": DAILY}}
        for at_once in (1, 4, 16)
    ]
    points.append(measurement({"mode": "open", "request_rate": 2.5}, completed=2, failed=1, success_rate=2 / 3))
    points[-1]["failures"] = {"timeout": {"count": 1, "example": "no whole answer within 600 s"}}
    return record(*points, prices=PRICES, cold_start=COLD, **changes)


class Outside(HTMLParser):
    """Collects what would make a browser ask somebody, or run something."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in (
            "script",
            "link",
            "img",
            "iframe",
            "object",
            "embed",
            "video",
            "audio",
            "form",
            "base",
            "use",
            "image",
        ):
            self.found.append(tag)
        self.found += [
            name for name, _ in attrs if name in ("src", "href", "srcset", "action", "style") or name.startswith("on")
        ]


def outside(text: str) -> list[str]:
    parser = Outside()
    parser.feed(text)
    return parser.found + re.findall(r"url\(|@import|https?://(?!127)\S+", text)


def test_the_page_needs_nothing_but_itself() -> None:
    text = page([whole()])
    assert outside(text) == []
    assert len(text) < 100_000
    assert outside("<img src=x>") == ["img", "src"]  # known bad


def test_everything_that_came_from_elsewhere_is_escaped() -> None:
    deployment = dict.fromkeys(
        ("model", "stack", "endpoint", "gpu", "region", "instance_type", "engine_version", "runs_on"), EVIL
    )
    evil = whole(deployment=deployment | {"engine_arguments": [EVIL], "config": {EVIL: EVIL}})
    failing = measurement(failed=1) | {"failures": {EVIL: {"count": 1, "example": EVIL}}}
    failing["samples"]["failure"][2] = EVIL
    failing["client"]["warning"] = EVIL
    phases = [{"phase": EVIL, "seconds": 1.0, "source": EVIL}]
    slos = {EVIL: 1.0}
    data = {"dataset": {"name": EVIL, "sha256": EVIL, "entries": 1}}
    others = record(
        failing, deployment=deployment, workload=data, cold_start={"seconds_to_first_token": 1.0, "phases": phases}, goodput_slos_ms=slos,
        prices=PRICES | {"source": EVIL},
    )  # fmt: skip
    for text in (page([evil]), page([others]), page([evil, others])):
        assert outside(text) == []
        assert "<script" not in text
        assert "&lt;script" in text


def test_a_page_says_what_was_measured_and_how() -> None:
    text = page([whole(deployment={"stand_in": True, "engine_arguments": ["--max-num-seqs", "8"]})]).replace(
        "<wbr>", ""
    )
    for told in (
        "stand-in model", "16 at once", "2.5 requests/s", "no coordinated omission", "Cost against utilisation", "Throughput against latency",
        "Time to first token", "Timeline", "Cold start", "--max-num-seqs 8", "1 requests failed: timeout", "the outputs of stack dev",
        "8 h a day busy, $12.00 a day", "instance+image",
    ):  # fmt: skip
        assert told in text, told
    assert "Cost against" not in page([record()])
    assert "interrupted" in page([record(interrupted=True)])
    assert "No request succeeded" in page([record(measurement(completed=0, failed=3, success_rate=0.0))])
    assert page([whole()]) == page([whole()])


@pytest.mark.parametrize(
    ("low", "high", "log"), [(0, 7, False), (0, 12345, False), (0.002, 0.009, True), (3, 40_000, True), (50, 60, True)]
)
def test_axes_have_a_few_round_ticks_within(low: float, high: float, log: bool) -> None:
    ticks = Axis(low, high, "x", log=log).ticks()
    assert 3 <= len(ticks) <= 8
    assert all(low <= tick <= high * (1 + 1e-9) for tick in ticks)
    assert all(len(short(tick)) <= 6 for tick in ticks)


def test_an_axis_of_nothing_and_of_one_value_is_drawn() -> None:
    for values in ([], [0.0], [5.0, 5.0]):
        for log in (False, True):
            made = axis(values, "x", log=log)
            assert made.ticks()
            assert 0.0 <= made.share(values[0] if values else 0.0) <= 1.0


def test_the_command_writes_the_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_record(whole(), tmp_path / "a.json")
    assert main(["report", str(tmp_path / "a.json"), str(tmp_path / "a.json"), "-o", str(tmp_path / "r.html")]) == 0
    assert "2 records" in (tmp_path / "r.html").read_text()
    assert main(["report", str(tmp_path / "a.json"), "-o", str(tmp_path / "none" / "r.html")]) == 2
    assert "cannot write" in capsys.readouterr().err


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    program = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if program is None:
        pytest.skip("no Chromium or Chrome found; install one, and the report is tried in it")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=program, args=list(BROWSER_OPTIONS))
        yield started
        started.close()


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (375, "dark")])
def test_a_browser_shows_it_on_desktop_and_phone(browser: Browser, tmp_path: Path, width: int, scheme: Any) -> None:
    path = tmp_path / "report.html"
    name = "organisation/" + "a-very-long-model-name-" * 6
    path.write_text(page([whole(deployment={"model": name, "stack": EVIL, "engine_arguments": ["--flag"] * 40})]))
    context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)
    asked: list[str] = []
    told: list[str] = []
    context.on("request", lambda request: asked.append(request.url))
    shown = context.new_page()
    shown.on("console", lambda message: told.append(message.text))
    shown.on("pageerror", lambda error: told.append(str(error)))
    shown.goto(path.as_uri())
    assert (asked, told) == ([path.as_uri()], [])
    assert shown.title() == f"Benchmark of {name}"
    assert shown.evaluate("document.documentElement.scrollWidth") == width
    # Every plot is there for the eye and for a screen reader, within the page, and its words lie within it.
    plots = shown.get_by_role("img")
    assert plots.count() == 6
    assert plots.evaluate_all(OUTSIDE) == []
    # Dark is dark and light is light, and what is written can be read on it.
    assert shown.evaluate(CONTRAST) >= 4.5
    assert shown.evaluate("getComputedStyle(document.body).backgroundColor") == {"light": "rgb(246, 247, 249)", "dark": "rgb(14, 18, 24)"}[scheme]  # fmt: skip
    shown.get_by_text("What was measured").click()
    assert shown.get_by_role("row", name="engine arguments").is_visible()
    assert shown.evaluate("document.documentElement.scrollWidth") == width
    with pytest.raises(Error):  # known bad: the page's own policy refuses a script
        shown.add_script_tag(content="document.title = 'owned'")
    context.close()


# Plots that are not wholly in the page, words that are not wholly in their plot, and names of axes that lie on a number.
OUTSIDE = """plots => plots.flatMap(plot => {
  const box = plot.getBoundingClientRect();
  const bad = box.left < 0 || box.right > innerWidth || box.height < 60 ? [plot.id || 'plot'] : [];
  const ticks = [...plot.querySelectorAll('.tick')].map(tick => [tick.getBoundingClientRect(), tick.textContent]);
  for (const name of plot.querySelectorAll('.name')) {
    const own = name.getBoundingClientRect();
    for (const [tick, text] of ticks)
      if (own.left < tick.right && tick.left < own.right && own.top < tick.bottom && tick.top < own.bottom) bad.push(name.textContent + ' on ' + text);
  }
  return bad.concat([...plot.querySelectorAll('text')].filter(text => {
    const inner = text.getBoundingClientRect(); return inner.left < box.left - 1 || inner.right > box.right + 1 || inner.top < box.top - 1;
  }).map(text => text.textContent));
})"""
CONTRAST = """() => {
  const numbers = text => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map(v => v / 255).map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = node => { while (node) { const c = numbers(getComputedStyle(node).backgroundColor); if (c[3] !== 0) return c; node = node.parentElement; } };
  const ratio = node => { const style = getComputedStyle(node); const front = numbers(node instanceof SVGElement ? style.fill : style.color);
    const [a, b] = [light(front), light(behind(node))]; return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05); };
  return Math.min(...[...document.querySelectorAll('h1, h2, p, td, th, li, summary, .badge, svg text')].map(ratio));
}"""
