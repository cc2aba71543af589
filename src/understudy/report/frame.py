"""What charts as SVG have in common: the frame and its axes, shapes, room for text, and the picture around it all."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from html import escape

from rich.cells import cell_len

from understudy.report.axes import Scale, ticks
from understudy.report.numbers import plain

NAME = 20  # letters of a stage's name that are shown
EDGE = 12.0  # pixels left free on the right
BETWEEN = 46  # pixels between ticks below an axis, so that their figures stay apart

_WIDTHS = {  # pixels that letters of 12 px take in the wider ones of the usual fonts; other letters: by what they are
    **dict.fromkeys("mMW@%…—", 12.0),
    **dict.fromkeys("w<>=+~#&", 10.2),
    **dict.fromkeys("iljI.,'|:;!()[]/ -ftr\"", 5.6),
}
_BOLD = 1.13

SHAPES = {  # outlines around (0, 0), all of about the same area
    "circle": "M-4.5 0a4.5 4.5 0 1 0 9 0a4.5 4.5 0 1 0 -9 0z",
    "square": "M-4 -4h8v8h-8z",
    "diamond": "M0 -5.8L5.8 0L0 5.8L-5.8 0z",
    "triangle": "M0 -5.4L5.2 4.2L-5.2 4.2z",
    "cross": "M-5 -2.2L-2.2 -5L0 -2.8L2.2 -5L5 -2.2L2.8 0L5 2.2L2.2 5L0 2.8L-2.2 5L-5 2.2L-2.8 0z",
    "hexagon": "M-5 0L-2.5 -4.4L2.5 -4.4L5 0L2.5 4.4L-2.5 4.4z",
    "down": "M0 5.4L5.2 -4.2L-5.2 -4.2z",
}
SHAPE_OF = {
    "teacher": "circle",
    "assistant": "square",
    "preparation": "hexagon",
    "search": "cross",
    "structure": "down",
    "student": "diamond",
    "control": "triangle",
}


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
class Frame:
    """Where figures may stand, in pixels."""

    left: float
    top: float
    right: float
    bottom: float

    @classmethod
    def within(cls, size: tuple[int, int], *, left: float, bottom: float) -> Frame:
        """What is left of ``size`` beside the figures and labels of the axes."""
        return cls(left=left, top=22, right=size[0] - EDGE, bottom=size[1] - bottom)


def axes(
    frame: Frame,
    x: Scale,
    y: Scale,
    x_label: str,
    y_label: str,
    *,
    whole: bool = False,
    x_text: Callable[[float], str] | None = None,
) -> str:
    """Both axes with their figures, and a line across for each figure of y.

    Args:
        frame: between them.
        x: figures to places, from left to right.
        y: figures to places, upwards.
        x_label: with its unit.
        y_label: with its unit.
        whole: x has whole numbers only.
        x_text: how a figure below the axis is written.
    """
    lines = []
    for tick in ticks(y, most=max(2, min(6, int((frame.bottom - frame.top) / 24)))):
        place = y(tick.value)
        lines.append(f'<path class="grid" d="M{frame.left:.1f} {place:.1f}H{frame.right:.1f}"/>')
        lines.append(
            f'<text class="tick" x="{frame.left - 6:.1f}" y="{place + 4:.1f}" text-anchor="end">{escape(tick.text)}</text>'
        )
    lines.append(f'<text class="label" x="2" y="12">{escape(y_label)}</text>')
    return "".join(lines) + below(frame, x, x_label, whole=whole, text=x_text)


def below(
    frame: Frame,
    x: Scale,
    label: str,
    *,
    whole: bool = False,
    text: Callable[[float], str] | None = None,
) -> str:
    """The axis of x alone; see ``axes``."""
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


def mark(kind: str, shape: str, place: tuple[float, float], *, about: str = "", strong: bool = False) -> str:
    """A shape at a place; a strong one has a ring."""
    ring = " strong" if strong else ""
    outline = SHAPES[shape or SHAPE_OF.get(kind, "circle")]
    return (
        f'<path class="mark {escape(kind)}{ring}" transform="translate({place[0]:.1f} {place[1]:.1f})" d="{outline}">'
        f"{title(about)}</path>"
    )


def title(text: str) -> str:
    """What is said of a shape when it is pointed at; nothing for an empty text."""
    return f"<title>{escape(plain(text))}</title>" if text else ""


def svg(size: tuple[int, int], about: str, parts: Iterable[str]) -> str:
    """The whole chart, which grows and shrinks with the page.

    Args:
        size: width and height in pixels; it grows by a fifth at most.
        about: what it shows, for those who cannot see it.
        parts: what is drawn, from below to above.
    """
    return (
        f'<svg class="chart" viewBox="0 0 {size[0]} {size[1]}" style="max-width:{size[0] * 1.2:.0f}px" role="img" '
        f'aria-label="{escape(plain(about))}">{"".join(parts)}</svg>'
    )
