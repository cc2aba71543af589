"""Accuracy by how often a class is seen in training: one table for terminal, page, card and comparison."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from understudy.data.long_tail import GROUPS, group_of
from understudy.report import numbers
from understudy.report.deploy import Cells, Column
from understudy.report.kinds import kinds
from understudy.report.numbers import plain

TITLE = "Accuracy by how often a class is seen"
FIGURES = (*GROUPS, "balanced")
_READING = (
    "many, medium, few: of the test images of classes with more than 100, 20 to 100 and fewer than 20 training images; "
    "balanced: mean over all classes; all: of all test images, as above; each in percent."
)


def cells(runs: Mapping[str, Mapping[str, Any]]) -> Cells | None:
    """A row for each trained stage of each run, mean and sample deviation over its seeds; None where nothing is known.

    Args:
        runs: contents of ``result.json`` by what each run is called; of a single run the name is not shown.
    """
    entries = [
        (run, entry)
        for run, result in runs.items()
        for entry in result["summary"]
        if entry.get("groups") and kinds(result)[entry["name"]] != "structure"
    ]
    if not entries:
        return None
    several = len(runs) > 1
    shown = [name for name in FIGURES if any(name in entry["groups"] for _, entry in entries)]
    headers = [
        *([Column(words="run", text=True)] if several else []),
        Column(words="stage", text=True),
        *(Column(words=name, drop={"balanced": 2, "medium": 1}.get(name, 0)) for name in shown),
        Column(words="all"),
    ]
    rows = [
        [
            *([plain(run)] if several else []),
            plain(entry["name"]),
            *(_figure(entry["groups"].get(name)) for name in shown),
            numbers.accuracy(entry.get("mean"), entry.get("std")),
        ]
        for run, entry in entries
    ]
    return Cells(headers=headers, rows=rows)


def how_to_read(runs: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What the figures of the table are, and of one run how many classes belong to each group."""
    said = [_READING]
    counts = next(iter(runs.values()))["data"].get("train_counts") or [] if len(runs) == 1 else []
    of = [group_of(count) for count in counts]
    found = [f"{of.count(name)} {name}" for name in GROUPS if name in of]
    return [*said, f"Classes: {numbers.listing(found)}."] if found else said


def _figure(found: Mapping[str, Any] | None) -> str:
    return numbers.accuracy(found["mean"], found.get("std")) if found else numbers.NOTHING
