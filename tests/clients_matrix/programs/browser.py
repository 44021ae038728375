"""A web page of another origin that uses fetch, in Debian's Chromium. The argument: the page's origin."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

from driver import BASE, serve
from playwright.sync_api import Page, sync_playwright

# In a container there is no user namespace to make a sandbox in; the rest keeps it from calling its maker.
OPTIONS = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking")
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")

FETCH = """
async ({base, path, key, body, most, header, fill}) => {
  if (fill) body.messages[0].content = 'x'.repeat(fill); // megabytes are slow to hand over
  const began = performance.now();
  const options = {headers: {'content-type': 'application/json'}};
  if (key) options.headers[header] = header === 'authorization' ? `Bearer ${key}` : key;
  if (body) { options.method = 'POST'; options.body = JSON.stringify(body); }
  const controller = new AbortController();
  options.signal = controller.signal;
  const answer = await fetch(base + path, options);
  const result = {
    status: answer.status, id: answer.headers.get('x-request-id'), retryAfter: answer.headers.get('retry-after'),
    pieces: [],
  };
  if (answer.headers.get('content-type')?.startsWith('text/event-stream')) {
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    let text = '';
    for (;;) {
      const {done, value} = await reader.read();
      if (done) break;
      text += value;
      const lines = text.split('\\n');
      text = lines.pop();
      for (const line of lines) {
        if (!line.startsWith('data: {')) continue;
        const document = JSON.parse(line.slice(6));
        if (document.error) throw new Error(document.error.message);
        const piece = document.choices[0]?.delta.content;
        if (piece) result.pieces.push([(performance.now() - began) / 1000, piece]);
      }
      if (most && result.pieces.length >= most) { controller.abort(); break; }
    }
  } else {
    result.text = await answer.text();
    try { result.document = JSON.parse(result.text); } catch {}
  }
  return result;
}
"""


class StatusError(Exception):
    """An answer that is not a 200."""

    def __init__(self, status: int, body: str) -> None:
        super().__init__(body)
        self.status_code = status


class Browser:
    """What the page does."""

    def __init__(self, page: Page) -> None:
        self._page = page

    def _fetch(self, key: str, path: str, body: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
        asked = {
            "base": BASE,
            "path": path,
            "key": key,
            "body": body,
            "most": 0,
            "header": "authorization",
            "fill": 0,
            **more,
        }
        result: dict[str, Any] = self._page.evaluate(FETCH, asked)
        return result

    def _good(self, *arguments: Any, **more: Any) -> dict[str, Any]:
        result = self._fetch(*arguments, **more)
        if result["status"] != 200:
            raise StatusError(result["status"], result["text"])
        return result

    @staticmethod
    def _asked(model: str, prompt: str, max_tokens: int = 20, *, stream: bool = False) -> dict[str, Any]:
        messages = [{"role": "user", "content": prompt}]
        return {"model": model, "messages": messages, "max_tokens": max_tokens, "stream": stream}

    def chat(self, key: str, model: str, prompt: str, max_tokens: int = 20, retries: int = 0) -> str:
        fill = len(prompt) if not prompt.strip("x") else 0
        asked = self._asked(model, "" if fill else prompt, max_tokens)
        for left in range(retries, -1, -1):
            result = self._fetch(key, "/v1/chat/completions", asked, fill=fill)
            if result["status"] != 429 or not left:
                break
            self._page.wait_for_timeout(1000 * float(result["retryAfter"]))
        if result["status"] != 200:
            raise StatusError(result["status"], result["text"])
        return str(result["document"]["choices"][0]["message"]["content"])

    def stream(self, key: str, model: str, prompt: str) -> list[tuple[float, str]]:
        pieces: list[tuple[float, str]] = self._good(
            key, "/v1/chat/completions", self._asked(model, prompt, stream=True)
        )["pieces"]
        return pieces

    def leave(self, key: str, model: str, prompt: str) -> str:
        asked = self._asked(model, prompt, stream=True)
        return str(self._good(key, "/v1/chat/completions", asked, most=1)["pieces"][0][1])

    def models(self, key: str, model: str) -> list[str]:
        return [card["id"] for card in self._good(key, "/v1/models")["document"]["data"]]

    def retrieve(self, key: str, model: str) -> str:
        return str(self._good(key, f"/v1/models/{model.replace('/', '%2F')}")["document"]["id"])

    def request_id(self, key: str, model: str) -> bool:
        """The page may read x-request-id."""
        return bool(self._good(key, "/v1/models")["id"])

    def x_api_key(self, key: str, model: str) -> list[str]:
        cards = self._good(key, "/v1/models", header="x-api-key")["document"]["data"]
        return [card["id"] for card in cards]

    def snippet(self, key: str, model: str) -> str:
        """The page of docs/clients.md, with this endpoint's address, key and model."""
        text = (Path(__file__).parents[1] / "snippets" / "browser.html").read_text()
        for old, new in (("https://llm.example.com", BASE), ("YOUR_KEY", key), ("YOUR_MODEL", model)):
            text = text.replace(old, new)
        page = self._page.context.new_page()
        page.goto(sys.argv[1])
        page.set_content(text)
        page.wait_for_function("document.title === 'done'", timeout=10_000)
        shown = page.inner_text("#answer")
        page.close()
        return shown

    def close_page(self, key: str, model: str, prompt: str) -> bool:
        """A tab that is closed in the middle of a stream."""
        page = self._page.context.new_page()
        page.goto(sys.argv[1])
        asked = self._asked(model, prompt, stream=True)
        arguments = {
            "base": BASE, "path": "/v1/chat/completions", "key": key, "body": asked, "most": 0,
            "header": "authorization", "fill": 0,
        }  # fmt: skip
        with page.expect_response("**/v1/chat/completions"):
            page.evaluate(f"(asked) => {{ ({FETCH})(asked).catch(() => null); }}", arguments)
        page.close()
        return True


def main() -> None:
    program = next((found for name in NAMES if (found := shutil.which(name))), None)
    if program is None:
        sys.exit("no Chromium or Chrome found; set it up with: apt-get install chromium")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=program, args=list(OPTIONS))
        page = started.new_context().new_page()
        page.goto(sys.argv[1])
        browser = Browser(page)
        names = ("chat", "stream", "leave", "models", "retrieve", "request_id", "x_api_key", "close_page", "snippet")
        serve(
            {**{name: getattr(browser, name) for name in names}, "version": lambda **_: f"Chromium {started.version}"}
        )
        started.close()


if __name__ == "__main__":
    main()
