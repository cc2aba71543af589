"""The loss around trained students as pictures: ``landscape.json`` of a run's folder, on the page and as a file."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from pathlib import Path
from typing import Any, NotRequired

from markupsafe import Markup
from typing_extensions import TypedDict  # pydantic needs this one before Python 3.12

from understudy.report import charts
from understudy.report.axes import Scale, ticks, usable
from understudy.report.frame import NAME, Frame, axes, svg, title
from understudy.report.numbers import plain, shortened, three_figures
from understudy.report.result import damage, read_beside

FILE = "landscape.json"
PICTURE = "landscape.svg"
VERSION = 1
X_LABEL = "first direction, % of each filter’s norm"
MOST_LEVELS = 9
RUNS = ("#0072b2", "#c94f00", "#00875f", "#a8437f", "#a06c00", "#3a8fc2", "#1c2128")  # as --run0 and on
_RAMP = ((11, 42, 74), (31, 111, 159), (95, 179, 161), (201, 217, 138), (250, 240, 200))  # ever lighter
_SMALL, _WIDE = (250, 246), (400, 230)
_STYLE = (
    "text{font:12px system-ui,sans-serif;fill:#1c2128}.tick,.label{fill:#57606a;font-size:11.5px}path{fill:none}"
    ".grid{stroke:#d5dae1;stroke-width:.7}.axis{stroke:#8b95a1}.line{stroke-width:2.2;stroke-linejoin:round}"
    ".dashed{stroke-dasharray:6 3}.contour{stroke:#000;stroke-width:.7;opacity:.45}"
    ".here{stroke:#fff;stroke-width:2}.strong{font-weight:600}"
    + "".join(f".run{number}{{stroke:{colour}}}" for number, colour in enumerate(RUNS))
)


class ArmOf(TypedDict):
    """A student: the loss as it is (``loss``) and on the grid, a row for each step of the second direction."""

    name: str
    seed: int
    key: str
    model: NotRequired[str]
    loss: float | None
    grid: list[list[float | None]]


class LandscapeOf(TypedDict):
    """All of it; ``steps`` are along both directions, in lengths of the filters; losses are in nats."""

    version: int
    seed: int
    images: int
    steps: list[float]
    arms: list[ArmOf]


@dataclass(frozen=True, kw_only=True)
class Landscape:
    """What ``landscape.json`` says of a run's students.

    Attributes:
        arms: see ``ArmOf``; none where there is no file, or none that can be used.
        steps: see ``LandscapeOf``.
        images: on how many training images the loss is.
        seed: of the directions.
        problem: why the file cannot be used, in a sentence; empty: there is none, or it can.
    """

    arms: tuple[Mapping[str, Any], ...] = ()
    steps: tuple[float, ...] = ()
    images: int = 0
    seed: int = 0
    problem: str = ""


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """What is drawn: lines of all arms with their legend, a map for each arm, and the levels of all maps."""

    lines: Markup
    legend: Markup
    maps: list[tuple[str, Markup]]
    levels: Markup
    about: str


def content(
    arms: Sequence[Mapping[str, Any]], *, steps: Sequence[float], images: int, seed: int
) -> dict[str, Any]:
    """The content of ``landscape.json``; a loss that is no number becomes null.

    Args:
        arms: as ``ArmOf``, where losses may be NaN or infinite.
        steps, images, seed: as ``Landscape``.
    """

    def known(value: float) -> float | None:
        return value if math.isfinite(value) else None

    return {
        "version": VERSION,
        "seed": seed,
        "images": images,
        "steps": list(steps),
        "arms": [
            {
                **arm,
                "loss": known(arm["loss"]),
                "grid": [[known(value) for value in row] for row in arm["grid"]],
            }
            for arm in arms
        ],
    }


def read_landscape(folder: Path, result: Mapping[str, Any] | None = None) -> Landscape:
    """Reads ``folder/landscape.json``; a file that is damaged, or of another run, is a sentence and no error.

    Args:
        folder: of a run.
        result: its ``result.json``; with it, arms of other stages than those of this run are left out.
    """
    again = "Run understudy landscape again to write it anew."
    value = read_beside(Path(folder) / FILE, version=VERSION, again=again)
    if not isinstance(value, dict):
        return Landscape(problem=value or "")
    if wrong := damage(value, LandscapeOf):
        return Landscape(problem=f"{FILE} is damaged: {wrong}. {again}")
    steps, arms = value["steps"], value["arms"]
    sides = {len(steps), *(len(arm["grid"]) for arm in arms)}
    sides |= {len(row) for arm in arms for row in arm["grid"]}
    rising = all(first < second for first, second in pairwise(steps))
    if len(sides) > 1 or len(steps) < 3 or not rising or not all(map(usable, steps)):
        return Landscape(problem=f"{FILE} is damaged: its grids do not have a loss for each step. {again}")
    if result is not None:
        keys = {stage.get("key") for stage in result["stages"]}
        if not all(arm["key"] in keys for arm in arms):
            return Landscape(problem=f"{FILE} is of another run than this one. {again}")
    return Landscape(arms=tuple(arms), steps=tuple(steps), images=value["images"], seed=value["seed"])


# --- figures ------------------------------------------------------------------------------------------------------


def rise(arm: Mapping[str, Any]) -> float | None:
    """How much larger than at the network itself the loss is on average over the grid; None where a loss is no number."""
    values = [value for row in arm["grid"] for value in row]
    if arm["loss"] is None or any(value is None for value in values):
        return None
    return math.fsum(values) / len(values) - float(arm["loss"])


def levels_of(found: Landscape) -> list[float]:
    """Round losses between which the maps of all arms change their colour, equal factors apart; rising."""
    values = [value for arm in found.arms for row in arm["grid"] for value in row if usable(value)]
    positive = [value for value in values if value > 0]
    if not positive:
        return []
    low, high = max(min(positive), max(positive) / 1e6), max(positive)
    if high < low * (1 + 1e-6):
        return []
    return [
        tick.value for tick in ticks(Scale(low=low, high=high, start=0, end=1, log=True), most=MOST_LEVELS)
    ]


def colour(band: int, bands: int) -> str:
    """Of the losses between two levels: the darker, the smaller.

    >>> colour(0, 3), colour(1, 3), colour(2, 3)
    ('#0b2a4a', '#5fb3a1', '#faf0c8')
    """
    place = band / max(1, bands - 1) * (len(_RAMP) - 1)
    low = min(int(place), len(_RAMP) - 2)
    mixed = (
        round(first + (second - first) * (place - low))
        for first, second in zip(_RAMP[low], _RAMP[low + 1], strict=True)
    )
    return "#" + "".join(f"{part:02x}" for part in mixed)


# --- pictures -----------------------------------------------------------------------------------------------------


def pictures(found: Landscape) -> Pictures | None:
    """Charts of all arms on the same scales; None where there is nothing to draw."""
    if not found.arms:
        return None
    far = [100 * step for step in found.steps]
    middle = len(far) // 2
    lines = [
        charts.Line(
            points=list(zip(far, arm["grid"][middle], strict=True)), kind=_kind(number), about=_about(arm)
        )
        for number, arm in enumerate(found.arms)
    ]
    levels = levels_of(found)
    return Pictures(
        lines=Markup(
            charts.curves(
                lines,
                kind="landscape",
                about="Loss along one random direction",
                x_label=X_LABEL,
                y_label="loss on training images, nats",
                size=_WIDE,
                bounds=(0.0, math.inf),
            )
        ),
        legend=Markup(_legend(found.arms)),
        maps=[(plain(arm["name"]), Markup(_map(arm, far, levels))) for arm in found.arms],
        levels=Markup(_key(levels)),
        about=(
            f"The loss on {found.images} training images without augmentation, when the weights of a student are moved "
            f"along random directions (seed {found.seed}), each filter of which is as long as the network’s own. The "
            f"network itself stands in the middle; the lines are the middle rows of the maps, and what is more around a student is the "
            f"mean over its whole map. Two directions out of "
            f"thousands, one seed of each student: a picture, not a measure."
        ),
    )


def _kind(number: int) -> str:
    return f"mean run{number % len(RUNS)}" + (" dashed" if number >= len(RUNS) else "")


def _about(arm: Mapping[str, Any]) -> str:
    here = "no number" if arm["loss"] is None else f"{three_figures(arm['loss'])} nats"
    more = rise(arm)
    around = "" if more is None else f", {three_figures(more)} more on average around it"
    return f"{plain(arm['name'])}, seed {arm['seed']}: {here} as it is{around}"


def _legend(arms: Sequence[Mapping[str, Any]]) -> str:
    """Which line is whose, one below the other."""
    parts = []
    for number, arm in enumerate(arms):
        middle = 12 + 20 * number
        parts.append(f'<path class="line {_kind(number)}" d="M2 {middle}H28"/>')
        more = rise(arm)
        around = (
            "" if more is None else f": {three_figures(arm['loss'])}, around it {three_figures(more)} more"
        )
        label = shortened(plain(arm["name"]), 2 * NAME) + around
        parts.append(f'<text x="36" y="{middle + 4}">{escape(label)}{title(_about(arm))}</text>')
    return svg((_WIDE[0], 20 * len(arms) + 4), "Which line is of which student", parts)


def _map(arm: Mapping[str, Any], far: Sequence[float], levels: Sequence[float]) -> str:
    """A cell for each place, coloured by its loss, and a line where the loss crosses a level."""
    frame = Frame.within(_SMALL, left=44, bottom=40)
    half = (far[1] - far[0]) / 2
    x = Scale(low=far[0] - half, high=far[-1] + half, start=frame.left, end=frame.right)
    y = Scale(low=far[0] - half, high=far[-1] + half, start=frame.bottom, end=frame.top)
    parts = [axes(frame, x, y, X_LABEL, "second direction, %", whole=True)]
    for band, path in sorted(_cells(arm["grid"], far, half, levels, x, y).items()):
        fill = colour(band, len(levels) + 1)
        parts.append(f'<path class="cell" shape-rendering="crispEdges" style="fill:{fill}" d="{path}"/>')
    for level in levels:
        path = "".join(
            f"M{x(x1):.1f} {y(y1):.1f}L{x(x2):.1f} {y(y2):.1f}"
            for (x1, y1), (x2, y2) in crossings(arm["grid"], far, level)
        )
        if path:
            parts.append(f'<path class="contour" d="{path}">{title(f"loss {level:g}")}</path>')
    parts.append(f'<path class="here" d="M{x(0) - 4:.1f} {y(0):.1f}h8M{x(0):.1f} {y(0) - 4:.1f}v8"/>')
    return svg(_SMALL, f"Loss around {_about(arm)}", parts)


def _cells(
    grid: Sequence[Sequence[float | None]],
    far: Sequence[float],
    half: float,
    levels: Sequence[float],
    x: Scale,
    y: Scale,
) -> dict[int, str]:
    """For each band of losses the path of its cells; what is no number has none."""
    found: dict[int, str] = {}
    for row, up in zip(grid, far, strict=True):
        top, bottom = y(up + half), y(up - half)
        for value, along in zip(row, far, strict=True):
            if value is None or not usable(value):
                continue
            band = sum(value >= level for level in levels)
            left, right = x(along - half), x(along + half)
            found[band] = found.get(band, "") + f"M{left:.2f} {top:.2f}H{right:.2f}V{bottom:.2f}H{left:.2f}z"
    return found


Place = tuple[float, float]


def crossings(
    grid: Sequence[Sequence[float | None]], far: Sequence[float], level: float
) -> Iterator[tuple[Place, Place]]:
    """Short lines along which a loss is ``level``, as far as four neighbouring places say (marching squares).

    Args:
        grid: a row for each step upwards, in it a loss for each step to the right.
        far: the steps.
        level: which loss.

    >>> list(crossings([[0.0, 0.0, 0.0], [0.0, 2.0, 0.0], [0.0, 0.0, 0.0]], [-1, 0, 1], 1.0))[0]
    ((0.0, -0.5), (-0.5, 0.0))
    """
    for row in range(len(far) - 1):
        for column in range(len(far) - 1):
            corners = ((row, column), (row, column + 1), (row + 1, column + 1), (row + 1, column))
            values = [grid[one][other] for one, other in corners]
            if any(value is None or not usable(value) for value in values):
                continue
            cut: list[Place] = []
            for number in range(4):
                (up1, along1), (up2, along2) = corners[number], corners[(number + 1) % 4]
                first, second = values[number], values[(number + 1) % 4]
                assert first is not None
                assert second is not None
                if (first < level) == (second < level):
                    continue
                share = (level - first) / (second - first)
                cut.append(
                    (
                        far[along1] + share * (far[along2] - far[along1]),
                        far[up1] + share * (far[up2] - far[up1]),
                    )
                )
            for begin in range(0, len(cut) - 1, 2):  # a saddle has four
                yield cut[begin], cut[begin + 1]


def _key(levels: Sequence[float]) -> str:
    """The colours between the levels."""
    if not levels:
        return ""
    bands = len(levels) + 1
    wide = min(44.0, (_WIDE[0] - 24) / bands)
    parts = ['<text class="label" x="2" y="12">loss, nats</text>']
    for band in range(bands):
        place = 12 + band * wide
        parts.append(
            f'<path class="cell" style="fill:{colour(band, bands)}" d="M{place:.1f} 20h{wide:.1f}v14h-{wide:.1f}z"/>'
        )
    for number, level in enumerate(levels):
        parts.append(
            f'<text class="tick" x="{12 + (number + 1) * wide:.1f}" y="48" text-anchor="middle">{level:g}</text>'
        )
    return svg((_WIDE[0], 54), "Colours of the losses", parts)


def standalone(found: Landscape) -> str:
    """All pictures as one SVG file, which needs no page around it; empty where there is nothing to draw."""
    drawn = pictures(found)
    if drawn is None:
        return ""
    across = 3
    placed: list[str] = []

    def put(chart: str, x: float, y: float, size: tuple[int, int]) -> None:
        place = f'x="{x:g}" y="{y:g}" width="{size[0]}" height="{size[1]}"'
        placed.append(str(chart).replace('<svg class="chart"', f'<svg class="chart" {place}', 1))

    put(drawn.lines, 10, 10, _WIDE)
    put(drawn.legend, 20 + _WIDE[0], 30, (_WIDE[0], 20 * len(found.arms) + 4))
    top = 30 + max(_WIDE[1], 50 + 20 * len(found.arms))
    for number, (name, chart) in enumerate(drawn.maps):
        x, y = 10 + (number % across) * (_SMALL[0] + 15), top + (number // across) * (_SMALL[1] + 40)
        shown = shortened(name, 2 * NAME)
        placed.append(f'<text class="strong" x="{x}" y="{y + 12}">{escape(shown)}</text>')
        put(chart, x, y + 20, _SMALL)
    height = top + math.ceil(len(drawn.maps) / across) * (_SMALL[1] + 40)
    put(drawn.levels, 10, height, (_WIDE[0], 54))
    lines = textwrap.wrap(drawn.about, 130)
    for number, line in enumerate(lines):
        placed.append(f'<text class="label" x="10" y="{height + 74 + 16 * number}">{escape(line)}</text>')
    height += 74 + 16 * len(lines)
    width = max(10 + across * (_SMALL[0] + 15), 30 + 2 * _WIDE[0])
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}">'
        f"<title>{escape(drawn.about)}</title><style>{_STYLE}</style>"
        f'<rect width="100%" height="100%" fill="#fff"/>{"".join(placed)}</svg>\n'
    )
