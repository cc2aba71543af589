"""The charts of a run's page: which figures of ``result.json`` they show, and in which units."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from understudy.report import charts
from understudy.report.axes import usable
from understudy.report.kinds import kinds
from understudy.report.numbers import accuracy, plain, points

PERCENT = (0.0, 100.0)
MOST_POINTS = 40_000  # of all thin curves together, so that a page of many seeds stays small
FEWEST_POINTS = 12  # of one of them


@dataclass(frozen=True, kw_only=True)
class Curves:
    """The training of one stage over its seeds; a chart without figures is empty."""

    name: str
    seeds: int
    accuracy: Markup
    loss: Markup


def accuracies(result: Mapping[str, Any]) -> Markup:
    """Test accuracy of every stage that was trained: a dot for each seed, the mean, and its 95 % interval."""
    kind = kinds(result)
    rows = [
        charts.Row(
            name=entry["name"],
            kind=kind[entry["name"]],
            about=f"{plain(entry['name'])}: {accuracy(entry['mean'], entry.get('std'))} %, n = {entry['n']}",
            dots=in_percent(of_name(result, entry["name"], "test")),
            mean=_percent(entry["mean"]),
            interval=interval_in_percent(entry.get("interval")),
            strong=entry["name"] == delivered_name(result),
        )
        for entry in result["summary"]
        if entry["n"] and kind[entry["name"]] != "structure"
    ]
    if len(rows) < 2 and all(len(row.dots) < 2 for row in rows):
        return Markup("")  # one figure is said, not drawn
    return Markup(
        charts.rows(
            rows, about="Test accuracy of every stage and seed", x_label="test accuracy, %", bounds=PERCENT
        )
    )


def differences(result: Mapping[str, Any]) -> Markup:
    """Paired differences to the control, in points: a dot for each pair, the mean, and its interval."""
    against = (result.get("compare") or {}).get("against")
    kind = kinds(result)
    theirs = _by_seed(result, against)
    rows = []
    for entry in result["summary"]:
        found = entry.get("difference")
        if not found:
            continue
        ours = _by_seed(result, entry["name"])
        rows.append(
            charts.Row(
                name=("claim: " if found.get("claim") else "") + plain(entry["name"]),
                kind=kind[entry["name"]],
                about=f"{plain(entry['name'])}: {points(found['mean'])} points {interval_words(found)}",
                dots=[100 * (ours[seed] - theirs[seed]) for seed in ours if seed in theirs],
                mean=_percent(found["mean"]),
                interval=interval_in_percent(found.get("interval")),
                strong=bool(found.get("claim")),
            )
        )
    return Markup(
        charts.rows(
            rows,
            about=f"Differences to {against}",
            x_label=f"difference to {plain(against)}, percentage points",
            reference=0.0,
        )
    )


def interval_words(difference: Mapping[str, Any]) -> str:
    """``(95 % interval -0.40 to +2.10)``, or ``(n = 1)``."""
    found = difference.get("interval")
    if not found:
        return f"(n = {difference['n']})"
    return f"(interval {points(found[0])} to {points(found[1])}, n = {difference['n']})"


def learning(result: Mapping[str, Any]) -> list[Curves]:
    """Validation accuracy and training loss by epoch, stage by stage: a thin line for each seed, a thick one for their mean.

    Accuracies share their axes, so that stages can be compared; losses do not, because ladders add up different terms.
    """
    kind = kinds(result)
    by_name: dict[str, list[Mapping[str, Any]]] = {entry["name"]: [] for entry in result["summary"]}
    for stage in result["stages"]:
        if stage.get("curve"):
            by_name.setdefault(stage["name"], []).append(stage)
    by_name = {name: stages for name, stages in by_name.items() if stages}
    all_curves = [stage["curve"] for stages in by_name.values() for stage in stages]
    epochs = [point["epoch"] for curve in all_curves for point in curve if usable(point["epoch"])]
    reached = [
        100 * point["accuracy"] for curve in all_curves for point in curve if usable(point.get("accuracy"))
    ]
    if not epochs:
        return []
    most = max(FEWEST_POINTS, MOST_POINTS // (2 * len(all_curves)))
    made = []
    for name, stages in by_name.items():
        said = plain(name)
        longest = [p["epoch"] for stage in stages for p in stage["curve"] if usable(p["epoch"])]
        # a control with many more epochs than the others would press their curves into a corner
        across = (min(epochs), max(epochs)) if longest and max(longest) > max(epochs) / 2 else None
        made.append(
            Curves(
                name=said,
                seeds=len(stages),
                accuracy=Markup(
                    charts.curves(
                        _lines(stages, "accuracy", 100.0, most),
                        kind=kind[name],
                        about=f"{said}: validation accuracy by epoch",
                        x_label="epoch",
                        y_label="validation accuracy, %",
                        x_range=across,
                        y_range=(min(reached), max(reached)) if reached else None,
                        bounds=PERCENT,
                    )
                ),
                loss=Markup(
                    charts.curves(
                        _lines(stages, "loss", 1.0, most),
                        kind=kind[name],
                        about=f"{said}: training loss by epoch",
                        x_label="epoch",
                        y_label="training loss",
                        size=(330, 140),
                        x_range=across,
                        y_range=(0.0, 0.0),
                        bounds=(0.0, math.inf),
                    )
                ),
            )
        )
    return [curves for curves in made if curves.accuracy or curves.loss]


def _lines(stages: Sequence[Mapping[str, Any]], key: str, times: float, most: int) -> list[charts.Line]:
    """A thin line for each seed and, where there are several, a thick one where all of them have a figure."""
    by_seed = []
    for stage in stages:
        line = [
            (point["epoch"], times * point[key] if usable(point.get(key)) else None)
            for point in stage["curve"]
        ]
        by_seed.append((f"seed {stage['seed']}", line))
    if len(by_seed) == 1:
        return [charts.Line(points=by_seed[0][1], kind="mean", about=by_seed[0][0])]
    lines = [charts.Line(points=thinned(line, most), kind="seed", about=about) for about, line in by_seed]
    at = [{epoch: value for epoch, value in line if value is not None} for _, line in by_seed]
    shared = sorted(set(at[0]).intersection(*at[1:]))
    mean = [(epoch, statistics.fmean(values[epoch] for values in at)) for epoch in shared]
    return [*lines, charts.Line(points=mean, kind="mean", about=f"mean of {len(by_seed)} seeds")]


def thinned(line: Sequence[tuple[float, float | None]], most: int) -> list[tuple[float, float | None]]:
    """At most ``most`` points of a line, evenly chosen, the first and the last among them.

    >>> thinned([(epoch, None) for epoch in range(9)], 3)
    [(0, None), (4, None), (8, None)]
    """
    if len(line) <= most:
        return list(line)
    return [line[round(number * (len(line) - 1) / (most - 1))] for number in range(most)]


def delivered_name(result: Mapping[str, Any]) -> str | None:
    """The name of the stage that is delivered, if one is."""
    return (result.get("delivered") or {}).get("name")


def of_name(result: Mapping[str, Any], name: str, split: str) -> list[float]:
    """Accuracies of a stage on ``split``, seed by seed, as fractions."""
    return [
        stage[split]["accuracy"]
        for stage in result["stages"]
        if stage["name"] == name and (stage.get(split) or {}).get("accuracy") is not None
    ]


def _by_seed(result: Mapping[str, Any], name: str | None) -> dict[int | None, float]:
    return {
        stage["seed"]: stage["test"]["accuracy"]
        for stage in result["stages"]
        if stage["name"] == name and (stage.get("test") or {}).get("accuracy") is not None
    }


def _percent(fraction: float | None) -> float | None:
    return None if fraction is None else 100 * fraction


def in_percent(fractions: Sequence[float]) -> list[float]:
    """Fractions as a chart shows them."""
    return [100 * fraction for fraction in fractions]


def interval_in_percent(of: Sequence[float] | None) -> tuple[float, float] | None:
    """The same for an interval; None where there is none."""
    return (100 * of[0], 100 * of[1]) if of else None
