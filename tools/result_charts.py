"""Pictures of a run that stand alone, for the documentation.

python tools/result_charts.py accuracy runs/name docs/results/name.svg          # test accuracy of every arm; of several runs:
python tools/result_charts.py accuracy runs/a runs/b docs/results/name.svg      # the first one's, and what the others have beside
python tools/result_charts.py groups   runs/name docs/results/name.svg          # the same for many, medium and few
python tools/result_charts.py steps    runs/name docs/results/name.svg          # validation accuracy against steps
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from statistics import mean
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.plots import svg as curve_svg

from understudy.recipe import read_file
from understudy.report.charts import Row, rows
from understudy.report.kinds import kinds
from understudy.report.statistics import mean_std_interval

GREY = "#7b828c"  # readable on white and on black
STYLE = f"""
text {{ font: 13px system-ui, sans-serif; fill: {GREY}; }} .strong {{ font-weight: 600; }}
path, circle {{ fill: none; stroke: {GREY}; }} .grid, .axis {{ stroke-opacity: .4; }} .reference {{ stroke-dasharray: 3 3; }}
.student {{ stroke: #c94f00; }} .teacher {{ stroke: #0072b2; }} .assistant {{ stroke: #00875f; }} .bar {{ stroke-width: 1.5; }}
circle.dot {{ fill: currentColor; fill-opacity: .35; stroke: none; color: {GREY}; }} .mark {{ stroke-width: 2; }}
"""


def accuracy(result: Mapping[str, Any]) -> str:
    """A row for each arm: dots of seeds, their mean, its 95 % interval."""
    kind = kinds(result)
    return rows(
        [_row(result, row["name"], kind[row["name"]], "accuracy") for row in result["summary"]],
        about="test accuracy of each arm",
        x_label="test accuracy, %",
        width=560,
    )


def groups(result: Mapping[str, Any]) -> str:
    """A row for each group and arm."""
    kind = kinds(result)
    drawn = [
        _row(result, row["name"], kind[row["name"]], group, name=f"{group}: {row['name']}")
        for group in ("many", "medium", "few")
        for row in result["summary"]
        if group in row.get("groups", {})
    ]
    return rows(
        drawn, about="test accuracy by how often a class is seen", x_label="test accuracy, %", width=640
    )


def steps(result: Mapping[str, Any], *, batch: int) -> str:
    """Lines over steps of the optimiser: means over seeds."""
    images = result["data"]["train"]
    of_epoch = -(-images // batch)
    lines = {}
    epochs = 0
    for row in result["summary"]:
        curves = [
            stage["curve"] for stage in result["stages"] if stage["name"] == row["name"] and stage["curve"]
        ]
        if row["role"] == "student" and curves:
            epochs = len(curves[0])
            lines[row["name"]] = [100 * mean(one[i]["accuracy"] for one in curves) for i in range(epochs)]
    return curve_svg(
        {
            "x": [of_epoch * (i + 1) for i in range(epochs)],
            "lines": lines,
            "log_x": False,
            "x_label": "steps of the optimiser",
            "y_label": "validation accuracy, %",
        },
        about="validation accuracy against steps of the optimiser",
    )


def _row(result: Mapping[str, Any], arm: str, kind: str, figure: str, *, name: str = "") -> Row:
    values = [
        100 * stage["test"][figure]
        for stage in result["stages"]
        if stage["name"] == arm and figure in (stage["test"] or {})
    ]
    middle, _, interval = mean_std_interval(values) if values else (None, None, None)
    strong = result["delivered"] is not None and arm == result["delivered"]["name"]
    return Row(
        name=name or arm, kind=kind, about=arm, dots=values, mean=middle, interval=interval, strong=strong
    )


def _join(result: dict[str, Any], other: Mapping[str, Any]) -> None:
    """Puts the arms of another run, and the stages they stand on, below those that are there."""
    if result["data"]["fingerprint"] != other["data"]["fingerprint"]:
        raise SystemExit("these runs are on different data")
    known = {row["name"] for row in result["summary"]}
    for part in ("summary", "stages"):
        result[part] += [entry for entry in other[part] if entry["name"] not in known]
    for part in ("graph", "edges", "controls"):
        result["ladder"][part] += [one for one in other["ladder"][part] if one not in result["ladder"][part]]


def main() -> None:
    what, runs, out = sys.argv[1], [Path(word) for word in sys.argv[2:-1]], Path(sys.argv[-1])
    run = runs[0]
    result, *others = [json.loads((one / "result.json").read_text("utf-8")) for one in runs]
    for other in others:
        _join(result, other)
    if what == "steps":
        recipe = read_file(run / "recipe.yaml")
        drawn = steps(result, batch=recipe["training"]["batch_size"])
    else:
        drawn = {"accuracy": accuracy, "groups": groups}[what](result)
    if "xmlns" not in drawn:
        drawn = re.sub(r"^<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', drawn)
        drawn = drawn.replace(">", f"><style>{STYLE}</style>", 1)
    out.write_text(drawn, "utf-8")


if __name__ == "__main__":
    main()
