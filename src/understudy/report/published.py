"""Published figures beside those of a run: ``paper.json`` of its folder, as a table on the page, in the terminal and as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from typing_extensions import TypedDict  # pydantic needs this one before Python 3.12

from understudy.report.numbers import NOTHING, accuracy
from understudy.report.result import damage, read_beside
from understudy.store.files import sha256_of_file

FILE = "paper.json"
TEXT = "paper.md"
RECIPE = "recipe.yaml"
VERSION = 1
TITLE = "Published, and here"
COLUMNS = ("arm", "published, %", "called", "how sure", "here, %", "n")


class FigureOf(TypedDict):
    """A published accuracy in per cent; ``spread`` is its published deviation in points."""

    arm: str
    percent: float
    spread: float | None
    what: str
    mark: str


class PublishedOf(TypedDict):
    """All of it; ``recipe`` is the checksum of the run's ``recipe.yaml``; ``labels`` are what a reader must know before comparing; ``marks`` say what a mark of a figure means."""

    version: int
    recipe: str
    title: str
    said: str
    labels: list[str]
    figures: list[FigureOf]
    marks: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class Published:
    """What a paper published of the arms of a run.

    Attributes:
        title: of the paper, and which table.
        said: what stands in place of figures, or beside them; may be empty.
        labels: what is not the paper's: data, length, changed keys, our choices.
        figures: see ``FigureOf``; may be none.
        marks: from a mark of a figure to what it means.
        problem: why the file cannot be used, in a sentence; empty: there is none, or it can.
    """

    title: str = ""
    said: str = ""
    labels: tuple[str, ...] = ()
    figures: tuple[FigureOf, ...] = ()
    marks: Mapping[str, str]
    problem: str = ""

    def content(self, folder: Path) -> dict[str, Any]:
        """What ``paper.json`` of the run in ``folder`` holds."""
        return {
            "version": VERSION,
            "recipe": sha256_of_file(folder / RECIPE),
            "title": self.title,
            "said": self.said,
            "labels": list(self.labels),
            "figures": [dict(figure) for figure in self.figures],
            "marks": dict(self.marks),
        }

    def notes(self) -> list[str]:
        """What stands below the table: what was said, and the marks of the figures in it."""
        used = {figure["mark"] for figure in self.figures}
        marks = [f"{mark}: {words}." for mark, words in self.marks.items() if mark in used]
        return [*([self.said] if self.said else []), *marks]


def read_published(folder: Path) -> Published:
    """Reads ``folder/paper.json``; a file that is damaged is a sentence and no error, one of another run is nothing."""
    again = "Run the same understudy paper again to write it anew."
    value = read_beside(Path(folder) / FILE, version=VERSION, again=again)
    if not isinstance(value, dict):
        return Published(problem=value or "", marks={})
    if wrong := damage(value, PublishedOf):
        return Published(problem=f"{FILE} is damaged: {wrong}. {again}", marks={})
    recipe = Path(folder) / RECIPE
    if not recipe.is_file() or sha256_of_file(recipe) != value["recipe"]:
        return Published(marks={})  # another run was written over that of the paper
    return Published(
        title=value["title"],
        said=value["said"],
        labels=tuple(value["labels"]),
        figures=tuple(value["figures"]),
        marks=value["marks"],
    )


def percent(figure: FigureOf) -> str:
    """A published accuracy as it was published: two digits after the point, and its spread.

    >>> percent({"arm": "peers", "percent": 74.1, "spread": 0.16, "what": "PCL", "mark": "quoted"})
    '74.10 ± 0.16'
    """
    spread = "" if figure["spread"] is None else f" ± {figure['spread']:.2f}"
    return f"{figure['percent']:.2f}{spread}"


def rows(published: Published, summary: Sequence[Mapping[str, Any]]) -> list[tuple[str, ...]]:
    """A row of ``COLUMNS`` for each published figure.

    Args:
        published: of the run's folder.
        summary: of its ``result.json``; an arm that it does not have has nothing here.
    """
    here = {row["name"]: row for row in summary}
    found: list[tuple[str, ...]] = []
    for figure in published.figures:
        row = here.get(figure["arm"])
        own = (accuracy(row["mean"], row["std"]), str(row["n"])) if row else (NOTHING, "0")
        found.append((figure["arm"], percent(figure), figure["what"], figure["mark"], *own))
    return found


def as_markdown(published: Published, summary: Sequence[Mapping[str, Any]]) -> str:
    """The content of ``paper.md``."""
    lines = [f"# {published.title}", "", *(f"- {label}" for label in published.labels), ""]
    if published.figures:
        lines += [f"| {' | '.join(COLUMNS)} |", f"|{'---|' * len(COLUMNS)}"]
        lines += [f"| {' | '.join(row)} |" for row in rows(published, summary)]
        lines.append("")
    return "\n".join([*lines, *published.notes(), ""])
