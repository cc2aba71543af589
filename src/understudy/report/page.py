"""A run's report: one page that loads nothing from elsewhere and needs no script."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined

from understudy.report import numbers
from understudy.report.drawing import drawing
from understudy.report.numbers import plain
from understudy.report.result import read_result
from understudy.report.tables import CONTROL, problems, to_control
from understudy.store.files import write_text

FILE = "report.html"
PERCENT = "\N{NO-BREAK SPACE}%"


def write_report(folder: Path) -> Path:
    """Writes ``folder/report.html`` from ``result.json`` and ``recipe.yaml`` beside it; also for an unfinished run.

    Returns:
        the page.

    Raises:
        BadInput: ``result.json`` is not there, is damaged, or is of another version.
        CannotWrite: the page cannot be written; an older one is left as it was.
    """
    folder = Path(folder)
    result = read_result(folder)
    recipe = folder / "recipe.yaml"
    text = recipe.read_bytes().decode("utf-8", "replace") if recipe.is_file() else None
    page = folder / FILE
    write_text(page, render(result, title=folder.resolve().name, recipe=text))
    return page


def render(result: Mapping[str, Any], *, title: str, recipe: str | None) -> str:
    """The page as HTML; everything that a person or a data set named is escaped."""
    summary = [_row(entry, result) for entry in result["summary"]]
    template = resources.files("understudy.report").joinpath("page.html.jinja").read_text("utf-8")
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(
        accuracy=numbers.accuracy,
        count=numbers.count,
        duration=numbers.duration,
        mmac=numbers.mmac,
        plain=plain,
        points=numbers.points,
        or_nothing=lambda value: numbers.NOTHING if value in (None, "", 0) else value,
    )
    page = environment.from_string(template).render(
        title=title,
        headline=headline(result),
        missing=missing(result),
        problems=problems(result),
        drawing=drawing(result),
        summary=summary,
        compared=any(row["to_control"] is not None for row in summary),
        intervals=any(row["interval"] for row in summary),
        control=CONTROL,
        stages=result["stages"],
        data=result["data"],
        environment=result.get("environment", {}),
        command=result.get("command") or "understudy run recipe.yaml --out NEW_FOLDER",
        recipe=recipe,
        seeds=result["ladder"].get("seeds", []),
        shape=result["ladder"].get("shape"),
    )
    return page.encode("utf-8", "replace").decode("utf-8")  # half a surrogate pair in a file's name, say


def _row(entry: Mapping[str, Any], result: Mapping[str, Any]) -> dict[str, Any]:
    interval = entry.get("interval")
    return {
        "model": "",
        "parameters": None,
        "multiply_adds": None,
        "epochs": None,
        "std": None,
        **entry,
        "interval": f"{numbers.percent(interval[0])} to {numbers.percent(interval[1])}" if interval else "",
        "to_control": to_control(entry, result["summary"]),
        "delivered": entry["name"] == (result.get("delivered") or {}).get("name"),
        "is_control": entry["name"] in result["ladder"].get("controls", []),
    }


def missing(result: Mapping[str, Any]) -> str:
    """What an unfinished run still lacks, in one sentence; empty for a complete one."""
    if result["complete"]:
        return ""
    stages = result["stages"]
    done = sum(stage["state"] == "done" for stage in stages)
    text = f"This run is not finished: {done} of {len(stages)} stages are done."
    begun = {stage["name"] for stage in stages}
    if absent := [plain(node["name"]) for node in result["ladder"]["graph"] if node["name"] not in begun]:
        text += f" Not begun: {numbers.listing(absent)}."
    return text + " The same command goes on where it stopped."


def headline(result: Mapping[str, Any]) -> str:
    """What was delivered, how good it is, and how that compares."""
    delivered = result.get("delivered")
    if delivered is None:
        return "Nothing is delivered yet."
    name = delivered["name"]
    stage: Mapping[str, Any] = next(
        (s for s in result["stages"] if s["name"] == name and s["seed"] == delivered["seed"]), {}
    )
    entry: Mapping[str, Any] = next((e for e in result["summary"] if e["name"] == name), {})
    text = f"{'Delivered' if result['complete'] else 'Delivered so far'}: {plain(name)}"
    if model := stage.get("model") or entry.get("model"):
        text += f" ({plain(model)})"
    text += f", seed {delivered['seed']}"
    own = (stage.get("test") or {}).get("accuracy")
    if own is not None:
        text += f", {numbers.percent(own)}{PERCENT} of the test images right"
    text += "."
    if entry.get("std") is not None:
        text += f" Over {entry['n']} seeds {numbers.accuracy(entry['mean'], entry['std'])}{PERCENT}."
    difference = to_control(entry, result["summary"]) if entry else None
    if difference is not None:
        control = next(e for e in result["summary"] if e["name"] == CONTROL)
        text += (
            f" {numbers.points(difference)} points to {CONTROL}, the same student taught by the teacher alone "
            f"({numbers.accuracy(control['mean'], control.get('std'))}{PERCENT})."
        )
    return text
