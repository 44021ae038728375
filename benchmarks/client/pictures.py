"""Pictures of a report, taken in the machine's own Chromium: `pictures.py RECORD.json`; writes docs/benchmarks/client/report-*.webp."""

import base64
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from playwright.sync_api import sync_playwright

QUALITY = 14  # percent: under 80 KB each, and still legible
RESULTS = Path(__file__).resolve().parents[2] / "docs" / "benchmarks" / "client"
OPTIONS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def main(record: str) -> None:
    """Take them."""
    with TemporaryDirectory() as folder, sync_playwright() as playwright:
        page = Path(folder) / "report.html"
        command = [sys.executable, "-m", "smoke_tests.benchmark", "report", record, "-o", str(page)]
        subprocess.run(command, check=True)
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=OPTIONS)
        for name, width, scheme in (("desktop", 1280, "light"), ("phone", 390, "dark")):
            shown = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)  # type: ignore[arg-type]
            shown.goto(page.as_uri())
            # Playwright's own screenshots are PNG or JPEG only, several times as large.
            options = {"format": "webp", "quality": QUALITY, "captureBeyondViewport": True}
            taken = shown.context.new_cdp_session(shown).send("Page.captureScreenshot", options)
            (RESULTS / f"report-{name}.webp").write_bytes(base64.b64decode(taken["data"]))
        browser.close()


if __name__ == "__main__":
    main(sys.argv[1])
