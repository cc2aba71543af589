"""Where a ladder's stages and arrows stand in a picture, in pixels from its upper left corner."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from understudy.report.kinds import kinds
from understudy.report.numbers import accuracy, mmac, percent, plain, shortened

WIDTH = 212  # of a stage's box
LINE = 17  # from one line of text to the next
ACROSS, DOWN = 58, 22  # between boxes
LANE = 16  # for an arrow that passes a column
MARGIN = 8
LETTERS = 20  # of a name that fit on a line in a box
LINES = 3  # that a name may have
BESIDE = 8  # between two arrows of one stage to the same other
_SAID = {  # what an arrow says of both its ends
    "teaches": "{0} teaches {1}",
    "starts": "{0} gives {1} its weights to begin with",
    "shapes": "{0} gives {1} its channels",
    "chooses": "{1} chooses among {0}",
    "holds": "{1} is the first peer of {0}",
}


@dataclass(frozen=True, kw_only=True)
class Box:
    """A stage, or a stack of searches that differ in nothing but their strength: upper left corner, text, and kind."""

    x: float
    y: float
    title: list[str]
    small: list[str]
    kind: str  # one of understudy.report.kinds.KINDS
    delivered: bool
    about: str  # all of it, unshortened
    stacked: int = 1  # how many stages


@dataclass(frozen=True, kw_only=True)
class Arrow:
    """A curve (an SVG path) from a stage to one that is made with it.

    Attributes:
        kind: ``teaches``, ``starts`` (gives its weights), ``shapes`` (says which channels there are), ``chooses`` (is one
            that its target chooses among), ``holds`` (is of peers, and its target the first of them).
    """

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
    ladder, kind = result["ladder"], kinds(result)
    nodes: dict[str, Mapping[str, Any]] = {node["name"]: node for node in ladder["graph"]}
    edges = [edge for edge in ladder["edges"] if edge["from"] in nodes and edge["to"] in nodes]
    stacks = _stacks([name for name in nodes if kind[name] == "search"], edges)
    of = {member: name for name, members in stacks.items() for member in members}
    nodes = {name: node for name, node in nodes.items() if of.get(name, name) == name}
    edges = _unique(
        {**edge, "from": of.get(edge["from"], edge["from"]), "to": of.get(edge["to"], edge["to"])}
        for edge in edges
    )
    column = _columns(nodes, edges)
    edges = [edge for edge in edges if column[edge["from"]] < column[edge["to"]]]
    names = {name: _stack_name(stacks.get(name, [name])) for name in nodes}
    titles = {name: _lines(names[name]) for name in nodes}
    box_height = LINE * (max(map(len, titles.values()), default=1) + 2) + 13
    middle, height = _middles(column, edges, box_height)
    boxes = []
    for name, node in nodes.items():
        members = stacks.get(name, [name])
        boxes.append(
            Box(
                x=_left(column[name]),
                y=middle[column[name], name] - box_height / 2,
                title=titles[name],
                small=[
                    shortened(plain(node.get("model", "")), LETTERS + 2),
                    " · ".join(_figures(node, members, result, kind[name])),
                ],
                kind=kind[name],
                delivered=name == (result.get("delivered") or {}).get("name"),
                about="; ".join(_about(member, node, result, kind[name]) for member in members),
                stacked=len(members),
            )
        )
    return Drawing(
        width=_left(max(column.values(), default=0)) + WIDTH + MARGIN,
        height=height,
        box_width=WIDTH,
        box_height=box_height,
        boxes=boxes,
        arrows=_arrows(edges, column, middle, names),
    )


def _stacks(searches: Sequence[str], edges: Sequence[Mapping[str, str]]) -> dict[str, list[str]]:
    """Searches that come from the same stages and lead to the same, by the first of them."""
    found: dict[frozenset[tuple[str, ...]], list[str]] = {}
    for name in searches:
        around = frozenset(
            ("from", edge["from"], edge["kind"]) if edge["to"] == name else ("to", edge["to"], edge["kind"])
            for edge in edges
            if name in (edge["from"], edge["to"])
        )
        found.setdefault(around, []).append(name)
    return {members[0]: members for members in found.values()}


def _unique(edges: Iterable[Mapping[str, str]]) -> list[Mapping[str, str]]:
    return list({(edge["from"], edge["to"], edge["kind"]): edge for edge in edges}.values())


def _stack_name(members: Sequence[str]) -> str:
    """One name for several.

    >>> _stack_name(["structure/search 1", "structure/search 0.3"])
    'structure/search 1,\xa00.3'
    """
    names = [plain(name) for name in members]
    shared = names[0][: names[0].rfind(" ") + 1]
    if not all(name.startswith(shared) for name in names):
        shared = ""
    return shared + ",\N{NO-BREAK SPACE}".join(name.removeprefix(shared) for name in names)


def _left(column: int) -> float:
    return MARGIN + column * (WIDTH + ACROSS)


def _figures(
    node: Mapping[str, Any], members: Sequence[str], result: Mapping[str, Any], kind: str
) -> list[str]:
    """What is known of a stage, or of a stack: how good, how costly. A structure is not trained: only its cost."""
    entries = [entry for entry in result["summary"] if entry["name"] in members]
    means = [entry["mean"] for entry in entries if entry.get("mean") is not None]
    said = []
    if means and kind != "structure":
        one = accuracy(means[0], entries[0].get("std"))
        said.append(f"{one if len(members) == 1 else f'{percent(min(means))} to {percent(max(means))}'} %")
    if node.get("multiply_adds") is not None:
        said.append(f"{mmac(node['multiply_adds'])} MMAC")
    return said


def _about(name: str, node: Mapping[str, Any], result: Mapping[str, Any], kind: str) -> str:
    """Name, model, and the figures that are known."""
    said = [plain(name), plain(node.get("model", "")), *_figures(node, [name], result, kind)]
    return ", ".join(text for text in said if text)


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


def _arrows(
    edges: Sequence[Mapping[str, str]],
    column: Mapping[str, int],
    middle: Mapping[tuple[int, str], float],
    names: Mapping[str, str],
) -> list[Arrow]:
    """All of them; two between the same stages run side by side."""
    pairs: dict[tuple[str, str], list[str]] = {}
    for edge in edges:
        pairs.setdefault((edge["from"], edge["to"]), []).append(edge["kind"])
    made = []
    for (source, target), verbs in pairs.items():
        for number, verb in enumerate(verbs):
            kind = verb if verb in _SAID else "teaches"
            made.append(
                Arrow(
                    path=_path(source, target, column, middle, BESIDE * (number - (len(verbs) - 1) / 2)),
                    kind=kind,
                    about=_SAID[kind].format(names[source], names[target]),
                )
            )
    return made


def _path(
    source: str,
    target: str,
    column: Mapping[str, int],
    middle: Mapping[tuple[int, str], float],
    down: float,
) -> str:
    first, last = column[source], column[target]
    x, y = _left(first) + WIDTH, middle[first, source] + down
    path = f"M{x:.1f} {y:.1f}"
    for number in range(first + 1, last + 1):
        end = number == last
        x1, y1 = _left(number) - (7 if end else 0), middle[number, target if end else source] + down
        half = (x1 - x) / 2
        path += f" C{x + half:.1f} {y:.1f}, {x1 - half:.1f} {y1:.1f}, {x1:.1f} {y1:.1f}"
        if not end:
            path += f" H{x1 + WIDTH:.1f}"
        x, y = x1 + WIDTH, y1
    return path
