"""Where a ladder's stages and arrows stand in a picture, in pixels from its upper left corner."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.cells import cell_len

from understudy.report.numbers import NOTHING, accuracy, mmac, plain

WIDTH, HEIGHT = 168, 66  # of a stage's box
ACROSS, DOWN = 74, 22  # between boxes
MARGIN = 8
LETTERS = 21  # that fit in a box


@dataclass(frozen=True, kw_only=True)
class Box:
    """A stage: its upper left corner, its lines of text, and what kind it is."""

    x: float
    y: float
    title: str
    model: str
    figures: str
    kind: str  # teacher, assistant, student or control
    delivered: bool
    about: str  # all of it, unshortened


@dataclass(frozen=True, kw_only=True)
class Arrow:
    """A curve (an SVG path) from a stage to one that learns from it (``teaches``) or begins with it (``starts``)."""

    path: str
    kind: str
    about: str


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """The picture."""

    width: float
    height: float
    boxes: tuple[Box, ...]
    arrows: tuple[Arrow, ...]


def drawing(result: Mapping[str, Any]) -> Drawing:
    """Stages from left to right by how many stand above them, what teaches nobody in the last column."""
    ladder = result["ladder"]
    nodes = {node["name"]: node for node in ladder["graph"]}
    edges = [edge for edge in ladder["edges"] if edge["from"] in nodes and edge["to"] in nodes]
    columns = _columns(nodes, edges)
    places, height = _places(columns, nodes, edges)
    summary = {entry["name"]: entry for entry in result["summary"]}
    delivered = (result.get("delivered") or {}).get("name")
    controls = ladder.get("controls", [])
    boxes = []
    for name, (x, y) in places.items():
        node, seen = nodes[name], summary.get(name, {})
        model, mean = plain(node.get("model", "")), accuracy(seen.get("mean"), seen.get("std"))
        size = "" if node.get("multiply_adds") is None else f"{mmac(node['multiply_adds'])} MMAC"
        figures = [f"{mean} %" if mean != NOTHING else "", size]
        kind = "control" if name in controls else node.get("role", "student")
        boxes.append(
            Box(
                x=x,
                y=y,
                title=_short(plain(name)),
                model=_short(model),
                figures=" · ".join(text for text in figures if text),
                kind=kind if kind in ("teacher", "assistant", "control") else "student",
                delivered=name == delivered,
                about=", ".join(text for text in (plain(name), model, *figures) if text),
            )
        )
    above = min([0.0, *(_top(places, edge) for edge in edges)])
    arrows = tuple(_arrow(places, edge, lift=-above) for edge in edges)
    return Drawing(
        width=2 * MARGIN + max(1, len(columns)) * (WIDTH + ACROSS) - ACROSS,
        height=height - above,
        boxes=tuple(Box(**{**vars(box), "y": box.y - above}) for box in boxes),
        arrows=arrows,
    )


def _short(text: str) -> str:
    """``text`` cut in the middle where it is too long for a box: the end of a path's name tells it from the others."""
    if cell_len(text) <= LETTERS:
        return text
    left = right = ""
    while cell_len(left + right) < LETTERS - 1:
        if len(left) <= len(right):
            left += text[len(left)]
        else:
            right = text[len(text) - len(right) - 1] + right
    return f"{left}…{right}"


def _columns(nodes: Mapping[str, Any], edges: Sequence[Mapping[str, str]]) -> list[list[str]]:
    depth = dict.fromkeys(nodes, 0)
    for _ in nodes:  # as many rounds as the longest way can have stages
        for edge in edges:
            depth[edge["to"]] = min(len(nodes) - 1, max(depth[edge["to"]], depth[edge["from"]] + 1))
    teaching = {edge["from"] for edge in edges}
    last = max(depth.values(), default=0)
    found: list[list[str]] = [[] for _ in range(last + 1)]
    for name in nodes:
        found[depth[name] if name in teaching or nodes[name].get("role") == "teacher" else last].append(name)
    return [column for column in found if column]


Places = dict[str, tuple[float, float]]


def _places(
    columns: Sequence[list[str]], nodes: Mapping[str, Any], edges: Sequence[Mapping[str, str]]
) -> tuple[Places, float]:
    tallest = max((len(column) for column in columns), default=1)
    height = tallest * (HEIGHT + DOWN) - DOWN + 2 * MARGIN
    places: Places = {}
    for number, column in enumerate(columns):
        # Beside what teaches them, so that few arrows cross; as they were given where that says nothing.
        teachers = {
            name: [places[edge["from"]][1] for edge in edges if edge["to"] == name and edge["from"] in places]
            for name in column
        }
        column.sort(key=lambda name: sum(teachers[name]) / len(teachers[name]) if teachers[name] else height)
        first = (height - len(column) * (HEIGHT + DOWN) + DOWN) / 2
        for row, name in enumerate(column):
            places[name] = (MARGIN + number * (WIDTH + ACROSS), first + row * (HEIGHT + DOWN))
    return places, height


def _bend(places: Places, edge: Mapping[str, str]) -> float:
    """How far an arrow that passes other columns swings up, so that it is seen above the boxes between."""
    (x0, y0), (x1, y1) = places[edge["from"]], places[edge["to"]]
    passed = round((x1 - x0) / (WIDTH + ACROSS)) - 1
    return HEIGHT * (0.55 + 0.42 * passed) if passed > 0 and abs(y1 - y0) < HEIGHT else 0.0


def _top(places: Places, edge: Mapping[str, str]) -> float:
    y = min(places[edge["from"]][1], places[edge["to"]][1]) + HEIGHT / 2
    return (
        y - 0.75 * _bend(places, edge) - MARGIN
    )  # a cubic curve reaches three quarters of the way to its handles


def _arrow(places: Places, edge: Mapping[str, str], *, lift: float) -> Arrow:
    (x0, y0), (x1, y1) = places[edge["from"]], places[edge["to"]]
    start, end = (x0 + WIDTH, y0 + HEIGHT / 2 + lift), (x1 - 7, y1 + HEIGHT / 2 + lift)
    reach, bend = max(ACROSS / 2, (end[0] - start[0]) / 3), _bend(places, edge)
    path = (
        f"M{start[0]:.0f} {start[1]:.0f} C{start[0] + reach:.0f} {start[1] - bend:.0f}, "
        f"{end[0] - reach:.0f} {end[1] - bend:.0f}, {end[0]:.0f} {end[1]:.0f}"
    )
    verb = "starts" if edge["kind"] == "starts" else "teaches"
    return Arrow(path=path, kind=verb, about=f"{plain(edge['from'])} {verb} {plain(edge['to'])}")
