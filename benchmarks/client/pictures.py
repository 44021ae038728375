"""Screenshots of a benchmark report for docs/benchmarks/client, taken in the installed Chromium.

    python -m benchmarks.client.pictures docs/benchmarks/client/real_run.json

Writes report-desktop.webp and report-phone.webp.
"""

import argparse
import base64
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from playwright.sync_api import sync_playwright

from benchmarks.client.exact import RESULTS, ROOT

QUALITY = 14  # percent: legible, and under 80 KB each
OPTIONS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def main(record: Path) -> None:
    """Render the report of a record, and take both screenshots."""
    with TemporaryDirectory() as folder, sync_playwright() as playwright:
        page = Path(folder) / "report.html"
        command = [sys.executable, "-m", "smoke_tests.benchmark", "report", str(record.absolute()), "-o", str(page)]
        subprocess.run(command, check=True, cwd=ROOT)
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=OPTIONS)
        for name, width, scheme in (("desktop", 1280, "light"), ("phone", 390, "dark")):
            shown = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)  # type: ignore[arg-type]
            shown.goto(page.as_uri())
            # Playwright's own screenshots are PNG or JPEG, which are several times larger.
            options = {"format": "webp", "quality": QUALITY, "captureBeyondViewport": True}
            taken = shown.context.new_cdp_session(shown).send("Page.captureScreenshot", options)
            (RESULTS / f"report-{name}.webp").write_bytes(base64.b64decode(taken["data"]))
        browser.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("record", type=Path, help="the JSON record of a benchmark run")
    main(parser.parse_args().record)
