"""A scatter as SVG: points over a logarithmic cost, each with its name where there is room."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise

from understudy.report.axes import scale, usable
from understudy.report.frame import EDGE, NAME, Frame, axes, mark, svg, text_width
from understudy.report.numbers import plain, shortened

LINE = 14  # from one line of small text to the next
APART = 11  # pixels between marks of the same x
SAME = 3.0  # pixels: marks that are nearer than that have the same x

_Box = tuple[float, float, float, float]  # left, top, right, bottom in pixels
_Place = tuple[
    float, float, float | None
]  # left edge, middle, and where a leading line ends; None: none is needed


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


def scatter(
    marks: Sequence[Mark],
    *,
    about: str,
    x_label: str,
    y_label: str,
    x_text: Callable[[float], str] | None = None,
    size: tuple[int, int] = (400, 310),
    bounds: tuple[float, float] = (float("-inf"), float("inf")),
    with_front: bool = False,
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
        with_front: a line joins the marks of ``front``, and goes on to the right from the last one.
    """
    marks = [one for one in marks if usable(one.x) and (one.x or 0) > 0 and usable(one.y)]
    frame = Frame.within(size, left=46, bottom=42)
    x = scale((one.x for one in marks), start=frame.left, end=frame.right, log=True, room=0.1)
    y = scale(
        [figure for one in marks for figure in (one.y, *(one.interval or ()))],
        start=frame.bottom,
        end=frame.top,
        bounds=bounds,
    )
    if x is None or y is None:
        return ""
    best = front(marks) if with_front else []
    places = _side_by_side([(x(one.x or 0), y(one.y or 0)) for one in marks], frame, keep=best)
    parts = [axes(frame, x, y, x_label, y_label, x_text=x_text)]
    corners = [places[number] for number in best]
    if corners:
        path = "".join(f"H{across:.1f}V{up:.1f}" for across, up in corners[1:])
        start = f"M{corners[0][0]:.1f} {corners[0][1]:.1f}"
        parts.append(f'<path class="front" d="{start}{path}H{frame.right:.1f}"/>')
    bars = []
    for one, (across, _) in zip(marks, places, strict=True):
        if one.interval and all(map(usable, one.interval)):
            low, high = y(one.interval[0]), y(one.interval[1])
            path = f"M{across:.1f} {low:.1f}V{high:.1f}m-3 0h6M{across - 3:.1f} {low:.1f}h6"
            parts.append(f'<path class="bar {escape(one.kind)}" d="{path}"/>')
            bars.append((across - 3, high, across + 3, low))
    parts += _names(marks, places, frame, bars, _stairs(corners, frame))
    parts += [
        mark(one.kind, one.shape, place, about=one.about, strong=one.strong)
        for one, place in zip(marks, places, strict=True)
    ]
    return svg(size, about, parts)


def front(marks: Sequence[Mark]) -> list[int]:
    """Positions of the Pareto front, by rising x: marks above all whose x is as small or smaller.

    Of marks with the same x and y the first is taken; one that cannot be drawn is not on the front.

    >>> at = [(10, 60), (10, 70), (20, 65), (30, 80), (None, 99)]
    >>> front([Mark(x=x, y=y, name="", kind="", about="") for x, y in at])
    [1, 3]
    """
    drawn = [
        (one.x, -one.y, number)
        for number, one in enumerate(marks)
        if one.x is not None and one.y is not None and usable(one.x) and usable(one.y) and one.x > 0
    ]
    found: list[int] = []
    highest = float("-inf")
    for _, below, number in sorted(drawn):
        if -below > highest:
            highest = -below
            found.append(number)
    return found


def _side_by_side(
    places: Sequence[tuple[float, float]], frame: Frame, *, keep: Sequence[int]
) -> list[tuple[float, float]]:
    """Marks of one x, such as students of one size, drawn a little apart so that the bar of each can be seen.

    Those of ``keep`` stay where they are, and the others of their x beside them.
    """
    groups: list[list[int]] = []
    for number in sorted(range(len(places)), key=lambda number: places[number][0]):
        if groups and places[number][0] - places[groups[-1][0]][0] < SAME:
            groups[-1].append(number)
        else:
            groups.append([number])
    apart = list(places)
    for group in groups:
        others = sorted(number for number in group if number not in keep)
        gap = min(APART, (frame.right - frame.left) / 6 / len(group))
        middle = (len(others) - 1) / 2
        for position, number in enumerate(others):
            # beside those that stay: to the right, to the left, further to the right, ...
            beside = (position // 2 + 1) * (-1) ** position if len(others) < len(group) else position - middle
            across = places[number][0] + gap * beside
            apart[number] = (min(max(across, frame.left), frame.right), places[number][1])
    return apart


def _stairs(corners: Sequence[tuple[float, float]], frame: Frame) -> list[_Box]:
    """Boxes along the line that joins ``corners``, with some room."""
    boxes = []
    for (x, y), (next_x, next_y) in pairwise([*corners, (frame.right, corners[-1][1])] if corners else []):
        boxes += [(x, y - 2, next_x, y + 2), (next_x - 2, next_y, next_x + 2, y)]
    return boxes


def _names(
    marks: Sequence[Mark],
    places: Sequence[tuple[float, float]],
    frame: Frame,
    bars: Sequence[_Box],
    stairs: Sequence[_Box],
) -> Iterator[str]:
    """Each name as near to its mark as it may stand: inside the frame, over no mark, no bar, no other name or its line.

    It keeps off ``stairs`` too where it can. A name that stands off its mark has a line to it. The strong one chooses
    first. One for which there is no room is left out: its mark still says it when pointed at, and the table has all.
    """
    taken = [*bars, *((x - 7, y - 7, x + 7, y + 7) for x, y in places)]
    for number in sorted(range(len(marks)), key=lambda number: (not marks[number].strong, places[number][1])):
        name, strong = shortened(plain(marks[number].name), NAME), marks[number].strong
        x, y = places[number]
        width = text_width(name)
        found = _place(x, y, width, frame, [*taken, *stairs], strong=strong) or _place(
            x, y, width, frame, taken, strong=strong
        )
        if found is None:
            continue
        (left, middle, joint), boxes = found
        taken += boxes
        if joint is not None:
            yield f'<path class="leader" d="M{x:.1f} {y:.1f}L{joint:.1f} {middle:.1f}"/>'
        yield f'<text class="name" x="{left:.1f}" y="{middle + 4:.1f}">{escape(name)}</text>'


def _place(
    x: float, y: float, width: float, frame: Frame, taken: Sequence[_Box], *, strong: bool
) -> tuple[_Place, list[_Box]] | None:
    """The best free place of a name and what it covers there with its line; None: there is none."""
    for left, middle, joint in _candidates(x, y, width):
        box = (left, middle - LINE / 2, left + width, middle + LINE / 2)
        inside = frame.left <= box[0] and box[2] <= frame.right + EDGE - 2
        inside = inside and frame.top <= box[1] and box[3] < frame.bottom
        line = [] if joint is None else _along((x, y), (joint, middle))
        free = [box] if strong else [box, *line]  # the line of a strong one may pass behind other marks
        if inside and not any(_overlap(one, other) for one in free for other in taken):
            return (left, middle, joint), [box, *line]
    return None


def _along(start: tuple[float, float], end: tuple[float, float]) -> list[_Box]:
    """Small boxes along a line, from where it leaves its mark."""
    steps = [0.4, 0.55, 0.7, 0.85, 1.0]
    points = [(start[0] + s * (end[0] - start[0]), start[1] + s * (end[1] - start[1])) for s in steps]
    return [
        (x - 1, y - 1, x + 1, y + 1) for x, y in points if max(abs(x - start[0]), abs(y - start[1])) > 8.5
    ]


def _candidates(x: float, y: float, width: float) -> Iterator[_Place]:
    """Places for a name, from the best to the worst."""
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
