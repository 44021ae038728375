"""SVG plots, drawn by hand: scales, axes, lines. All text is escaped here; colours are classes of the page's style."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from html import escape

WIDTH, HEIGHT = 400.0, 270.0
RIGHT, TOP, BOTTOM = 20.0, 14.0, 46.0
LINES = 6  # as many series as there are colours
# A line of text at the largest size that page.css gives it, in a wide font; boxes are reserved for that.
CHARACTER, LINE = 8.2, 15.0
ROOM_FOR_THE_NAME = 24.0  # of the y axis
# A label that is not required is drawn within this distance of its point, or left to the tooltip and the table.
NEAR = 30.0
LEADER = 16.0  # from this distance on, a thin line joins a label and its point

Point = tuple[float, float]
Box = tuple[float, float, float, float]  # left, top, right, bottom


@dataclass(frozen=True)
class Axis:
    """One axis: its range, whether it is logarithmic, what it is called, how its numbers are written, and which (`at`)."""

    low: float
    high: float
    title: str
    log: bool = False
    format: Callable[[float], str] = field(default=lambda value: short(value))
    at: tuple[float, ...] = ()

    def share(self, value: float) -> float:
        """Return where a value lies, 0 at `low` and 1 at `high`; values outside are put at the edge."""
        if self.log:
            value = max(value, self.low)
            return min(1.0, math.log(value / self.low) / math.log(self.high / self.low))
        return min(1.0, max(0.0, (value - self.low) / (self.high - self.low)))

    def ticks(self) -> list[float]:
        """Return round numbers from `low` to `high`, four to seven of them where the range allows."""
        if self.at:
            return list(self.at)
        return _log_ticks(self.low, self.high) if self.log else _ticks(self.low, self.high)


def axis(values: Sequence[float], title: str, *, log: bool = False, zero: bool = True) -> Axis:
    """Return an axis that shows all `values`, from zero where it is not logarithmic and `zero` says so."""
    if log:
        positive = [value for value in values if value > 0] or [1.0]
        low, high = min(positive) * 0.9, max(positive) * 1.1
        return Axis(low, high, title, log=True)
    low, high = 0.0 if zero else min(values, default=0.0), max(values, default=1.0)
    room = 0.06 * (high - low)
    return Axis(low if zero else low - room, high + room if high > low else low + 1.0, title)


class Plot:
    """One plot in the making: draw into it, then `svg`."""

    def __init__(
        self, x: Axis, y: Axis, *, height: float = HEIGHT, left: float | None = None, bottom: float = BOTTOM
    ) -> None:
        widest = max((len(y.format(value)) for value in y.ticks()), default=0)
        self.left = left if left is not None else ROOM_FOR_THE_NAME + widest * CHARACTER + 9
        self._x, self._y, self._height, self._bottom = x, y, height, bottom
        self._parts: list[str] = []
        self._taken: list[Box] = []
        self._labels: list[tuple[bool, Point, str]] = []

    def line(self, points: Sequence[Point], series: int, *, dashed: bool = False) -> None:
        """A line through the points, in the colour of a series."""
        path = " ".join(f"{self._at_x(x):.1f},{self._at_y(y):.1f}" for x, y in points)
        self._parts.append(f'<polyline class="line s{series % LINES}{" dashed" if dashed else ""}" points="{path}"/>')

    def steps(self, points: Sequence[Point], series: int) -> None:
        """The points joined by stairs: each value holds until the next one."""
        path = [f"M{self._at_x(points[0][0]):.1f},{self._at_y(points[0][1]):.1f}"]
        path += [f"H{self._at_x(x):.1f}V{self._at_y(y):.1f}" for x, y in points[1:]]
        self._parts.append(f'<path class="line s{series % LINES}" d="{"".join(path)}"/>')

    def area(self, points: Sequence[Point], series: int) -> None:
        """The area under stairs."""
        path = [f"M{self._at_x(points[0][0]):.1f},{self._at_y(self._y.low):.1f}V{self._at_y(points[0][1]):.1f}"]
        path += [f"H{self._at_x(x):.1f}V{self._at_y(y):.1f}" for x, y in points[1:]]
        path.append(f"V{self._at_y(self._y.low):.1f}Z")
        self._parts.append(f'<path class="area s{series % LINES}" d="{"".join(path)}"/>')

    def bar(self, x: float, end: float, y: float, thickness: float, style: str, told: str) -> None:
        """A bar from `x` to `end` at height `y`, with words for whoever points at it."""
        left = self._at_x(x)
        width = max(0.6, self._at_x(end) - left)
        self._parts.append(
            f'<rect class="{escape(style)}" x="{left:.1f}" y="{self._at_y(y):.1f}" width="{width:.1f}" '
            f'height="{thickness:.1f}"><title>{escape(told)}</title></rect>'
        )

    def dot(self, x: float, y: float, series: int, told: str) -> None:
        """A point with words for whoever points at it."""
        at_x, at_y = self._at_x(x), self._at_y(y)
        self._taken.append((at_x - 5, at_y - 5, at_x + 5, at_y + 5))
        self._parts.append(
            f'<circle class="dot s{series % LINES}" cx="{at_x:.1f}" cy="{at_y:.1f}" r="4.5">'
            f"<title>{escape(told)}</title></circle>"
        )

    def label(self, x: float, y: float, text: str, *, required: bool = False) -> None:
        """Words beside a place, clear of other words; left out where there is no room nearby and they are not `required`."""
        self._labels.append((required, (self._at_x(x), self._at_y(y)), text))

    def svg(self, name: str, title: str, description: str, *, x_axis: bool = True, y_axis: bool = True) -> str:
        """Return the whole plot; `name` is unique in the page."""
        ident = escape(name)
        return (
            f'<svg viewBox="0 0 {WIDTH:g} {self._height:g}" role="img" aria-labelledby="{ident}-t {ident}-d">'
            f'<title id="{ident}-t">{escape(title)}</title><desc id="{ident}-d">{escape(description)}</desc>'
            f"{self._axes(x_axis, y_axis)}{''.join(self._parts)}{''.join(self._placed())}</svg>"
        )

    def _at_x(self, value: float) -> float:
        return self.left + self._x.share(value) * (WIDTH - self.left - RIGHT)

    def _at_y(self, value: float) -> float:
        return self._height - self._bottom - self._y.share(value) * (self._height - self._bottom - TOP)

    def _placed(self) -> Iterator[str]:
        """Draw the labels, the required ones first, each as near to its point as there is room."""
        right, bottom = WIDTH - 2, self._height - self._bottom
        for required, (x, y), text in sorted(self._labels, key=lambda label: not label[0]):
            half = len(text) * CHARACTER / 2 + 2
            for dx, dy in _AROUND if required else _NEARBY:
                box = (x + dx - half, y + dy - LINE / 2, x + dx + half, y + dy + LINE / 2)
                inside = self.left + 2 <= box[0] and box[2] <= right and box[1] >= 0 and box[3] <= bottom
                if inside and not any(_overlap(box, other) for other in self._taken):
                    break
            else:
                continue
            self._taken.append(box)
            if math.hypot(max(0.0, abs(dx) - half), dy) > LEADER:
                yield f'<line class="leader" x1="{x:.1f}" y1="{y:.1f}" x2="{x + dx:.1f}" y2="{y + dy:.1f}"/>'
            yield f'<text class="note" x="{x + dx:.1f}" y="{y + dy + 4:.1f}" text-anchor="middle">{escape(text)}</text>'

    def _axes(self, x_axis: bool, y_axis: bool) -> str:
        bottom, parts = self._height - self._bottom, []
        free = math.inf
        for value in self._y.ticks() if y_axis else ():
            at = self._at_y(value)
            parts.append(f'<line class="grid" x1="{self.left:g}" x2="{WIDTH - RIGHT:g}" y1="{at:.1f}" y2="{at:.1f}"/>')
            if at > free:
                continue
            free = at - LINE
            text = escape(self._y.format(value))
            parts.append(f'<text class="tick" x="{self.left - 7:g}" y="{at + 4:.1f}" text-anchor="end">{text}</text>')
        free = 0.0
        for value in self._x.ticks() if x_axis else ():
            at, text = self._at_x(value), self._x.format(value)
            parts.append(f'<line class="grid" x1="{at:.1f}" x2="{at:.1f}" y1="{bottom:g}" y2="{bottom + 4:g}"/>')
            room = len(text) * CHARACTER
            middle = min(at, WIDTH - room / 2)
            if middle - room / 2 < free:
                continue
            free = middle + room / 2 + CHARACTER
            parts.append(
                f'<text class="tick" x="{middle:.1f}" y="{bottom + 18:g}" text-anchor="middle">{escape(text)}</text>'
            )
        parts.append(f'<line class="axis" x1="{self.left:g}" x2="{WIDTH - RIGHT:g}" y1="{bottom:g}" y2="{bottom:g}"/>')
        middle = (self.left + WIDTH - RIGHT) / 2
        if x_axis:
            parts.append(
                f'<text class="name" x="{middle:.0f}" y="{self._height - 8:g}" text-anchor="middle">{escape(self._x.title)}</text>'
            )
        if y_axis:
            middle = (TOP + bottom) / 2
            parts.append(
                f'<text class="name" transform="translate(13 {middle:.0f}) rotate(-90)" text-anchor="middle">{escape(self._y.title)}</text>'
            )
        return "".join(parts)


def _overlap(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _offsets(reach: float) -> tuple[Point, ...]:
    """Return places around a point, the nearest first and above before below: its label is tried at each."""
    across, down = range(-int(reach / 8), int(reach / 8) + 1), range(-int(reach / 7), int(reach / 7) + 1)
    found = [(dx * 8.0, dy * 7.0) for dx in across for dy in down]
    return tuple(sorted(found, key=lambda at: (math.hypot(at[0] * 0.5, at[1]), at[1], abs(at[0]), at[0])))


_NEARBY, _AROUND = _offsets(NEAR), _offsets(WIDTH)


def short(value: float) -> str:
    """Return a number as an axis or a card shows it: 0.05, 7.5, 320, 1.3k, 2M."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= size:
            divisor = 1e3 if letter == "k" else size
            return f"{value / divisor:.3g}{letter}"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def _ticks(low: float, high: float) -> list[float]:
    raw = (high - low) / 5
    power = 10 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= raw * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    return [number * step for number in range(first, math.floor(high / step + 1e-9) + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    if high < 4 * low:
        return _ticks(low, high)
    for factors in ((1.0,), (1.0, 3.0), (1.0, 2.0, 5.0), (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0)):
        powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        found = [factor * 10.0**power for power in powers for factor in factors if low <= factor * 10.0**power <= high]
        if len(found) >= 4:
            break
    every = math.ceil(len(found) / 7)
    return found[::every]
