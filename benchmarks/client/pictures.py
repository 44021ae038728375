"""Pictures of a report, taken in the machine's own Chromium: `pictures.py RECORD.json`; writes report-*.png beside this file."""

import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from playwright.sync_api import sync_playwright

HERE = Path(__file__).resolve().parent
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
        for name, width, scheme in (("desktop", 1180, "light"), ("phone", 390, "dark")):
            shown = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)  # type: ignore[arg-type]
            shown.goto(page.as_uri())
            shown.screenshot(path=HERE.parents[1] / "docs/benchmarks/client" / f"report-{name}.png", full_page=True)
        browser.close()


if __name__ == "__main__":
    main(sys.argv[1])
