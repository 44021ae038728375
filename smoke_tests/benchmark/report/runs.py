"""The plots of one record's own course: its requests over time, and its cold start."""

from smoke_tests.benchmark.record import Measurement, Record
from smoke_tests.benchmark.report.chart import Chart, as_time, known
from smoke_tests.benchmark.report.plot import LINES, Axis, Plot, axis

MOST_BARS = 150
LANES_ROOM, LANE_ROOM = 200.0, 18.0
PHASES_SHOWN = 6
ROUNDING = 0.0002  # times are kept to a tenth of a millisecond


def timeline(record: Record, name: str, number: int) -> Chart | None:
    """One load's requests as they ran, waiting and answering, with the tokens a second above: the busiest load."""
    measured = [point for point in record.measurements if point.figures.completed]
    if not measured:
        return None
    point = max(measured, key=lambda each: each.figures.output_throughput)
    seconds = max(point.figures.duration, 1e-3)
    lanes = _lanes(point)
    rates = [tokens / point.timeline.bucket_seconds for tokens in point.timeline.tokens]
    count = max((lane for lane, *_ in lanes), default=0) + 1
    room = min(LANES_ROOM, count * LANE_ROOM)
    thickness = max(1.0, room / count * 0.7)
    x = Axis(0.0, seconds, "seconds")
    top = axis(rates, "tokens/s")
    upper = Plot(x, top, height=150.0, bottom=12.0)
    bucket = point.timeline.bucket_seconds
    stairs = [(0.0, rates[0]), *((place * bucket, rate) for place, rate in enumerate(rates)), (seconds, rates[-1])]
    upper.area(stairs, 0)
    upper.steps(stairs, 0)
    lower = Plot(x, Axis(0.0, float(count), "requests"), height=room + 66.0, left=upper.left)
    for lane, start, first, end, failure in lanes:
        y = count - lane
        if failure:
            lower.bar(start, min(seconds, start + seconds / 100), y, thickness, "failed", f"failed: {failure}")
            continue
        lower.bar(
            start, first, y, thickness, "waiting", f"waited {as_time((first - start) * 1000)} for the first token"
        )
        lower.bar(first, end, y, thickness, "answering", f"answered for {as_time((end - first) * 1000)}")
    left_out = len(point.samples.start_ms) - len(lanes)
    more = f" The first {len(lanes)} of {len(point.samples.start_ms)} requests are drawn." if left_out else ""
    says = f"{point.load.label}: tokens a second, and below each request: light while it waits for its first token, solid while it is answered.{more}"
    title = f"Timeline{f' of record {name}' if name else ''}"
    described = (
        f"{says} {point.figures.completed} requests succeeded and {point.figures.failed} failed in {seconds:.1f} s."
    )
    ident = f"timeline-{number}"
    return Chart(
        ident, title, says,
        upper.svg(f"{ident}-a", "Output tokens a second over time", described, x_axis=False)
        + lower.svg(f"{ident}-b", "Requests over time", described, y_axis=False),
    )  # fmt: skip


def cold_start(record: Record, name: str, number: int) -> Chart | None:
    """The ledger of a wake from zero, phase after phase."""
    cold = record.cold_start
    if cold is None or not cold.phases:
        return None
    total = max(cold.seconds_to_first_token, sum(phase.seconds for phase in cold.phases), 1e-3)
    plot = Plot(Axis(0.0, total, "seconds after the request"), Axis(0.0, 1.0, ""), height=120.0, left=14.0)
    passed = 0.0
    for series, phase in enumerate(cold.phases[:PHASES_SHOWN]):
        told = f"{phase.phase}: {phase.seconds:.1f} s"
        plot.bar(passed, passed + phase.seconds, 0.8, 34.0, f"phase s{series % LINES}", told)
        passed += phase.seconds
    says = f"The first token came after {cold.seconds_to_first_token:.1f} s. The gateway's ledger says where they went."
    ident = f"cold-start-{number}"
    rows = tuple((phase.phase, f"{phase.seconds:.1f} s", phase.source) for phase in cold.phases)
    return Chart(
        ident, f"Cold start{f' of record {name}' if name else ''}", says, plot.svg(ident, "Cold start", says, y_axis=False),
        tuple((place, f"{phase.phase} {phase.seconds:.1f} s") for place, phase in enumerate(cold.phases[:PHASES_SHOWN])),
        ("phase", "took", "told by"), rows,
    )  # fmt: skip


def _lanes(point: Measurement) -> list[tuple[int, float, float, float, str]]:
    """Return (lane, start, first token, end, failure) in seconds; a lane is free again when its request has ended."""
    free: list[float] = []
    found = []
    columns = (point.samples.start_ms, point.samples.ttft_ms, point.samples.e2el_ms, point.samples.failure)
    for start_ms, ttft_ms, e2el_ms, failure in list(zip(*columns, strict=True))[:MOST_BARS]:
        start = start_ms / 1000
        first, end = start + known(ttft_ms) / 1000, start + known(e2el_ms) / 1000
        lane = next((number for number, until in enumerate(free) if until <= start + ROUNDING), len(free))
        free[lane : lane + 1] = [end]
        found.append((lane, start, first, end, failure))
    return found
