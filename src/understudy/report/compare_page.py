"""Several runs side by side on one page that loads nothing from elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import cycle
from pathlib import Path
from typing import Any

from markupsafe import Markup

from understudy.report import charts, figures, groups, numbers, pareto
from understudy.report.frame import SHAPES
from understudy.report.kinds import kinds
from understudy.report.numbers import plain
from understudy.report.page import summary_row
from understudy.report.tables import different_data, problems
from understudy.report.template import filled
from understudy.store.files import write_text

COLOURS = 7  # of the page's style, run0 to run6; shapes tell more runs than that apart
_SHAPES = list(SHAPES)[:6]  # no divisor in common with the colours
ROWS_DRAWN = 40  # a chart of more rows is longer than the table it should explain


def write_comparison(runs: Mapping[str, Mapping[str, Any]], out: Path) -> Path:
    """Writes a page that compares runs: a table, accuracy against cost, what differs between them.

    Runs of different data are shown as well, with a warning that their accuracies do not compare: whether to refuse
    them is for the caller to say.

    Args:
        runs: contents of ``result.json`` by what each run is called.
        out: the file to write; an older one is written over.

    Returns:
        ``out``.

    Raises:
        ValueError: no runs.
        CannotWrite: the page cannot be written; an older one is left as it was.
    """
    if not runs:
        raise ValueError("a comparison needs one or more runs; got none")
    write_text(out, render(runs))
    return out


def render(runs: Mapping[str, Mapping[str, Any]]) -> str:
    """The page as HTML; everything that a person or a data set named is escaped."""
    rows = [row for run, result in runs.items() for row in _rows(run, result)]
    looks = {
        run: (f"run{number % COLOURS}", shape)
        for number, (run, shape) in enumerate(zip(runs, cycle(_SHAPES), strict=False))
    }
    deviations = any(row["std"] is not None for row in rows)
    compared = any(row["difference"] for row in rows)
    return filled(
        "compare.html.jinja",
        title="Comparison of runs",
        headline=_headline(runs),
        different=different_data(runs),
        problems=[
            f"{plain(run)}: {problem}" for run, result in runs.items() for problem in _unfinished(result)
        ],
        rows=rows,
        compared=compared,
        intervals=deviations,
        reading=_how_to_read(runs, deviations=deviations, compared=compared),
        strip=_strip(runs, looks),
        groups_title=groups.TITLE,
        groups=groups.cells(runs),
        groups_reading=groups.how_to_read(runs),
        costs=_costs(runs, looks),
        keys=[
            {"name": plain(run), "kind": kind, "shape": SHAPES[shape]} for run, (kind, shape) in looks.items()
        ],
        runs=list(runs),
        differing=differing(runs),
        commands=[(run, result.get("command") or "not known") for run, result in runs.items()],
    )


def _rows(run: str, result: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [
        {"run": run, "first": number == 0, **summary_row(entry, result)}
        for number, entry in enumerate(result["summary"])
    ]


def _headline(runs: Mapping[str, Mapping[str, Any]]) -> str:
    names = [plain(run) for run in runs]
    text = f"{len(runs)} {'run' if len(runs) == 1 else 'runs'}: {numbers.listing(names)}."
    sets = {plain(result["data"]["name"]) for result in runs.values()}
    return f"{text} Data: {numbers.listing(sorted(sets))}."


def _unfinished(result: Mapping[str, Any]) -> list[str]:
    done = sum(stage["state"] == "done" for stage in result["stages"])
    said = [] if result["complete"] else [f"not finished, {done} of {len(result['stages'])} stages are done"]
    return [*said, *problems(result)]


def _how_to_read(runs: Mapping[str, Mapping[str, Any]], *, deviations: bool, compared: bool) -> list[str]:
    said = []
    if deviations:
        said.append("Mean ± sample deviation over n seeds, and below it the 95 % t-interval of the mean.")
    said.append("One seed has no deviation. MMAC: million multiply-adds for one image.")
    if compared:
        said.append(
            "Differences are to the control of the same run, paired by seed; the claim of a run was named in its recipe "
            "beforehand, the p of its other differences is corrected for their number (Holm). Between runs nothing is "
            "paired and nothing corrected: what only a comparison of runs suggests wants a run of its own."
        )
    varied = {plain((result.get("compare") or {}).get("varied") or "") for result in runs.values()} - {""}
    if len(varied) == 1:
        said += varied
    elif varied:
        said.append(
            "What varied over seeds is not the same in all of these runs; each run's own page says it."
        )
    return said


def _strip(runs: Mapping[str, Mapping[str, Any]], looks: Mapping[str, tuple[str, str]]) -> Markup:
    rows = []
    for run, result in runs.items():
        kind, shape = looks[run]
        rows += [
            charts.Row(
                name=plain(entry["name"]),
                kind=kind,
                shape=shape,
                about=f"{plain(run)}: {plain(entry['name'])}, {numbers.accuracy(entry['mean'], entry.get('std'))} %",
                dots=figures.in_percent(figures.of_name(result, entry["name"], "test")),
                mean=None if entry["mean"] is None else 100 * entry["mean"],
                interval=figures.interval_in_percent(entry.get("interval")),
                strong=entry["name"] == figures.delivered_name(result),
            )
            for entry in _trained(result)
            if entry["n"]
        ]
    if not 1 < len(rows) <= ROWS_DRAWN:
        return Markup("")
    return Markup(
        charts.rows(
            rows,
            about="Test accuracy of every stage of every run",
            x_label="test accuracy, %",
            bounds=figures.PERCENT,
        )
    )


def _costs(
    runs: Mapping[str, Mapping[str, Any]], looks: Mapping[str, tuple[str, str]]
) -> list[tuple[str, Markup]]:
    made = []
    for title, key, label in pareto.COSTS:
        marks = [
            pareto.cost_mark(
                entry,
                key,
                name=entry["name"],
                about=plain(run),
                kind=looks[run][0],
                shape=looks[run][1],
                strong=entry["name"] == figures.delivered_name(result),
            )
            for run, result in runs.items()
            for entry in _trained(result)
        ]
        made.append((title, pareto.cost_chart(marks, title=title, label=label)))
    return [(title, chart) for title, chart in made if chart]


def _trained(result: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Rows of the summary without structures, which are cut to a budget and not trained."""
    kind = kinds(result)
    return [entry for entry in result["summary"] if kind[entry["name"]] != "structure"]


def differing(runs: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, list[str]]]:
    """What is not the same in all runs, of ladder, data and environment: its name, and its value in each run."""
    found = []
    for part, keys in (("ladder", ("shape", "seeds", "repeat")), ("data", None), ("environment", None)):
        parts = [dict(result.get(part) or {}) for result in runs.values()]
        for key in keys or dict.fromkeys(key for one in parts for key in one):
            values = [one.get(key) for one in parts]
            if any(value != values[0] for value in values):
                found.append((f"{part}: {key}", [_said(value) for value in values]))
    return found


def _said(value: Any) -> str:
    if value is None:
        return numbers.NOTHING
    if isinstance(value, list):
        some = [plain(one) for one in value[:8]]
        return ", ".join(some) + (f", … ({len(value)})" if len(value) > 8 else "")
    return numbers.shortened(plain(value), 60)
