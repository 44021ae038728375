"""The report: one page, everything escaped, nothing fetched, and right in a real browser."""

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Error

from smoke_tests.benchmark.__main__ import main
from smoke_tests.benchmark.record import Record, write_record
from smoke_tests.benchmark.report.page import page
from smoke_tests.benchmark.report.plot import Axis, axis, short
from smoke_tests.benchmark.table import sweep_table
from tests.smoke_tests.benchmark_records import measurement, record

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


@pytest.mark.parametrize("count", [1, 2, 6])
def test_nothing_is_cut_and_no_words_overlap_at_any_width(browser: Browser, tmp_path: Path, count: int) -> None:
    path = tmp_path / "report.html"
    path.write_text(page([named(number) for number in range(count)]))
    shown = browser.new_page()
    shown.goto(path.as_uri())
    shown.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
    for width in WIDTHS:
        shown.set_viewport_size({"width": width, "height": 900})
        assert shown.evaluate(CUT) == [], width
        assert shown.evaluate(OVERLAPS) == [], width
    assert shown.evaluate(f"document.querySelector('main').style.width = '150px', ({CUT})()")  # known bad
    shown.evaluate("document.querySelectorAll('.note').forEach(note => note.setAttribute('x', 200))")
    assert shown.evaluate(OVERLAPS)  # known bad
    shown.close()


def named(number: int) -> Record:
    """A record of a stack without a name: its model is its name, and a long one. All curves lie on one another."""
    config = {"a-setting-with-a-long-name" * 3: "and-its-value" * 9}
    model = "organisation/" + "a-very-long-model-name-" * 6
    points = [
        measurement(
            {"mode": "open", "request_rate": rate, "burstiness": 0.25},
            output_throughput=rate * 900, total_token_throughput=123_456_789.0, p99_e2el_ms=123_456.0,
        )
        | {"cost": COST | {"with_idle_hours": DAILY}}
        for rate in (1, 1.1, 4, 16, 100)
    ]  # fmt: skip
    points[0]["failures"] = {"x" * 90: {"count": 1, "example": "http://example/" + "y" * 200}}
    deployment = {
        "model": model,
        "endpoint": "http://" + "a" * 120 + ":1",
        "config": config,
        "engine_arguments": ["-" * 200],
    }
    date = f"2026-11-2{number}T12:00:00+00:00"
    return record(
        *points, deployment=deployment, prices=PRICES, cold_start=COLD, goodput_slos_ms={"ttft": 300.0}, date=date
    )


@pytest.mark.parametrize("count", [2, 6])
def test_every_record_is_labelled_in_every_plot_and_table(count: int) -> None:
    text = page([named(number) for number in range(count)]).replace("<wbr>", "")
    for number in range(1, count + 1):
        name = f"{number}: organisation/"
        assert f">{number}: 100 requests/s (burstiness 0.25)</text>" in text  # throughput
        assert f">{number}</text>" in text  # time to first token
        assert f">{number}: $0.40</text>" in text  # cost
        assert f"Timeline of record {name}" in text
        assert f"Cold start of record {name}" in text
        assert f"scope=rowgroup>{name}" in text  # every load
        assert text.count(f"</span>{name}") == 3  # legends
        assert f"What was measured: {name}" in text


def test_the_sweeps_columns_line_up_at_a_terminal() -> None:
    lines = sweep_table(named(0)).splitlines()[1:]
    assert len({len(line) for line in lines}) == 1, lines


WIDTHS = (
    320,
    344,
    360,
    390,
    420,
    480,
    521,
    600,
    700,
    768,
    860,
    861,
    900,
    1000,
    1024,
    1100,
    1180,
    1280,
    1440,
    1920,
    2560,
)
# Words that stick out of the page or of what they are in, boxes that scroll or cut, and words outside of their plot.
CUT = """() => {
  const bad = [];
  if (document.documentElement.scrollWidth > innerWidth) bad.push('page');
  for (const node of document.querySelectorAll('main *')) {
    if (node.closest('svg') || !node.getClientRects().length) continue;
    if (node.clientWidth && node.scrollWidth > node.clientWidth + 1) bad.push(`${node.tagName}.${node.className} ${node.textContent.slice(0, 30)}`);
  }
  for (const text of document.querySelectorAll('svg text')) {
    const box = text.ownerSVGElement.getBoundingClientRect(), own = text.getBoundingClientRect();
    if (own.left < box.left - 1 || own.right > box.right + 1 || own.top < box.top - 1 || own.bottom > box.bottom + 1) bad.push('plot: ' + text.textContent);
  }
  return bad;
}"""
# Pairs of words that lie on one another: each line of each piece of text is measured by itself.
OVERLAPS = """() => {
  const boxes = [], walker = document.createTreeWalker(document.querySelector('main'), NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const node = walker.currentNode;
    if (!node.textContent.trim() || node.parentElement.closest('title, desc')) continue;
    const range = document.createRange(); range.selectNodeContents(node);
    for (const box of range.getClientRects()) if (box.width > 1) boxes.push([box, node]);
  }
  for (const cell of document.querySelectorAll('td')) { // a label that the style puts before a cell has no node
    const label = getComputedStyle(cell, '::before');
    if (label.content !== 'none' && label.display !== 'block') boxes.push([cell.getBoundingClientRect(), cell]);
  }
  boxes.sort((a, b) => a[0].top - b[0].top);
  const bad = [];
  for (let i = 0; i < boxes.length; i++)
    for (let j = i + 1; j < boxes.length && boxes[j][0].top < boxes[i][0].bottom - 2; j++) {
      const [a, one] = boxes[i], [b, other] = boxes[j];
      // Lines of one paragraph touch: a box is as high as its font, ascents and descents included.
      const deep = Math.min(a.bottom, b.bottom) - b.top, across = Math.min(a.right, b.right) - Math.max(a.left, b.left);
      if (deep > 0.3 * Math.min(a.height, b.height) && across > 1) bad.push(one.textContent.slice(0, 40) + ' / ' + other.textContent.slice(0, 40));
    }
  return bad;
}"""
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
