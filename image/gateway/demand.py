"""Demand as CloudWatch metrics in the embedded metric format, used by AWS's autoscaling and the idle alarm.

https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

from image.gateway.admission import Admission
from image.gateway.fleet import Fleet
from image.gateway.settings import Settings
from image.gateway.telemetry import Telemetry

METRICS = ("Demand", "Running", "Held", "Queued", "ReplicasReady", "QueueFull")
"""The metrics, in the order of a sample. Each has the same meaning as its counterpart in Prometheus and /info:
`gateway_demand`, `gateway_requests_running`, `..._held`, `..._queued`, `gateway_replicas_ready`, and for QueueFull
`gateway_refusals_total` with the reasons `queue_full` and `queue_bytes`.
"""
_SAMPLE_SECONDS = 1.0
_SAMPLES_AT_LEAST = 10  # between two lines if something changes
# Between two lines if nothing changes. Not 60: a sample takes slightly more than a second, so a minute would occasionally
# have no line. The idle alarm treats a minute without data as busy and restarts its count.
_SAMPLES_AT_MOST = 30


class DemandReport:
    """Samples demand every second; a line contains all samples since the previous line, so that no burst is missed.

    A line is written twice a minute, or after 10 s if demand or the replicas have changed.
    """

    def __init__(self, settings: Settings, admission: Admission, fleet: Fleet, telemetry: Telemetry) -> None:
        self._namespace = settings.emf_namespace
        self._stack = settings.stack
        self._admission = admission
        self._fleet = fleet
        self._telemetry = telemetry
        self._samples: list[tuple[int, ...]] = []
        self._told: tuple[int, ...] | None = None

    async def run(self) -> None:
        """Report until cancelled, if a namespace is set."""
        while self._namespace:
            self.sample()
            await asyncio.sleep(_SAMPLE_SECONDS)

    def sample(self) -> None:
        """Take one sample, and print a line if one is due."""
        admission = self._admission
        self._samples.append(
            (
                admission.take_peak(),
                admission.running,
                admission.held,
                admission.queued,
                len(self._fleet.rotation),
                admission.take_refused(),
            )
        )
        changed = any(sample != self._told for sample in self._samples)
        if len(self._samples) >= (_SAMPLES_AT_LEAST if changed else _SAMPLES_AT_MOST):
            self._telemetry.line(self.line())
            self._told = self._samples[-1]
            self._samples.clear()

    def line(self) -> dict[str, Any]:
        """The samples as one embedded-metric document. Demand is each second's maximum, QueueFull each second's count; the
        others are current values.
        """
        columns = (list(column) for column in zip(*self._samples, strict=True))
        return {
            "_aws": {
                "Timestamp": int(time.time() * 1000),
                "CloudWatchMetrics": [
                    {
                        "Namespace": self._namespace,
                        "Dimensions": [["Stack"]],
                        "Metrics": [{"Name": name, "Unit": "Count"} for name in METRICS],
                    }
                ],
            },
            "Stack": self._stack,
            **dict(zip(METRICS, columns, strict=True)),
        }
