"""Widths of a network's layers before and after as SVG: pale and dark bars in the order in which the layers run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from itertools import groupby

from understudy.report.axes import Scale, ticks
from understudy.report.frame import text_width, title
from understudy.report.numbers import plain, shortened

HEIGHT = 150  # pixels of the highest bar
LEFT, TOP, BELOW = 46, 22, 44
ROOM = 700  # pixels for all bars of a network of usual depth
NARROWEST, WIDEST = (
    8.0,
    40.0,
)  # pixels from one bar to the next: deep networks are scrolled rather than squeezed
UNEVEN = 16  # widest through narrowest layer, from where the axis has square roots
SMALL = 0.96  # of a text's size, to that of text_width
ROW = 14
NEARLY_ALL = 0.75


@dataclass(frozen=True, kw_only=True)
class Bar:
    """A layer: its dotted name and how many output channels it has; 0 after: it is dropped."""

    name: str
    before: int
    after: int


def bars(layers: Sequence[Bar], *, kind: str, about: str) -> str:
    """A pale bar for each layer as it was, in it a dark one for what is left; an empty one where nothing is.

    As large as it has to be: bars are never narrower than can be seen. Square roots where layers differ much in width,
    which its axis says.

    Args:
        layers: in the order in which they run; those without channels before are left out.
        kind: class for the colour.
        about: what the chart shows, for those who cannot see it.
    """
    layers = [layer for layer in layers if layer.before > 0]
    if not layers:
        return ""
    most = max(layer.before for layer in layers)
    inner = layers[:-1] or layers  # the last has as many as there are classes
    uneven = most / min(layer.before for layer in inner) > UNEVEN
    power = 0.5 if uneven else 1.0
    step = min(WIDEST, max(NARROWEST, ROOM / len(layers)))
    label = "output channels (square-root scale)" if uneven else "output channels"
    width = max(LEFT + step * len(layers) + 4, text_width(label) + 4)
    floor = TOP + HEIGHT

    def height(channels: float) -> float:
        return float(HEIGHT * (channels / most) ** power)

    axis = Scale(low=0.0, high=float(most), start=floor, end=TOP)
    parts = [f'<text class="label" x="2" y="12">{label}</text>']
    for tick in ticks(axis, most=4 if uneven else 5, whole=True):
        place = floor - height(tick.value)
        parts.append(f'<path class="grid" d="M{LEFT} {place:.1f}H{width:.1f}"/>')
        parts.append(
            f'<text class="tick" x="{LEFT - 6}" y="{place + 4:.1f}" text-anchor="end">{tick.text}</text>'
        )
    for number, layer in enumerate(layers):
        parts.append(_bar(layer, LEFT + step * (number + 0.14), 0.72 * step, floor, height))
    parts.append(f'<path class="axis" d="M{LEFT} {floor}H{width:.1f}"/>')
    parts += _labels([layer.name for layer in layers], step, width)
    return (
        f'<svg class="chart widths" width="{width:.0f}" height="{floor + BELOW}" '
        f'viewBox="0 0 {width:.0f} {floor + BELOW}" role="img" aria-label="{escape(plain(about))}">'
        f'<g class="{escape(kind)}">{"".join(parts)}</g></svg>'
    )


def _bar(layer: Bar, left: float, width: float, floor: float, height: Callable[[float], float]) -> str:
    after = max(0, min(layer.after, layer.before))
    words = (
        f"{layer.before:,} → {layer.after:,} channels"
        if layer.after
        else f"{layer.before:,} channels, dropped"
    )
    outline = f"M{left:.1f} {floor}v-{height(layer.before):.1f}h{width:.1f}v{height(layer.before):.1f}z"
    if not after:
        half = min(3.0, width / 2)
        cross = f"M{left + width / 2 - half:.1f} {floor - 4 - half:.1f}l{2 * half:.1f} {2 * half:.1f}m0 -{2 * half:.1f}"
        cross += f"l-{2 * half:.1f} {2 * half:.1f}"
        shapes = f'<path class="gone" d="{outline}"/><path class="crossed" d="{cross}"/>'
    else:
        inner = f"M{left:.1f} {floor}v-{height(after):.1f}h{width:.1f}v{height(after):.1f}z"
        shapes = f'<path class="before" d="{outline}"/><path class="after" d="{inner}"/>'
    return f"<g>{title(f'{layer.name}: {words}')}{shapes}</g>"


def groups(names: Sequence[str]) -> list[tuple[str, int]]:
    """Parts of a network by the first words of their layers' dotted names, and how many layers each has, in order.

    A part of nearly all layers is divided further.

    >>> groups(["stem", "stage1.0.a", "stage1.1.a", "stage2.0.a", "head"])
    [('stem', 1), ('stage1', 2), ('stage2', 1), ('head', 1)]
    >>> groups([*(f"features.conv{number}" for number in range(1, 5)), "classifier.output"])
    [('features.conv1', 1), ('features.conv2', 1), ('features.conv3', 1), ('features.conv4', 1), ('classifier', 1)]
    """
    return _grouped(list(names), 1, len(names))


def _grouped(names: Sequence[str], depth: int, whole: int) -> list[tuple[str, int]]:
    found: list[tuple[str, int]] = []
    for start, same in groupby(names, key=lambda name: ".".join(name.split(".")[:depth])):
        members = list(same)
        deeper = any(name.count(".") >= depth for name in members)
        if len(members) > NEARLY_ALL * whole and deeper:
            found += _grouped(members, depth + 1, whole)
        else:
            found.append((start, len(members)))
    return found


def _labels(names: Sequence[str], step: float, width: float) -> Iterator[str]:
    """A line below each part of the network and its name, in two rows where one is too narrow; what fits in neither is left out."""
    parts = groups(names)
    spans, start = [], 0
    for _, layers in parts:
        spans.append((LEFT + step * (start + 0.14), LEFT + step * (start + layers - 0.14)))
        start += layers
    line = TOP + HEIGHT + 6
    yield "".join(f'<path class="axis" d="M{left:.1f} {line}H{right:.1f}"/>' for left, right in spans)
    whole = [plain(name) for name, _ in parts]
    last = [name.rpartition(".")[2] for name in whole]
    for text, middle, row in max(_rows(whole, spans, width), _rows(last, spans, width), key=len):
        yield f'<text class="tick" x="{middle:.1f}" y="{line + 14 + ROW * row}" text-anchor="middle">{escape(text)}</text>'


def _rows(
    names: Sequence[str], spans: Sequence[tuple[float, float]], width: float
) -> list[tuple[str, float, int]]:
    """Each name with its middle and its row, where there is room for it."""
    ends = [0.0, 0.0]
    placed = []
    for name, (left, right) in zip(names, spans, strict=True):
        text = shortened(name, 24)
        half = SMALL * text_width(text) / 2
        middle = min(max((left + right) / 2, half), width - half)
        row = next((row for row in (0, 1) if ends[row] + 6 <= middle - half), None)
        if row is not None and middle + half <= width:
            ends[row] = middle + half
            placed.append((text, middle, row))
    return placed
