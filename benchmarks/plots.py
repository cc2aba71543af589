"""Curves as SVG files that stand alone, for the documentation."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from understudy.report.axes import Scale, scale, ticks

WIDTH, HEIGHT = 560, 300
LEFT, RIGHT, TOP, BOTTOM = 58, 16, 40, 46
COLOURS = ("#3566a8", "#a04a2c", "#6a4fa3", "#3d7a4f")
GREY = "#7b828c"  # readable on white and on black
STYLE = f"""
text {{ font: 12px system-ui, sans-serif; fill: {GREY}; }}
.grid {{ stroke: {GREY}; stroke-opacity: 0.25; }}
.line {{ fill: none; stroke-width: 2; }}
"""


def draw(figure: Mapping[str, Any], folder: Path) -> Path | None:
    """Writes the curve of a figure's JSON as ``FOLDER/NAME.svg``; nothing where it has none."""
    curve = figure["details"].get("curve")
    if curve is None:
        return None
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{figure['name']}.svg"
    file.write_text(svg(curve, about=figure.get("about", figure["name"])), encoding="utf-8")
    return file


def svg(curve: Mapping[str, Any], *, about: str) -> str:
    """One line for each entry of ``lines`` over ``x``; y begins at 0, so that what is flat looks flat."""
    values = [value for line in curve["lines"].values() for value in line]
    x = scale(curve["x"], start=LEFT, end=WIDTH - RIGHT, log=curve["log_x"], room=0.03)
    y = scale([0.0, *values], start=HEIGHT - BOTTOM, end=TOP, bounds=(0, math.inf))
    if x is None or y is None:
        return ""
    parts = [_axes(x, y, curve)]
    across = float(LEFT)
    for number, (name, line) in enumerate(curve["lines"].items()):
        colour = COLOURS[number % len(COLOURS)]
        parts.append(_line(curve["x"], line, x, y, colour))
        parts.append(f'<circle cx="{across + 4:.0f}" cy="14" r="4" fill="{colour}"/>')
        parts.append(f'<text x="{across + 13:.0f}" y="18">{escape(name)}</text>')
        across += 34 + 7 * len(name)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
        f'role="img"><title>{escape(about)}</title><style>{STYLE}</style>\n' + "\n".join(parts) + "\n</svg>\n"
    )


def _axes(x: Scale, y: Scale, curve: Mapping[str, Any]) -> str:
    parts = []
    for tick in ticks(y):
        place = y(tick.value)
        parts.append(f'<path class="grid" d="M{LEFT} {place:.1f}H{WIDTH - RIGHT}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{place + 4:.1f}" text-anchor="end">{tick.text}</text>')
    for value in curve["x"]:
        place = x(value)
        parts.append(f'<path class="grid" d="M{place:.1f} {HEIGHT - BOTTOM}v5"/>')
        parts.append(
            f'<text x="{place:.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{value:,g}</text>'
        )
    parts.append(f'<text x="2" y="{TOP - 8}">{escape(curve["y_label"])}</text>')
    parts.append(
        f'<text x="{WIDTH - RIGHT}" y="{HEIGHT - 8}" text-anchor="end">{escape(curve["x_label"])}</text>'
    )
    return "\n".join(parts)


def _line(at: Sequence[float], line: Sequence[float], x: Scale, y: Scale, colour: str) -> str:
    places = [f"{x(one):.1f} {y(other):.1f}" for one, other in zip(at, line, strict=True)]
    dots = [f'<circle cx="{p.split()[0]}" cy="{p.split()[1]}" r="3" fill="{colour}"/>' for p in places]
    return f'<path class="line" stroke="{colour}" d="M{"L".join(places)}"/>' + "".join(dots)


def main() -> None:
    """``python -m benchmarks.plots RESULTS.json FOLDER``: draws what was measured before."""
    report = json.loads(Path(sys.argv[1]).read_text("utf-8"))
    for figure in report["figures"]:
        drawn = draw(figure, Path(sys.argv[2]))
        if drawn is not None:
            print(drawn)


if __name__ == "__main__":
    main()
