"""Charts as SVG: curves, a scatter, and rows of dots with their intervals.

Pure functions from figures to text. A chart knows no run and no stage: figures come in the unit that its axis names,
and what something is (``kind``) becomes a class that the page's style gives a colour. Shapes differ with the kind as
well, so that a chart can be read without colours. Figures that are missing, NaN or infinite are left out; a chart with
nothing to show is an empty string. All text is escaped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from itertools import groupby

from rich.cells import cell_len

from understudy.report.axes import Scale, scale, ticks, usable
from understudy.report.numbers import plain, shortened

NAME = 20  # letters of a stage's name that are shown
EDGE = 12.0  # pixels left free on the right
LINE = 14  # from one line of small text to the next
APART = 11  # pixels between marks of the same x
BETWEEN = 46  # pixels between ticks below an axis, so that their figures stay apart

_WIDTHS = {  # pixels that letters of 12 px take in the wider ones of the usual fonts; other letters: by what they are
    **dict.fromkeys("mMW@%…—", 12.0),
    **dict.fromkeys("w<>=+~#&", 10.2),
    **dict.fromkeys("iljI.,'|:;!()[]/ -ftr\"", 5.6),
}
_BOLD = 1.13

_Box = tuple[float, float, float, float]  # left, top, right, bottom in pixels

SHAPES = {  # outlines around (0, 0), all of about the same area
    "circle": "M-4.5 0a4.5 4.5 0 1 0 9 0a4.5 4.5 0 1 0 -9 0z",
    "square": "M-4 -4h8v8h-8z",
    "diamond": "M0 -5.8L5.8 0L0 5.8L-5.8 0z",
    "triangle": "M0 -5.4L5.2 4.2L-5.2 4.2z",
    "cross": "M-5 -2.2L-2.2 -5L0 -2.8L2.2 -5L5 -2.2L2.8 0L5 2.2L2.2 5L0 2.8L-2.2 5L-5 2.2L-2.8 0z",
    "down": "M0 5.4L5.2 -4.2L-5.2 -4.2z",
}
SHAPE_OF = {"teacher": "circle", "assistant": "square", "student": "diamond", "control": "triangle"}


def text_width(text: str, *, strong: bool = False) -> float:
    """About how many pixels a text of 12 px takes at most: what is drawn here is laid out before any font is known.

    >>> text_width("mm") > text_width("oo") > text_width("ii")
    True
    """
    width = 0.0
    for letter in text:
        usual = 9.3 if letter.isupper() else 7.7
        width += _WIDTHS.get(letter, usual if cell_len(letter) < 2 else 12.5)
    return width * (_BOLD if strong else 1.0)


@dataclass(frozen=True, kw_only=True)
class Line:
    """A curve: its points by rising x; one that cannot be drawn leaves a gap.

    Attributes:
        kind: ``seed`` for a thin line, ``mean`` for a thick one.
    """

    points: Sequence[tuple[float, float | None]]
    kind: str
    about: str


@dataclass(frozen=True, kw_only=True)
class Mark:
    """A point of a scatter.

    Attributes:
        interval: (low, high) of y, drawn as a bar.
        kind: class for its colour.
        shape: one of ``SHAPES``; empty: that of its kind.
        strong: drawn with a ring.
    """

    x: float | None
    y: float | None
    name: str
    kind: str
    about: str
    interval: tuple[float, float] | None = None
    shape: str = ""
    strong: bool = False


@dataclass(frozen=True, kw_only=True)
class Row:
    """A line of a chart of rows: a dot for each value, a mark at their mean, a bar for an interval."""

    name: str
    kind: str
    about: str
    dots: Sequence[float | None] = ()
    mean: float | None = None
    interval: tuple[float, float] | None = None
    shape: str = ""
    strong: bool = False


def curves(
    lines: Sequence[Line],
    *,
    kind: str,
    about: str,
    x_label: str,
    y_label: str,
    size: tuple[int, int] = (330, 170),
    x_range: tuple[float, float] | None = None,
    y_range: tuple[float, float] | None = None,
    bounds: tuple[float, float] = (float("-inf"), float("inf")),
) -> str:
    """Lines over whole numbers such as epochs.

    Args:
        lines: thin ones below, then thick ones.
        kind: class for the colour of all of them.
        about: what the chart shows, for those who cannot see it.
        x_label: with its unit.
        y_label: with its unit.
        size: width and height in pixels.
        x_range: shown at least, so that charts side by side can be compared.
        y_range: the same for y.
        bounds: beyond which no y can lie.
    """
    points = [(x, y) for line in lines for x, y in line.points if usable(x) and usable(y)]
    frame = _Frame.within(size, left=46, bottom=40)
    x = scale([*(x for x, _ in points), *(x_range or ())], start=frame.left, end=frame.right, room=0.03)
    y = scale(
        [*(y for _, y in points), *(y_range or ())],
        start=frame.bottom,
        end=frame.top,
        bounds=bounds,
        room=0.05,
    )
    if not points or x is None or y is None:
        return ""
    parts = [_axes(frame, x, y, x_label, y_label, whole=True)]
    for line in sorted(lines, key=lambda line: line.kind == "mean"):
        parts += _stretches(line, x, y)
    return _svg(size, about, [f'<g class="{escape(kind)}">', *parts, "</g>"])


def _stretches(line: Line, x: Scale, y: Scale) -> Iterator[str]:
    """One path for each stretch without a gap; a dot where a stretch is one point."""
    for drawn, stretch in groupby(line.points, key=lambda point: usable(point[0]) and usable(point[1])):
        if not drawn:
            continue
        places = [f"{x(at):.1f} {y(value):.1f}" for at, value in stretch if value is not None]
        path = f"M{places[0]}h0" if len(places) == 1 else f"M{'L'.join(places)}"
        yield f'<path class="line {escape(line.kind)}" d="{path}">{_title(line.about)}</path>'


def scatter(
    marks: Sequence[Mark],
    *,
    about: str,
    x_label: str,
    y_label: str,
    x_text: Callable[[float], str] | None = None,
    size: tuple[int, int] = (400, 310),
    bounds: tuple[float, float] = (float("-inf"), float("inf")),
) -> str:
    """Points over a logarithmic x, each with its name beside it where there is room.

    Args:
        marks: those whose x is not above 0 are left out.
        about: what the chart shows, for those who cannot see it.
        x_label: with its unit.
        y_label: with its unit.
        x_text: how a figure on the x axis is written.
        size: width and height in pixels.
        bounds: beyond which no y can lie.
    """
    marks = [mark for mark in marks if usable(mark.x) and (mark.x or 0) > 0 and usable(mark.y)]
    frame = _Frame.within(size, left=46, bottom=42)
    x = scale((mark.x for mark in marks), start=frame.left, end=frame.right, log=True, room=0.1)
    y = scale(
        [figure for mark in marks for figure in (mark.y, *(mark.interval or ()))],
        start=frame.bottom,
        end=frame.top,
        bounds=bounds,
    )
    if x is None or y is None:
        return ""
    parts = [_axes(frame, x, y, x_label, y_label, x_text=x_text)]
    places = _side_by_side([(x(mark.x or 0), y(mark.y or 0)) for mark in marks], frame)
    bars = []
    for mark, (across, _) in zip(marks, places, strict=True):
        if mark.interval and all(map(usable, mark.interval)):
            low, high = y(mark.interval[0]), y(mark.interval[1])
            path = f"M{across:.1f} {low:.1f}V{high:.1f}m-3 0h6M{across - 3:.1f} {low:.1f}h6"
            parts.append(f'<path class="bar {escape(mark.kind)}" d="{path}"/>')
            bars.append((across - 3, high, across + 3, low))
    parts += _names(marks, places, frame, bars)
    parts += [_mark(mark, place) for mark, place in zip(marks, places, strict=True)]
    return _svg(size, about, parts)


def rows(
    lines: Sequence[Row],
    *,
    about: str,
    x_label: str,
    reference: float | None = None,
    width: int = 400,
    bounds: tuple[float, float] = (float("-inf"), float("inf")),
) -> str:
    """One row for each name: dots for single values, a mark for the mean, a bar for an interval.

    Args:
        lines: from top to bottom; a row without figures keeps its name.
        about: what the chart shows, for those who cannot see it.
        x_label: with its unit.
        reference: where a line stands from top to bottom, such as 0 for differences.
        width: in pixels.
        bounds: beyond which no x can lie; an interval that reaches further ends there.
    """
    names = [shortened(plain(row.name), NAME) for row in lines]
    height = 24 * len(lines) + 50
    room = max(
        (text_width(name, strong=row.strong) for name, row in zip(names, lines, strict=True)), default=0.0
    )
    frame = _Frame(left=min(room, width / 2) + 12, top=6, right=width - EDGE, bottom=height - 42.0)
    intervals = [
        tuple(min(max(end, bounds[0]), bounds[1]) for end in row.interval)
        if row.interval and all(map(usable, row.interval))
        else ()
        for row in lines
    ]
    values = [figure for row in lines for figure in (*row.dots, row.mean)]
    values += [end for interval in intervals for end in interval]
    x = scale([*values, reference], start=frame.left, end=frame.right, bounds=bounds)
    if x is None or not any(usable(value) for value in values):
        return ""
    parts = [_below(frame, x, x_label)]
    if reference is not None:
        parts.append(f'<path class="reference" d="M{x(reference):.1f} {frame.top}V{frame.bottom}"/>')
    for number, row in enumerate(lines):
        middle = frame.top + 24 * number + 13
        weight = ' class="strong"' if row.strong else ""
        parts.append(
            f'<text{weight} x="{frame.left - 8:.1f}" y="{middle + 4}" text-anchor="end">'
            f"{escape(names[number])}{_title(row.about)}</text>"
        )
        if intervals[number]:
            low, high = (x(end) for end in intervals[number])
            path = f"M{low:.1f} {middle}H{high:.1f}M{low:.1f} {middle - 4}v8M{high:.1f} {middle - 4}v8"
            parts.append(f'<path class="bar {escape(row.kind)}" d="{path}"/>')
        parts += [
            f'<circle class="dot {escape(row.kind)}" cx="{x(dot):.1f}" cy="{middle}" r="3"/>'
            for dot in row.dots
            if dot is not None and usable(dot)
        ]
        if row.mean is not None and usable(row.mean):
            mark = Mark(x=0, y=0, name="", kind=row.kind, about=row.about, shape=row.shape, strong=row.strong)
            parts.append(_mark(mark, (x(row.mean), middle)))
    return _svg((width, height), about, parts)


@dataclass(frozen=True, kw_only=True)
class _Frame:
    """Where figures may stand, in pixels."""

    left: float
    top: float
    right: float
    bottom: float

    @classmethod
    def within(cls, size: tuple[int, int], *, left: float, bottom: float) -> _Frame:
        return cls(left=left, top=22, right=size[0] - EDGE, bottom=size[1] - bottom)


def _axes(
    frame: _Frame,
    x: Scale,
    y: Scale,
    x_label: str,
    y_label: str,
    *,
    whole: bool = False,
    x_text: Callable[[float], str] | None = None,
) -> str:
    lines = []
    for tick in ticks(y, most=max(2, min(6, int((frame.bottom - frame.top) / 24)))):
        place = y(tick.value)
        lines.append(f'<path class="grid" d="M{frame.left:.1f} {place:.1f}H{frame.right:.1f}"/>')
        lines.append(
            f'<text class="tick" x="{frame.left - 6:.1f}" y="{place + 4:.1f}" text-anchor="end">{escape(tick.text)}</text>'
        )
    lines.append(f'<text class="label" x="2" y="12">{escape(y_label)}</text>')
    return "".join(lines) + _below(frame, x, x_label, whole=whole, text=x_text)


def _below(
    frame: _Frame,
    x: Scale,
    label: str,
    *,
    whole: bool = False,
    text: Callable[[float], str] | None = None,
) -> str:
    lines = [f'<path class="axis" d="M{frame.left:.1f} {frame.bottom:.1f}H{frame.right:.1f}"/>']
    for tick in ticks(x, most=max(2, int((frame.right - frame.left) / BETWEEN)), whole=whole, text=text):
        place = x(tick.value)
        lines.append(f'<path class="axis" d="M{place:.1f} {frame.bottom:.1f}v4"/>')
        room = frame.right + EDGE - text_width(tick.text) / 2  # the last figure is not cut by the edge
        lines.append(
            f'<text class="tick" x="{min(place, room):.1f}" y="{frame.bottom + 16:.1f}" text-anchor="middle">'
            f"{escape(tick.text)}</text>"
        )
    lines.append(
        f'<text class="label" x="{frame.right:.1f}" y="{frame.bottom + 33:.1f}" text-anchor="end">{escape(label)}</text>'
    )
    return "".join(lines)


def _mark(mark: Mark, place: tuple[float, float]) -> str:
    shape = SHAPES[mark.shape or SHAPE_OF.get(mark.kind, "circle")]
    ring = " strong" if mark.strong else ""
    return (
        f'<path class="mark {escape(mark.kind)}{ring}" transform="translate({place[0]:.1f} {place[1]:.1f})" d="{shape}">'
        f"{_title(mark.about)}</path>"
    )


def _side_by_side(places: Sequence[tuple[float, float]], frame: _Frame) -> list[tuple[float, float]]:
    """Marks of one x, such as students of one size, drawn a little apart so that the bar of each can be seen."""
    order = sorted(range(len(places)), key=lambda number: places[number][0])
    apart = list(places)
    for _, same in groupby(order, key=lambda number: round(places[number][0], 1)):
        group = list(same)
        gap = min(APART, (frame.right - frame.left) / 6 / len(group))
        for position, number in enumerate(group):
            across = places[number][0] + gap * (position - (len(group) - 1) / 2)
            apart[number] = (min(max(across, frame.left), frame.right), places[number][1])
    return apart


def _names(
    marks: Sequence[Mark], places: Sequence[tuple[float, float]], frame: _Frame, bars: Sequence[_Box]
) -> Iterator[str]:
    """Each name as near to its mark as it may stand: inside the frame, over no mark, no bar, no other name or its line.

    A name that stands off its mark has a line to it. The strong one chooses first. One for which there is no room is
    left out: its mark still says it when pointed at, and the table has all of them.
    """
    taken = [*bars, *((x - 7, y - 7, x + 7, y + 7) for x, y in places)]
    for number in sorted(range(len(marks)), key=lambda number: (not marks[number].strong, places[number][1])):
        name = shortened(plain(marks[number].name), NAME)
        x, y = places[number]
        width = text_width(name)
        for left, middle, joint in _candidates(x, y, width):
            box = (left, middle - LINE / 2, left + width, middle + LINE / 2)
            inside = frame.left <= box[0] and box[2] <= frame.right + EDGE - 2
            inside = inside and frame.top <= box[1] and box[3] < frame.bottom
            line = [] if joint is None else _along((x, y), (joint, middle))
            free = [box] if marks[number].strong else [box, *line]  # its line may pass behind other marks
            if not inside or any(_overlap(one, other) for one in free for other in taken):
                continue
            taken += [box, *line]
            if joint is not None:
                yield f'<path class="leader" d="M{x:.1f} {y:.1f}L{joint:.1f} {middle:.1f}"/>'
            yield f'<text class="name" x="{left:.1f}" y="{middle + 4:.1f}">{escape(name)}</text>'
            break


def _along(start: tuple[float, float], end: tuple[float, float]) -> list[_Box]:
    """Small boxes along a line, from where it leaves its mark."""
    steps = [0.4, 0.55, 0.7, 0.85, 1.0]
    points = [(start[0] + s * (end[0] - start[0]), start[1] + s * (end[1] - start[1])) for s in steps]
    return [
        (x - 1, y - 1, x + 1, y + 1) for x, y in points if max(abs(x - start[0]), abs(y - start[1])) > 8.5
    ]


def _candidates(x: float, y: float, width: float) -> Iterator[tuple[float, float, float | None]]:
    """Left edge, middle, and where a leading line ends (None: none is needed), from the best place to the worst."""
    yield x + 9, y, None
    yield x - 9 - width, y, None
    yield x - width / 2, y - 14, None
    yield x - width / 2, y + 15, None
    for away in range(LINE, 6 * LINE, LINE // 2):
        for out in (18, 34, 60):
            for down in (-away, away):
                yield x + out, y + down, x + out - 2
                yield x - out - width, y + down, x - out + 2


def _overlap(one: _Box, other: _Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _title(text: str) -> str:
    return f"<title>{escape(plain(text))}</title>" if text else ""


def _svg(size: tuple[int, int], about: str, parts: Iterable[str]) -> str:
    return (
        f'<svg class="chart" viewBox="0 0 {size[0]} {size[1]}" style="max-width:{size[0] * 1.2:.0f}px" role="img" '
        f'aria-label="{escape(plain(about))}">{"".join(parts)}</svg>'
    )
