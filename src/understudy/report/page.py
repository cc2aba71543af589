"""A run's report: one page that loads nothing from elsewhere and needs no script."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from understudy.report import figures, groups, numbers, pareto, published, sections
from understudy.report.deploy import Deployed, cells, read_deploy
from understudy.report.deploy import how_to_read as how_to_read_files
from understudy.report.drawing import drawing
from understudy.report.frame import SHAPE_OF, SHAPES
from understudy.report.kinds import KINDS, kinds
from understudy.report.landscape import Landscape, pictures, read_landscape
from understudy.report.numbers import plain
from understudy.report.published import Published, read_published
from understudy.report.result import read_result
from understudy.report.statistics import LEVEL
from understudy.report.structures import structures
from understudy.report.tables import CONTROL, problems, to_control
from understudy.report.template import filled
from understudy.store.files import write_text

FILE = "report.html"
PERCENT = "\N{NO-BREAK SPACE}%"


def write_report(folder: Path) -> Path:
    """Writes ``folder/report.html`` from ``result.json``, ``recipe.yaml``, ``deploy.json``, ``landscape.json`` and
    ``paper.json``; also for an unfinished run.

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
    deployed = read_deploy(folder, result.get("delivered"))
    landscape = read_landscape(folder, result)
    title = folder.resolve().name
    paper = read_published(folder)
    write_text(
        page,
        render(result, title=title, recipe=text, deployed=deployed, landscape=landscape, paper=paper),
    )
    return page


def render(
    result: Mapping[str, Any],
    *,
    title: str,
    recipe: str | None,
    deployed: Deployed | None = None,
    landscape: Landscape | None = None,
    paper: Published | None = None,
) -> str:
    """The page as HTML; everything that a person or a data set named is escaped."""
    deployed, landscape = deployed or Deployed(), landscape or Landscape()
    paper = paper or Published(marks={})
    kind = kinds(result)
    summary = [summary_row(entry, result) | {"kind": kind[entry["name"]]} for entry in result["summary"]]
    found = structures(result)
    if any(row["difference"] for row in summary):  # where some are paired, no other kind stands among them
        summary = [row | {"to_control": None} for row in summary]
    costs = pareto.costs(result, deployed.rows)
    calibration = sections.calibration(result)
    shown: dict[str, Any] = {
        "learning": figures.learning(result),
        "costs": costs,
        "with_teachers": sections.with_teachers(result),
        "classes": sections.classes(result),
        "examples": sections.examples(result),
        "calibration": calibration,
        "entropy": sections.entropy_scale(calibration, classes=result["data"]["classes"]),
    }
    return filled(
        "page.html.jinja",
        title=title,
        headline=headline(result),
        missing=missing(result),
        problems=[*problems(result), *filter(None, (deployed.problem, landscape.problem, paper.problem))],
        warnings=sections.warnings(result),
        checked=sections.checked(result),
        drawing=drawing(result),
        kinds=KINDS,
        structures=found,
        dropped=any(not layer.after for one in found for layer in one.layers),
        deployed=deployed,
        landscape=pictures(landscape),
        paper=paper,
        paper_title=published.TITLE,
        paper_columns=published.COLUMNS,
        paper_rows=published.rows(paper, result["summary"]),
        deploy_cells=cells(deployed.rows),
        deploy_reading=how_to_read_files(deployed.rows, machine=deployed.machine),
        summary=summary,
        strip=figures.accuracies(result),
        differences=figures.differences(result),
        groups_title=groups.TITLE,
        groups=groups.cells({title: result}),
        groups_reading=groups.how_to_read({title: result}),
        reading=how_to_read(result),
        compared=any(row["difference"] or row["to_control"] is not None for row in summary),
        tested=any((row["difference"] or {}).get("interval") for row in summary),
        intervals=any(row["interval"] for row in summary),
        deviations=any(row["std"] is not None for row in summary),
        against=_against(result),
        keys=keys(set(kind.values()) - {"structure"}),
        cost_keys=keys(costs.kinds) if costs else [],
        losses=losses(result),
        absent=absent(result, shown),
        classes_shown=sections.CLASSES_SHOWN,
        stages=result["stages"],
        data=result["data"],
        environment=result.get("environment", {}),
        command=result.get("command") or "understudy run recipe.yaml --out NEW_FOLDER",
        recipe=recipe,
        seeds=result["ladder"].get("seeds", []),
        shape=result["ladder"].get("shape"),
        **shown,
    )


def summary_row(entry: Mapping[str, Any], result: Mapping[str, Any]) -> dict[str, Any]:
    """A row of the summary with all that its line in a table says, None where nothing is known."""
    return {
        "model": "",
        "parameters": None,
        "multiply_adds": None,
        "epochs": None,
        "std": None,
        **entry,
        "interval": numbers.interval(entry.get("interval")),
        "difference": _difference(entry),
        "to_control": to_control(entry, result["summary"]),
        "delivered": entry["name"] == figures.delivered_name(result),
        "is_control": entry["name"] in result["ladder"].get("controls", []),
    }


def _difference(entry: Mapping[str, Any]) -> dict[str, Any] | None:
    found = entry.get("difference")
    return {"interval": None, "p": None, "p_corrected": None, "claim": False, **found} if found else None


def _against(result: Mapping[str, Any]) -> str:
    return (result.get("compare") or {}).get("against") or CONTROL


def keys(of: Iterable[str]) -> list[dict[str, str]]:
    """The legend of charts that hold stages of these kinds."""
    there = set(of)
    return [
        {"name": kind, "kind": kind, "shape": SHAPES[shape]}
        for kind, shape in SHAPE_OF.items()
        if kind in there
    ]


def how_to_read(result: Mapping[str, Any]) -> list[str]:
    """What the figures of the summary mean, in sentences."""
    summary = result["summary"]
    compare = result.get("compare") or {}
    found = [entry["difference"] for entry in summary if entry.get("difference")]
    intervals = any(entry.get("interval") for entry in summary)
    said = [
        "Over n seeds: mean ± sample deviation, and below it the 95 % t-interval of the mean. One seed has no deviation."
        if intervals
        else "n = 1: one seed each, which has no deviation.",
        "MMAC: million multiply-adds for one image. Every figure is the last step’s" + _how_chosen(result),
    ]
    if compare.get("varied"):
        said.append(plain(compare["varied"]))
    if any(difference.get("interval") for difference in found):
        claimed = [plain(name) for name in compare.get("claim") or []]
        others = sum(not difference.get("claim") for difference in found)
        text = f"Differences to {plain(_against(result))} are paired by seed; p is of the paired t-test."
        if claimed:
            text += (
                f" The comparison of {numbers.listing(claimed)} was named in the recipe before the run: it is the claim, "
                f"and its interval and p stand by themselves."
            )
        if others:
            beside = (
                "The others were not: their" if claimed else "None was named before the run as the claim: the"
            )
            text += f" {beside} intervals hold together with 95 % (Bonferroni), and their p is corrected for their number (Holm)."
        said.append(text)
    elif not found and any(to_control(entry, summary) is not None for entry in summary):
        said.append(f"“To {CONTROL}” is the difference of the means in percentage points.")
    return said


def _how_chosen(result: Mapping[str, Any]) -> str:
    ladder = result["ladder"]
    if len(ladder.get("seeds") or [None]) == 1 and len(ladder["delivered"]) == 1:
        return "."
    on = "validation images, " if result["data"].get("validation") else ""
    return f"; the delivered seed was chosen {f'on {on}' if on else ''}never on test images."


def losses(result: Mapping[str, Any]) -> list[str]:
    """What the delivered student lost and gained, in sentences."""
    said = []
    stage = sections.delivered_stage(result)
    teacher = sections.its_teacher(result, stage) if stage else None
    if stage is not None and teacher is not None:
        beside = ((stage.get("analysis") or {}).get("teachers") or {}).get(teacher["name"]) or {}
        lost, gained = beside.get("lost"), beside.get("gained")
        if lost is not None and gained is not None:
            text = (
                f"Of {result['data'].get('test', 'all')} test images the delivered student "
                f"({plain(stage['name'])}, seed {stage['seed']}) gets {lost} wrong that {_called(teacher['name'])} "
                f"gets right, and {gained} right that the teacher gets wrong"
            )
            if beside.get("p") is not None:
                text += f" (McNemar’s exact test: p {_equals(beside['p'])})"
            said.append(text + ".")
    pair = result.get("students_compared")
    if pair:
        seed = f" of seed {pair['seed']}" if pair.get("seed") is not None else ""
        said.append(
            f"Of the two students{seed}, {plain(pair['first'])} alone gets {pair['only_first']} test images right and "
            f"{plain(pair['second'])} alone {pair['only_second']} (McNemar’s exact test: p {_equals(pair['p'])}). "
            f"That speaks of these two sets of weights; other seeds are other students."
        )
    return said


def _called(teacher: str) -> str:
    return "its teacher" if teacher == "teacher" else f"its teacher {plain(teacher)}"


def _equals(p: float) -> str:
    text = numbers.p_value(p)
    return text.replace("<", "< ") if text.startswith("<") else f"= {text}"


def absent(result: Mapping[str, Any], shown: Mapping[str, Any]) -> str:
    """Which parts this page lacks because ``result.json`` holds nothing for them; empty where it has all."""
    names = {
        "learning": "learning curves",
        "with_teachers": "agreement with the teachers",
        "classes": "accuracy of each class",
        "examples": "example images",
        "calibration": "calibration",
    }
    if not any(node.get("teachers") for node in result["ladder"]["graph"]):
        del (
            names["with_teachers"],
            names["examples"],
        )  # nobody teaches: there is nothing to agree with or to lose
    if result.get("lost_examples") is not None:
        names.pop("examples", None)  # looked for and none found
    lacking = [words for key, words in names.items() if not shown[key]]
    if not lacking or not result["stages"]:
        return ""
    why = "result.json holds nothing for" if result["complete"] else "There is nothing yet for"
    return f"{why}: {numbers.listing(lacking)}."


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
    stage = sections.delivered_stage(result) or {}
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
    paired = entry.get("difference")
    if paired:
        return f"{text} {verdict(paired, _against(result))}"
    difference = to_control(entry, result["summary"]) if entry else None
    if difference is not None:
        control = next(e for e in result["summary"] if e["name"] == CONTROL)
        text += (
            f" {numbers.points(difference)} points to {CONTROL}, the same student taught by the teacher alone "
            f"({numbers.accuracy(control['mean'], control.get('std'))}{PERCENT})."
        )
    return text


def verdict(difference: Mapping[str, Any], against: str) -> str:
    """A paired difference in a sentence that claims no more than it shows.

    >>> verdict({"n": 3, "mean": 0.014, "interval": [-0.002, 0.03], "p_corrected": 0.09}, "direct")
    '+1.40 points to direct, paired over 3 seeds (-0.20 to +3.00, p = 0.090): no difference is shown.'
    >>> verdict({"n": 1, "mean": 0.014, "interval": None}, "direct")
    '+1.40 points to direct (n = 1, one pair: nothing says how much of it is chance).'
    """
    text = f"{numbers.points(difference['mean'])} points to {plain(against)}"
    found = difference.get("interval")
    if not found:
        why = "all pairs differ alike" if difference["n"] > 1 else "one pair"
        return f"{text} (n = {difference['n']}, {why}: nothing says how much of it is chance)."
    p = difference.get("p_corrected")
    text += f", paired over {difference['n']} seeds ({numbers.points(found[0])} to {numbers.points(found[1])}"
    text += ")" if p is None else f", p {_equals(p)})"
    shown = not found[0] <= 0 <= found[1] if p is None else p < LEVEL
    return f"{text}: {'a' if shown else 'no'} difference is shown."
