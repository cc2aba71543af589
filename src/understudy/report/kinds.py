"""What each stage of a run is in pictures and tables, by which it has its colour and shape, and what leads to it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from understudy.ladder.graph import Ladder

BETWEEN = ("preparation", "start")  # as in understudy.ladder.stage, which needs torch
KINDS = ("teacher", "assistant", "preparation", "search", "structure", "student", "control")


def kinds(result: Mapping[str, Any]) -> dict[str, str]:
    """The kind of every stage by its name, one of ``KINDS``.

    A stage that chose which channels a network keeps is a ``structure``, and the ones that it chose among are
    ``search``: they find channels, and what they train is taken on by nobody but those who begin with its weights.
    A ``preparation`` is what a student begins with, or a dictionary; its answers are compared with nobody's.
    """
    ladder = result["ladder"]
    controls = ladder.get("controls", [])
    choices = [edge for edge in ladder["edges"] if edge["kind"] == "chooses"]
    searches, structures = {edge["from"] for edge in choices}, {edge["to"] for edge in choices}
    structures |= {stage["name"] for stage in result["stages"] if stage.get("choice")}

    def kind(name: str, role: str | None) -> str:
        if name in controls:
            return "control"
        if name in structures:
            return "structure"
        if name in searches:
            return "search"
        if role in BETWEEN:
            return "preparation"
        return role if role in ("teacher", "assistant") else "student"

    entries = [*result["stages"], *result["summary"], *ladder["graph"]]
    return {entry["name"]: kind(entry["name"], entry.get("role")) for entry in entries}


def edges(ladder: Ladder) -> list[dict[str, str]]:
    """What leads from stage to stage, as in ``result.json``: ``teaches``, ``starts``, ``shapes``, ``chooses`` or
    ``holds`` (the first of peers)."""
    return [
        {"from": source, "to": stage.name, "kind": kind}
        for stage in ladder.stages
        for kind, sources in (
            ("teaches", stage.teachers),
            ("starts", (stage.start,) if isinstance(stage.start, str) else ()),
            ("shapes", (stage.structure,) if stage.structure else ()),
            ("holds", (stage.taken,) if stage.taken else ()),
            ("chooses", stage.choice.among if stage.choice else ()),
        )
        for source in sources
    ]
