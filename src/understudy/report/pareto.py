"""Accuracy against what it costs: multiply-adds, parameters, and where it was measured, the time of one image."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from understudy.report.deploy import called
from understudy.report.kinds import kinds
from understudy.report.numbers import accuracy, count, listing, mmac, percent, plain, three_figures
from understudy.report.scatter import Mark, scatter

PERCENT = (0.0, 100.0)
COSTS = (  # what it is called, its key, and the label of its axis
    ("multiply-adds", "multiply_adds", "multiply-adds for one image (log scale)"),
    ("parameters", "parameters", "parameters (log scale)"),
)
FAR = 0.5  # a structure is not drawn if it lies further below all others than this part of their spread …
NEAR = 0.05  # … and than this accuracy


@dataclass(frozen=True, kw_only=True)
class Costs:
    """Charts, the title of each with it; the kinds of stages in them, and a sentence on those that are not."""

    charts: list[tuple[str, Markup]]
    kinds: set[str]
    left_out: str


def costs(result: Mapping[str, Any], rows: Sequence[Mapping[str, Any]] = ()) -> Costs | None:
    """Accuracy of every stage against its costs, with the Pareto front; None where one figure stands alone.

    Of test images, or of validation images where there are no others.

    Args:
        result: the content of ``result.json``.
        rows: of ``deploy.json``.
    """
    kind = kinds(result)
    entries, what = _accuracies(result)
    drawn, low = _worth_drawing(entries, kind)
    delivered = (result.get("delivered") or {}).get("name")
    made = []
    for title, key, label in COSTS if len(drawn) > 1 else ():
        marks = [
            cost_mark(
                entry, key, name=entry["name"], kind=kind[entry["name"]], strong=entry["name"] == delivered
            )
            for entry in drawn
        ]
        made.append((title, cost_chart(marks, title=title, label=label, what=what, with_front=True)))
    made.append(("latency", _latency(rows)))
    charts = [(title, chart) for title, chart in made if chart]
    if not charts:
        return None
    return Costs(
        charts=charts,
        kinds={kind[entry["name"]] for entry in drawn} if len(drawn) > 1 else {"student"},
        left_out=_left_out(low) if len(drawn) > 1 else "",
    )


def _accuracies(result: Mapping[str, Any]) -> tuple[list[dict[str, Any]], str]:
    """Rows of the summary with a mean, and what it is of: ``test`` or ``validation``."""
    tested = [dict(entry) for entry in result["summary"] if entry["n"] and entry.get("mean") is not None]
    if tested:
        return tested, "test"
    found = []
    for entry in result["summary"]:
        values = [
            stage["validation"]["accuracy"]
            for stage in result["stages"]
            if stage["name"] == entry["name"] and (stage.get("validation") or {}).get("accuracy") is not None
        ]
        if values:
            std = statistics.stdev(values) if len(values) > 1 else None
            found.append({**entry, "n": len(values), "mean": statistics.fmean(values), "std": std})
    return found, "validation"


def _worth_drawing(
    entries: Sequence[dict[str, Any]], kind: Mapping[str, str]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Those that are drawn, and structures that would press all others into a corner: nothing is trained in them."""
    others = [entry["mean"] for entry in entries if kind[entry["name"]] != "structure"]
    if not others:
        return list(entries), []
    least = min(others) - max(FAR * (max(others) - min(others)), NEAR)
    low = [entry for entry in entries if kind[entry["name"]] == "structure" and entry["mean"] < least]
    return [entry for entry in entries if entry not in low], low


def _left_out(low: Sequence[Mapping[str, Any]]) -> str:
    if not low:
        return ""
    names = [f"{plain(entry['name'])} ({percent(entry['mean'])} %)" for entry in low]
    what = "a network" if len(low) == 1 else "networks"
    return f"Far below, and not drawn: {listing(names)}, {what} just cut to the budget and not trained since."


def cost_mark(
    entry: Mapping[str, Any],
    key: str,
    *,
    name: str,
    kind: str,
    shape: str = "",
    strong: bool = False,
    about: str = "",
) -> Mark:
    """One row of a summary as a point: its mean, and mean ± sample deviation as its bar; ``about`` names its run."""
    mean, std = entry.get("mean"), entry.get("std")
    return Mark(
        x=entry.get(key),
        y=None if mean is None else 100 * mean,
        interval=None if mean is None or std is None else (100 * (mean - std), 100 * (mean + std)),
        name=name,
        kind=kind,
        shape=shape,
        strong=strong,
        about=f"{about}{', ' if about else ''}{plain(name)}: {accuracy(mean, std)} %, n = {entry['n']}, {count(entry.get('parameters'))} parameters, "
        f"{mmac(entry.get('multiply_adds'))} MMAC",
    )


def cost_chart(
    marks: Sequence[Mark], *, title: str, label: str, what: str = "test", with_front: bool = False
) -> Markup:
    """Accuracy in percent over a cost; ``what`` is the split that it is of."""
    return Markup(
        scatter(
            marks,
            about=f"{what.capitalize()} accuracy against {title}",
            x_label=label,
            y_label=f"{what} accuracy, %",
            x_text=_round_count,
            bounds=PERCENT,
            with_front=with_front,
        )
    )


def _latency(rows: Sequence[Mapping[str, Any]]) -> Markup:
    """The forms of the student against the time that one image takes; nothing for a single one."""
    what = (
        "test" if any((row.get("test") or {}).get("accuracy") is not None for row in rows) else "validation"
    )
    marks = []
    for row in rows:
        reached, took = (row.get(what) or {}).get("accuracy"), row.get("latency") or {}
        if reached is None or took.get("median_ms") is None:
            continue
        name = called(row, rows)
        threads = f", {took['threads']} threads" if (took.get("threads") or 1) > 1 else ""
        marks.append(
            Mark(
                x=took["median_ms"],
                y=100 * reached,
                name=name,
                kind="student",
                about=f"{name}: {percent(reached)} %, {three_figures(took['median_ms'])} ms{threads}",
                strong=row.get("form") == "float32",
            )
        )
    if len(marks) < 2:
        return Markup("")
    return Markup(
        scatter(
            marks,
            about=f"{what.capitalize()} accuracy against latency",
            x_label="median time of one image, ms (log scale)",
            y_label=f"{what} accuracy, %",
            x_text=lambda number: f"{number:g}",
            bounds=PERCENT,
            with_front=True,
        )
    )


def _round_count(number: float) -> str:
    """A round figure below an axis.

    >>> _round_count(300.0), _round_count(30_000.0), _round_count(2_500_000.0), _round_count(1e12)
    ('300', '30k', '2.5M', '1000G')
    """
    size, letter = next(
        ((s, unit) for s, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")) if number >= s), (1.0, "")
    )
    return f"{number / size:g}{letter}"
