"""Charts as SVG: curves, and rows of dots with their intervals; ``scatter`` and ``bars`` have files of their own.

Pure functions from figures to text. A chart knows no run and no stage: figures come in the unit that its axis names,
and what something is (``kind``) becomes a class that the page's style gives a colour. Shapes differ with the kind as
well, so that a chart can be read without colours. Figures that are missing, NaN or infinite are left out; a chart with
nothing to show is an empty string. All text is escaped.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from itertools import groupby

from understudy.report.axes import Scale, scale, usable
from understudy.report.frame import EDGE, NAME, Frame, axes, below, mark, svg, text_width, title
from understudy.report.numbers import plain, shortened


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
    frame = Frame.within(size, left=46, bottom=40)
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
    parts = [axes(frame, x, y, x_label, y_label, whole=True)]
    for line in sorted(lines, key=lambda line: line.kind == "mean"):
        parts += _stretches(line, x, y)
    return svg(size, about, [f'<g class="{escape(kind)}">', *parts, "</g>"])


def _stretches(line: Line, x: Scale, y: Scale) -> Iterator[str]:
    """One path for each stretch without a gap; a dot where a stretch is one point."""
    for drawn, stretch in groupby(line.points, key=lambda point: usable(point[0]) and usable(point[1])):
        if not drawn:
            continue
        places = [f"{x(at):.1f} {y(value):.1f}" for at, value in stretch if value is not None]
        path = f"M{places[0]}h0" if len(places) == 1 else f"M{'L'.join(places)}"
        yield f'<path class="line {escape(line.kind)}" d="{path}">{title(line.about)}</path>'


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
    frame = Frame(left=min(room, width / 2) + 12, top=6, right=width - EDGE, bottom=height - 42.0)
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
    parts = [below(frame, x, x_label)]
    if reference is not None:
        parts.append(f'<path class="reference" d="M{x(reference):.1f} {frame.top}V{frame.bottom}"/>')
    for number, row in enumerate(lines):
        middle = frame.top + 24 * number + 13
        weight = ' class="strong"' if row.strong else ""
        parts.append(
            f'<text{weight} x="{frame.left - 8:.1f}" y="{middle + 4}" text-anchor="end">'
            f"{escape(names[number])}{title(row.about)}</text>"
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
            place = (x(row.mean), middle)
            parts.append(mark(row.kind, row.shape, place, about=row.about, strong=row.strong))
    return svg((width, height), about, parts)
