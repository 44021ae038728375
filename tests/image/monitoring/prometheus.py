"""Evaluates PromQL with a real Prometheus (its own promtool) over series that were scraped from the real exporters."""

import json
import math
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from infra.stack_files import ROOT

STEP_SECONDS = 15
UNPACKED = ROOT / ".prometheus" / "usr" / "bin" / "promtool"
Series = Mapping[str, Sequence[str]]
"""Values by series, one per scrape; `_` is no sample, `stale` the end of a series."""
Answers = Mapping[str, Sequence[tuple[str, float]]]
"""By expression, the labels and the value of each element; nothing if the result is empty."""


def find_promtool() -> Path | None:
    """PROMTOOL, the one on the PATH, or the one that `make test-dashboards` unpacked."""
    found = os.environ.get("PROMTOOL") or shutil.which("promtool") or (str(UNPACKED) if UNPACKED.exists() else None)
    return Path(found) if found else None


class Scrapes:
    """What Prometheus keeps of its scrapes: a series that a target no longer exposes, or whose target is gone, is stale."""

    def __init__(self) -> None:
        self.steps = 0
        self._series: dict[str, list[str]] = {}

    def scrape(self, targets: Mapping[tuple[str, str], Callable[[], bytes]]) -> None:
        """Scrape each (job, instance) once; a target that is not listed is gone."""
        present: dict[str, str] = {}
        for (job, instance), text in targets.items():
            for line in text().decode().splitlines():
                if not line.startswith("#"):
                    sample, _, value = line.rpartition(" ")
                    name, _, labels = sample.rstrip("}").partition("{")
                    present[f'{name}{{job="{job}",instance="{instance}"{"," if labels else ""}{labels}}}'] = value
        for name in self._series.keys() | present.keys():
            values = self._series.setdefault(name, ["_"] * self.steps)
            if name in present:
                values.append(present[name])
            else:
                values.append("_" if values[-1] in ("_", "stale") else "stale")
        self.steps += 1

    @property
    def series(self) -> Series:
        """All series."""
        return self._series


def evaluate(promtool: Path, folder: Path, expressions: Iterable[str], scrapes: Scrapes) -> Answers:
    """Each expression's result at the last scrape.

    Raises:
        AssertionError: promtool cannot parse or evaluate an expression.
    """
    at = f"{(scrapes.steps - 1) * STEP_SECONDS}s"
    asked = list(dict.fromkeys(expressions))
    test = {
        "interval": f"{STEP_SECONDS}s",
        "input_series": [{"series": name, "values": " ".join(values)} for name, values in scrapes.series.items()],
        "promql_expr_test": [{"expr": one, "eval_time": at, "exp_samples": []} for one in asked],
    }
    path = folder / "panels.json"  # JSON is YAML
    path.write_text(json.dumps({"rule_files": [], "evaluation_interval": f"{STEP_SECONDS}s", "tests": [test]}))
    run = subprocess.run(
        [promtool, "test", "rules", path], capture_output=True, text=True, timeout=60, check=False, cwd=folder
    )
    report = run.stdout + run.stderr
    # An empty result is the expected one; promtool prints every other as a difference.
    found = {
        json.loads(f'"{text}"'): _samples(got)
        for text, got in re.findall(r'expr: "(.*)", time: \w+,\s+exp: ?.*\s+got: ?(.*)', report)
    }
    assert report.count("expr: ") == len(found), report
    assert run.returncode in (0, 1), report
    return {one: found.get(one, ()) for one in asked}


def _samples(got: str) -> list[tuple[str, float]]:
    pairs = re.findall(r"(\{.*?\}) ([^\s,]+)", got)
    return [(labels, math.nan if value == "NaN" else float(value)) for labels, value in pairs]
