"""Charts as inline SVG: small multiples of one size, drawn here, so that a page needs no code and no library for them.

Colours are classes that the page's style gives a meaning, in light and in dark. Each chart has a title, a sentence that
says what it shows, and its figures as a table.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from jobs.report.words import cut, printable
from pipelines.quality import Histogram

Format = Callable[[float], str]

_WIDTH, _HEIGHT = 360, 190
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 12, 14, 26
_BARS, _FEWEST = 24, 9  # of a histogram
_ROW = 34  # of a bar with its name above it
_NAME = 46  # characters of it


@dataclass(frozen=True)
class Chart:
    """A chart and what it says."""

    title: str
    says: str  #: in a sentence, for whoever doesn't see it
    svg: Markup
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Series:
    """A line: its points in order; a gap where there is a None."""

    name: str
    points: Sequence[tuple[float, float] | None]


def lines(
    title: str,
    says: str,
    series: Sequence[Series],
    x: tuple[str, Format],
    y: tuple[str, Format],
    *,
    area: bool = False,
    whole: bool = False,
) -> Chart:
    """Lines over one axis from 0 on, each of its own dashes; with `area` what is below them is shaded.

    `whole` values have no ticks between them.
    """
    points = [point for one in series for point in one.points if point]
    most_x = max((point[0] for point in points), default=0) or 1.0
    top = _ticks(max((point[1] for point in points), default=0), whole)
    place = _Place(most_x, top[-1], top=_TOP + 14 if len(series) > 1 else _TOP)
    pieces = [_grid(place, top, y[1]), _times(place, most_x, x[1])]
    for number, one in enumerate(series):
        for run in _runs(one.points):
            line = " ".join(f"{place.x(a):.1f},{place.y(b):.1f}" for a, b in run)
            if area:
                ends = place.x(run[0][0]), place.x(run[-1][0])
                under = f"{ends[0]:.1f},{place.bottom} {line} {ends[1]:.1f},{place.bottom}"
                pieces.append(Markup('<polygon class="area" points="{}"/>').format(under))
            pieces.append(Markup('<polyline class="line line-{}" points="{}"/>').format(number, line))
            if len(run) == 1:
                at = place.x(run[0][0]), place.y(run[0][1])
                pieces.append(Markup('<circle class="dot" cx="{:.1f}" cy="{:.1f}" r="2.5"/>').format(*at))
    if len(series) > 1:
        pieces.append(_legend([one.name for one in series]))
    columns = (x[0], *(f"{one.name}" if len(series) > 1 else y[0] for one in series))
    return Chart(title, says, _svg(title, says, pieces, _HEIGHT), columns, _table(series, x[1], y[1]))


def bars(
    title: str, says: str, rows: Sequence[tuple[str, float, str]], columns: tuple[str, str], most: float
) -> Chart:
    """A bar for each (name, value, value in words), as long as its share of `most`."""
    room = _WIDTH - 2
    pieces = []
    for number, (name, value, words) in enumerate(rows):
        y = number * _ROW
        long = max(1.5, room * min(1.0, value / most)) if value and most else 0.0
        pieces += [
            Markup('<text class="name" x="0" y="{}">{}</text>').format(y + 13, _short(name)),
            Markup('<text class="value" x="{}" y="{}" text-anchor="end">{}</text>').format(
                room, y + 13, words
            ),
            Markup('<rect class="track" x="0" y="{}" width="{}" height="6"/>').format(y + 20, room),
            Markup('<rect class="bar" x="0" y="{}" width="{:.1f}" height="6"/>').format(y + 20, long),
        ]
    table = tuple((name, words) for name, _, words in rows)
    return Chart(title, says, _svg(title, says, pieces, len(rows) * _ROW), columns, table)


def histogram(title: str, says: str, spread: Histogram, unit: str, what: str, digits: int = 1) -> Chart:
    """How values are spread, with their median marked; `what` is what is counted."""
    low, high, counts = rebinned(spread)
    top = _ticks(max(counts, default=0), whole=True)
    place = _Place(high, top[-1], low)
    width = (high - low) / max(1, len(counts))

    def number(value: float) -> str:
        return f"{value:.{digits}f}".rstrip("0").rstrip(".") if digits else f"{value:.0f}"

    pieces = [
        _grid(place, top, lambda value: f"{value:,.0f}"),
        _values(place, (low, low + len(counts) // 2 * width, high), number, unit),
    ]
    for at, count in enumerate(counts):
        if count:
            begin, end = place.x(low + at * width), place.x(low + (at + 1) * width)
            box = begin + 0.5, place.y(count), max(0.5, end - begin - 1), place.bottom - place.y(count)
            pieces.append(
                Markup('<rect class="bar" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"/>').format(
                    *box
                )
            )
    median = spread.quantile(0.5)
    if median is not None and low <= median <= high:
        x = place.x(median)
        pieces.append(
            Markup('<line class="mark" x1="{0:.1f}" x2="{0:.1f}" y1="{1}" y2="{2}"/>').format(
                x, _TOP, place.bottom
            )
        )
    table = [
        (f"{number(low + at * width)} to {number(low + (at + 1) * width)}", f"{count:,}")
        for at, count in enumerate(counts)
        if count
    ]
    beyond = [
        (f"less than {number(spread.low)}", spread.below),
        (f"more than {number(spread.high)}", spread.above),
    ]
    table += [(name, f"{count:,}") for name, count in [*beyond, ("not a number", spread.unknown)] if count]
    svg = _svg(title, says, pieces, _HEIGHT)
    return Chart(title, says, svg, (unit or "value", what), tuple(table))


def rebinned(spread: Histogram) -> tuple[float, float, list[int]]:
    """The part of a histogram that has values, in 9 to 24 bins: from, to, and how many are in each."""
    there = spread.counts.nonzero()[0]
    if not len(there):
        return spread.low, spread.high, []
    first, last = int(there[0]), int(there[-1]) + 1
    steps = (part * 10**power for power in range(9) for part in (1, 2, 4, 5))
    step = next(step for step in steps if -(-last // step) - first // step <= _BARS)
    first = first // step * step  # so that bins begin at round numbers
    more = _FEWEST - -(-(last - first) // step)
    if more > 0:  # a value alone would be a wall
        first = max(0, first - more // 2 * step)
        last = min(spread.bins, first + _FEWEST * step)
        first = max(0, last - _FEWEST * step)
    width = (spread.high - spread.low) / spread.bins
    counts = [int(spread.counts[at : at + step].sum()) for at in range(first, last, step)]
    return spread.low + first * width, spread.low + (first + step * len(counts)) * width, counts


@dataclass(frozen=True)
class _Place:
    """From values to places in the picture."""

    most_x: float
    most_y: float
    least_x: float = 0.0
    top: int = _TOP
    bottom: int = _HEIGHT - _BOTTOM

    def x(self, value: float) -> float:
        span = (self.most_x - self.least_x) or 1.0
        return _LEFT + (value - self.least_x) / span * (_WIDTH - _LEFT - _RIGHT)

    def y(self, value: float) -> float:
        return self.bottom - value / (self.most_y or 1.0) * (self.bottom - self.top)


def _svg(title: str, says: str, pieces: Sequence[Markup], height: int) -> Markup:
    size = Markup('viewBox="0 0 {0} {1}" width="{0}" height="{1}"').format(_WIDTH, height)
    words = Markup("<title>{}</title><desc>{}</desc>").format(title, says)
    return Markup('<svg {} role="img">{}{}</svg>').format(size, words, Markup("").join(pieces))


def _grid(place: _Place, ticks: Sequence[float], words: Format) -> Markup:
    """Lines across at the ticks, and what they stand for."""
    made = Markup("")
    for tick in ticks:
        y = place.y(tick)
        made += Markup('<line class="grid" x1="{}" x2="{}" y1="{:.1f}" y2="{:.1f}"/>').format(
            _LEFT, _WIDTH - _RIGHT, y, y
        )
        made += Markup('<text class="tick" x="{}" y="{:.1f}" text-anchor="end">{}</text>').format(
            _LEFT - 7, y + 3.5, words(tick)
        )
    return made


def _times(place: _Place, most: float, words: Format) -> Markup:
    """The beginning, the middle and the end of the axis below."""
    return _below([(0.0, "start"), (most / 2, "middle"), (most, "end")], place, words)


def _values(place: _Place, edges: tuple[float, float, float], words: Format, unit: str) -> Markup:
    """What the axis below begins with, has near its middle, and ends with."""
    last = edges[-1]
    ends = list(zip(edges, ("start", "middle", "end"), strict=True))
    return _below(ends, place, lambda value: f"{words(value)} {unit if value == last else ''}".strip())


def _below(places: Sequence[tuple[float, str]], place: _Place, words: Format) -> Markup:
    made = Markup("")
    for value, anchor in places:
        made += Markup('<text class="tick" x="{:.1f}" y="{}" text-anchor="{}">{}</text>').format(
            place.x(value), _HEIGHT - 8, anchor, words(value)
        )
    return made


def _legend(names: Sequence[str]) -> Markup:
    made, x = Markup(""), _LEFT + 4
    for number, name in enumerate(names):
        made += Markup('<line class="line line-{}" x1="{}" x2="{}" y1="6" y2="6"/>').format(number, x, x + 20)
        made += Markup('<text class="tick" x="{}" y="9.5">{}</text>').format(x + 26, name)
        x += 40 + 7 * len(name)
    return made


def _runs(points: Sequence[tuple[float, float] | None]) -> list[list[tuple[float, float]]]:
    """The points between gaps."""
    runs: list[list[tuple[float, float]]] = [[]]
    for point in points:
        if point:
            runs[-1].append(point)
        elif runs[-1]:
            runs.append([])
    return [run for run in runs if run]


def _table(series: Sequence[Series], x: Format, y: Format) -> tuple[tuple[str, ...], ...]:
    """A row for each place that a series has a point at."""
    at = [{point[0]: point[1] for point in one.points if point} for one in series]
    places = sorted({place for one in at for place in one})
    return tuple((x(place), *(y(one[place]) if place in one else "" for one in at)) for place in places)


def _ticks(most: float, whole: bool = False) -> list[float]:
    """Two to five round numbers from 0 on, the last at least `most`."""
    if not most > 1e-9 or not math.isfinite(most):
        return [0.0, 1.0]
    size = 10 ** math.floor(math.log10(most))
    step = next(size * part for part in (0.25, 0.5, 1, 2.5) if size * part * 4 >= most)
    step = math.ceil(step) if whole else step
    return [step * n for n in range(math.ceil(most / step - 1e-9) + 1)]


def _short(name: str) -> str:
    return str(cut(printable(name), _NAME - 1))
