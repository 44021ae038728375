"""The chat page of the local gateway, in a real browser, and nowhere else."""

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from playwright.sync_api import Browser, Error, Page, expect

from tests.smoke_tests.fake_openai_server import KEY, MODEL, FakeOpenAIServer, answer_tokens, serving
from tests.smoke_tests.gateway_process import gateway, wait_until
from tests.smoke_tests.test_benchmark_report import CONTRAST

ON = {"GATEWAY_CHAT_PAGE": "1"}
CONTRAST_OF_THE_PAGE = CONTRAST.replace(
    "h1, h2, p, td, th, li, summary, .badge, svg text", "h1, h2, p, label, button, textarea, input, article div"
)


@pytest.fixture
def server() -> Iterator[FakeOpenAIServer]:
    with serving(FakeOpenAIServer(token_seconds=0.005)) as started:
        yield started


@pytest.fixture
def replicas(tmp_path: Path, server: FakeOpenAIServer) -> Path:
    server.api_key = None
    path = tmp_path / "replicas"
    path.write_text(f"{server.endpoint}\n")
    (tmp_path / "keys").write_text(KEY)
    return path


def opened(browser: Browser, url: str, **options: Any) -> tuple[Page, list[str]]:
    context = browser.new_context(**options)
    page = context.new_page()
    asked: list[str] = []
    context.on("request", lambda request: asked.append(request.url))
    page.goto(url)
    return page, asked


def ask(page: Page, text: str) -> None:
    page.get_by_label("Message").fill(text)
    page.get_by_label("Message").press("Enter")


@pytest.mark.parametrize(
    ("name", "width", "height", "scheme"), [("desktop", 1280, 800, "light"), ("phone", 375, 667, "dark")]
)
def test_a_person_chats_in_the_browser(
    browser: Browser, replicas: Path, server: FakeOpenAIServer, name: str, width: int, height: int, scheme: Any
) -> None:
    with gateway(replicas, keys=f"file:{replicas.with_name('keys')}", key=KEY, **ON) as endpoint:
        page, asked = opened(
            browser, f"{endpoint}/#key={KEY}", viewport={"width": width, "height": height}, color_scheme=scheme
        )
        told: list[str] = []
        page.on("console", lambda message: told.append(message.text))
        page.on("pageerror", lambda error: told.append(str(error)))
        expect(page.get_by_role("heading", level=1)).to_have_text(MODEL)
        assert KEY not in page.url
        assert page.get_by_label("API key").input_value() == KEY
        ask(page, "Hello <b>you</b>!")
        expect(page.get_by_text(re.compile(r"tokens/s, first token after [\d.]+ s"))).to_be_visible()
        ask(page, "More")
        expect(page.get_by_text(re.compile("tokens/s"))).to_have_count(2)
        first, second = (body["messages"] for body in server.bodies)
        assert [m["content"] for m in second] == [first[0]["content"], "".join(answer_tokens(server.bodies[0])), "More"]
        assert page.locator("main b").count() == 0
        assert page.evaluate("document.documentElement.scrollWidth") == width
        assert page.evaluate(CONTRAST_OF_THE_PAGE) >= 4.5
        assert page.get_by_role("button", name="Send").bounding_box()["height"] >= 44  # type: ignore[index]
        assert page.get_by_role("log").is_visible()
        assert {url.removeprefix(endpoint) for url in asked} <= {"/", "/info", "/v1/chat/completions", "/favicon.ico"}
        assert not [line for line in told if "favicon" not in line and "404" not in line]
        if shots := os.environ.get("SCREENSHOTS"):
            page.screenshot(path=f"{shots}/chat-{name}.png")
        page.reload()
        assert page.get_by_label("API key").input_value() == KEY, "kept in this tab"
        page.context.close()


def test_the_stand_in_is_named_for_the_whole_conversation(browser: Browser, replicas: Path) -> None:
    info = json.dumps({"model": MODEL, "stand_in": True})
    with gateway(replicas, keys=f"file:{replicas.with_name('keys')}", key=KEY, GATEWAY_INFO=info, **ON) as endpoint:
        page, _ = opened(browser, f"{endpoint}/#key={KEY}")
        ask(page, "Hello")
        expect(page.get_by_text(re.compile("tokens/s"))).to_have_count(1)
        expect(page.get_by_text("This is the stand-in")).to_be_visible()
        page.get_by_role("button", name="New chat").click()
        expect(page.get_by_text("This is the stand-in")).to_be_visible()
        page.context.close()


@pytest.mark.parametrize("event", [{"isComposing": True}, {"keyCode": 229}], ids=["standard", "Safari"])
def test_the_enter_that_ends_a_composition_sends_nothing(
    browser: Browser, replicas: Path, server: FakeOpenAIServer, event: dict[str, Any]
) -> None:
    with gateway(replicas, keys=f"file:{replicas.with_name('keys')}", key=KEY, **ON) as endpoint:
        page, _ = opened(browser, f"{endpoint}/#key={KEY}")
        expect(page.get_by_role("heading", level=1)).to_have_text(MODEL)
        page.get_by_label("Message").fill("にほんご")
        page.get_by_label("Message").dispatch_event("keydown", {"key": "Enter", **event})
        expect(page.locator("article")).to_have_count(0)
        page.get_by_label("Message").press("Enter")
        expect(page.locator("article")).to_have_count(2)
        page.context.close()


def test_a_wrong_key_a_stop_and_a_cold_engine_are_said(
    browser: Browser, replicas: Path, server: FakeOpenAIServer
) -> None:
    server.token_seconds = 0.05
    with gateway(replicas, keys=f"file:{replicas.with_name('keys')}", key=KEY, **ON) as endpoint:
        page, _ = opened(browser, endpoint)
        expect(page.get_by_role("heading", level=1)).to_have_text(MODEL)
        page.get_by_label("API key").fill("sk-wrong")
        ask(page, "Hello")
        expect(page.get_by_role("alert")).to_contain_text("API key")
        page.get_by_label("API key").fill(KEY)
        page.get_by_role("button", name="New chat").click()
        expect(page.get_by_role("alert")).to_have_count(0)
        ask(page, "Hello")
        expect(page.locator("article.assistant div").last).not_to_be_empty()
        page.get_by_role("button", name="Stop").click()
        expect(page.get_by_text("stopped")).to_be_visible()
        replicas.write_text("")
        wait_until(lambda: httpx2.get(f"{endpoint}/info").json()["replicas"]["ready"] == 0, "no replica")
        ask(page, "Again")
        expect(page.get_by_role("status")).to_contain_text("Waking the engine")
        replicas.write_text(f"{server.endpoint}\n")
        page.get_by_role("button", name="Stop").click()
        page.context.close()


def test_the_page_holds_no_key_and_runs_nothing_but_itself(browser: Browser, replicas: Path) -> None:
    with gateway(replicas, keys=f"file:{replicas.with_name('keys')}", key=KEY, **ON) as endpoint:
        answer = httpx2.get(endpoint)
        assert httpx2.head(endpoint).content == b""
        page, _ = opened(browser, endpoint)
        with pytest.raises(Error):  # known bad: the page's own policy refuses another script
            page.add_script_tag(content="document.title = 'owned'")
        assert page.title() != "owned"
        page.context.close()
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert KEY not in answer.text
    assert not re.findall(r"https?://|url\(|@import|\bsrc=|innerHTML|eval\(", answer.text)
    policy = answer.headers["content-security-policy"]
    for rule in (
        "default-src 'none'",
        "connect-src 'self'",
        "frame-ancestors 'none'",
        "base-uri 'none'",
        "form-action 'none'",
    ):
        assert rule in policy
    assert "unsafe" not in policy


def test_without_the_setting_there_is_no_page(replicas: Path) -> None:
    with gateway(replicas) as endpoint:
        assert httpx2.get(endpoint).status_code == 404
