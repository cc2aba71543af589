"""Where a ladder's stages and arrows stand in a picture, in pixels from its upper left corner."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from understudy.report.numbers import NOTHING, accuracy, mmac, plain, shortened

WIDTH = 212  # of a stage's box
LINE = 17  # from one line of text to the next
ACROSS, DOWN = 58, 22  # between boxes
LANE = 16  # for an arrow that passes a column
MARGIN = 8
LETTERS = 20  # of a name that fit on a line in a box
LINES = 3  # that a name may have


@dataclass(frozen=True, kw_only=True)
class Box:
    """A stage: its upper left corner, its lines of text, and what kind it is."""

    x: float
    y: float
    title: list[str]
    small: list[str]
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
    """The picture; all boxes have one width and height."""

    width: float
    height: float
    box_width: float
    box_height: float
    boxes: list[Box]
    arrows: list[Arrow]


def drawing(result: Mapping[str, Any]) -> Drawing:
    """Stages from left to right by how many stand above them; what teaches nobody stands in the last column.

    An arrow that passes a column has a lane there, between the boxes and shared by all arrows from the same stage,
    so that no arrow runs behind a box.
    """
    ladder = result["ladder"]
    nodes: dict[str, Mapping[str, Any]] = {node["name"]: node for node in ladder["graph"]}
    edges = [edge for edge in ladder["edges"] if edge["from"] in nodes and edge["to"] in nodes]
    column = _columns(nodes, edges)
    edges = [edge for edge in edges if column[edge["from"]] < column[edge["to"]]]
    titles = {name: _lines(plain(name)) for name in nodes}
    box_height = LINE * (max(map(len, titles.values()), default=1) + 2) + 13
    middle, height = _middles(column, edges, box_height)
    boxes = []
    for name, node in nodes.items():
        about = _about(name, node, result)
        boxes.append(
            Box(
                x=_left(column[name]),
                y=middle[column[name], name] - box_height / 2,
                title=titles[name],
                small=[shortened(plain(node.get("model", "")), LETTERS + 2), " · ".join(about[2:])],
                kind=kind_of(node, ladder.get("controls", [])),
                delivered=name == (result.get("delivered") or {}).get("name"),
                about=", ".join(text for text in about if text),
            )
        )
    return Drawing(
        width=_left(max(column.values(), default=0)) + WIDTH + MARGIN,
        height=height,
        box_width=WIDTH,
        box_height=box_height,
        boxes=boxes,
        arrows=[_arrow(edge, column, middle) for edge in edges],
    )


def _left(column: int) -> float:
    return MARGIN + column * (WIDTH + ACROSS)


def kind_of(node: Mapping[str, Any], controls: Sequence[str]) -> str:
    """``teacher``, ``assistant``, ``student`` or ``control``: what a stage is drawn as."""
    if node["name"] in controls:
        return "control"
    return node["role"] if node.get("role") in ("teacher", "assistant") else "student"


def _about(name: str, node: Mapping[str, Any], result: Mapping[str, Any]) -> list[str]:
    """Name, model, and the figures that are known."""
    entry: Mapping[str, Any] = next((entry for entry in result["summary"] if entry["name"] == name), {})
    said = [plain(name), plain(node.get("model", ""))]
    reached = accuracy(entry.get("mean"), entry.get("std"))
    if reached != NOTHING:
        said.append(f"{reached} %")
    if node.get("multiply_adds") is not None:
        said.append(f"{mmac(node['multiply_adds'])} MMAC")
    return said


def _lines(name: str) -> list[str]:
    lines = textwrap.wrap(name, LETTERS, break_long_words=False, break_on_hyphens=False) or [""]
    if len(lines) > LINES:
        lines = [*lines[: LINES - 1], f"… {lines[-1]}"]
    return [shortened(line, LETTERS) for line in lines]


def _columns(nodes: Mapping[str, Mapping[str, Any]], edges: Sequence[Mapping[str, str]]) -> dict[str, int]:
    depth = dict.fromkeys(nodes, 0)
    for _ in nodes:  # no way is longer than there are stages, and few come near
        before = dict(depth)
        for edge in edges:
            depth[edge["to"]] = max(depth[edge["to"]], min(len(nodes) - 1, depth[edge["from"]] + 1))
        if depth == before:
            break
    teaching = {edge["from"] for edge in edges}
    last = max(depth.values(), default=0)
    inner = {name for name in nodes if name in teaching or nodes[name].get("role") == "teacher"}
    return {name: depth[name] if name in inner else last for name in nodes}


def _middles(
    column: Mapping[str, int], edges: Sequence[Mapping[str, str]], box_height: float
) -> tuple[dict[tuple[int, str], float], float]:
    """The height at which each stage, and each stage's lane in the columns it passes, stands; and of the whole."""
    furthest = dict(column)
    for edge in edges:
        furthest[edge["from"]] = max(furthest[edge["from"]], column[edge["to"]])
    last = max(column.values(), default=0)
    sizes: list[dict[str, float]] = [{} for _ in range(last + 1)]
    for name, own in column.items():
        sizes[own][name] = box_height + DOWN
        for passed in range(own + 1, furthest[name]):
            sizes[passed][name] = LANE
    height = max(sum(size.values()) for size in sizes) - DOWN + 2 * MARGIN if column else 2 * MARGIN
    height = max(height, box_height + 2 * MARGIN)
    middle: dict[tuple[int, str], float] = {}
    for number, size in enumerate(sizes):

        def wish(name: str, number: int = number) -> tuple[float, bool]:
            """Beside where its arrows come from; what none leads to stands below."""
            own = column[name] == number
            sources = [edge["from"] for edge in edges if edge["to"] == name] if own else [name]
            heights = [middle[number - 1, source] for source in sources]
            return sum(heights) / len(heights) if heights else height, own

        top = (height - sum(size.values())) / 2
        for name in sorted(size, key=wish):
            middle[number, name] = top + size[name] / 2
            top += size[name]
    return middle, height


def _arrow(
    edge: Mapping[str, str], column: Mapping[str, int], middle: Mapping[tuple[int, str], float]
) -> Arrow:
    source, target = edge["from"], edge["to"]
    first, last = column[source], column[target]
    x, y = _left(first) + WIDTH, middle[first, source]
    path = f"M{x:.1f} {y:.1f}"
    for number in range(first + 1, last + 1):
        end = number == last
        x1, y1 = _left(number) - (7 if end else 0), middle[number, target if end else source]
        half = (x1 - x) / 2
        path += f" C{x + half:.1f} {y:.1f}, {x1 - half:.1f} {y1:.1f}, {x1:.1f} {y1:.1f}"
        if not end:
            path += f" H{x1 + WIDTH:.1f}"
        x, y = x1 + WIDTH, y1
    verb = "starts" if edge["kind"] == "starts" else "teaches"
    return Arrow(path=path, kind=verb, about=f"{plain(source)} {verb} {plain(target)}")
