"""Tables for the terminal: one run, several runs, a plan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rich import box
from rich.console import Console, JustifyMethod
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from understudy.report import deploy, groups, numbers
from understudy.report.kinds import kinds
from understudy.report.numbers import listing, plain

if TYPE_CHECKING:
    from understudy.ladder.estimate import Forecast

CONTROL = "direct"  # what a ladder has to beat: the student taught by the teacher alone


@dataclass(frozen=True, kw_only=True)
class _Column:
    """A column; where the console is too narrow, the one with the highest ``drop`` goes first, one with 0 never."""

    header: str
    drop: int = 0
    text: bool = False  # folds where it must; figures never do


_NAME_WIDTH = 22  # a name may fold below its full length before any figure is dropped, but not below this


def _fitted(
    columns: Sequence[_Column],
    rows: Sequence[Sequence[Text | str]],
    *,
    title: str,
    below: Sequence[str],
    width: int | None,
) -> Table:
    """A table no wider than ``width`` (None: the terminal's), which loses columns rather than breaks a figure."""
    console = Console(width=width)
    kept = [i for i, column in enumerate(columns) if any(str(row[i]) for row in rows) or not column.drop]

    def table(cut: int | None = None) -> Table:
        made = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, caption_justify="left")
        for i in kept:
            side: JustifyMethod = "left" if columns[i].text else "right"
            overflow: Literal["fold", "ellipsis"] = "fold" if columns[i].text else "ellipsis"
            header = columns[i].header
            made.add_column(Text(header), justify=side, no_wrap=not columns[i].text, overflow=overflow)
        for row in rows:
            cells = [
                row[i] if isinstance(row[i], Text) else Text(str(row[i])) for i in kept
            ]  # never as markup
            made.add_row(
                *(cell[:cut] if columns[i].text else cell for i, cell in zip(kept, cells, strict=True))
            )
        return made

    room = console.options.update(width=10_000)
    while Measurement.get(console, room, table(_NAME_WIDTH)).maximum > console.width:
        droppable = [i for i in kept if columns[i].drop]
        if not droppable:
            break
        kept.remove(max(droppable, key=lambda i: columns[i].drop))
    made = table()
    made.title, made.title_justify, made.title_style = Text(title, style="bold"), "left", ""
    if below:
        made.caption, made.caption_style = Text("\n".join(below)), ""
        # a caption is as wide as its table, and sentences below a small table would be broken too early
        made.min_width = min(console.width, 80, max(len(line) for line in below))
    return made


def summary_table(result: Mapping[str, Any], *, width: int | None = None) -> Table:
    """One run: every stage over its seeds, the delivered one marked; what went wrong is for ``problems`` to say.

    Args:
        result: the content of ``result.json``.
        width: in characters; None: the terminal's.
    """
    delivered = result.get("delivered")
    rows: list[list[Text | str]] = []
    for entry in result["summary"]:
        marked = delivered is not None and entry["name"] == delivered["name"]
        name = Text(
            f"{plain(entry['name'])} *" if marked else plain(entry["name"]), style="bold" if marked else ""
        )
        rows.append([name, *_figures(entry, result)])
    below = []
    if delivered is not None:
        below.append(
            f"* delivered{'' if result['complete'] else ' so far'}: seed {delivered['seed']}, the last step's weights"
        )
    below += _how_to_read(result["summary"])
    kind = kinds(result)
    cut = [plain(entry["name"]) for entry in result["summary"] if kind[entry["name"]] == "structure"]
    if cut:
        below.append(f"{listing(cut)}: cut to the budget, not trained since")
    return _fitted(
        [_Column(header="stage", text=True), *_FIGURES],
        rows,
        title=f"Test accuracy on {plain(result['data']['name'])}{'' if result['complete'] else ', not finished'}",
        below=below,
        width=width,
    )


_FIGURES = (
    _Column(header="model", text=True, drop=4),
    _Column(header="parameters", drop=5),
    _Column(header="MMAC", drop=3),
    _Column(header="epochs", drop=6),
    _Column(header="n", drop=1),
    _Column(header="accuracy, %"),
    _Column(header=f"to {CONTROL}", drop=2),
)


def _figures(entry: Mapping[str, Any], result: Mapping[str, Any]) -> list[str]:
    return [
        plain(entry.get("model", "")),
        numbers.count(entry.get("parameters")),
        numbers.mmac(entry.get("multiply_adds")),
        str(entry.get("epochs") or numbers.NOTHING),
        str(entry["n"]),
        numbers.accuracy(entry.get("mean"), entry.get("std")),
        _against_control(entry, result),
    ]


def _how_to_read(summary: Sequence[Mapping[str, Any]], *, runs: int = 1) -> list[str]:
    said = []
    if any(entry.get("std") is not None for entry in summary):
        said.append("mean ± sample deviation over n seeds, of the test images")
    if any(to_control(entry, summary) is not None for entry in summary):
        said.append(f"to {CONTROL}: difference in points")
    differences = [entry["difference"] for entry in summary if entry.get("difference")]
    if any(difference["interval"] for difference in differences):
        said[-1] = f"to {CONTROL}: paired by seed, in points, with a 95 % interval"
        others = sum(not difference["claim"] for difference in differences)
        if others > 1:
            which = f"the {others} arms" if runs == 1 else "all arms of a run"
            said.append(f"intervals of {which} that are no claim hold together")
    if any(difference["claim"] for difference in differences):
        said.append("c: the claim, named beforehand in the recipe")
    return said


def _against_control(entry: Mapping[str, Any], result: Mapping[str, Any]) -> str:
    found = entry.get("difference")
    if not found:
        difference = to_control(entry, result["summary"])
        return "" if difference is None else numbers.points(difference)
    text = numbers.points(found["mean"])
    if found["interval"]:
        low, high = (numbers.points(end) for end in found["interval"])
        text += f" [{low}, {high}]"
    return f"{text} c" if found["claim"] else text


def to_control(entry: Mapping[str, Any], summary: Sequence[Mapping[str, Any]]) -> float | None:
    """Mean test accuracy of a student less that of ``direct``, as a fraction; None where there is nothing to compare, and
    where other students are compared seed by seed: a difference of means is of another kind."""
    if any(other.get("difference") for other in summary):
        return None
    control = next((other for other in summary if other["name"] == CONTROL), None)
    if control is None or entry["name"] == CONTROL or entry.get("role") in ("teacher", "assistant"):
        return None
    if control.get("mean") is None or entry.get("mean") is None:
        return None
    return float(entry["mean"] - control["mean"])


def label(entry: Mapping[str, Any]) -> str:
    """How a stage with its seed is called: ``dense, seed 1``; only the name where the seed is None."""
    return plain(entry["name"]) + ("" if entry.get("seed") is None else f", seed {entry['seed']}")


def problems(result: Mapping[str, Any]) -> list[str]:
    """A sentence for each stage that failed or was left out, and one for all that are not finished yet."""
    found, waiting = [], []
    for stage in result["stages"]:
        if stage["state"] in ("failed", "left out"):
            message = plain(stage.get("message") or "no reason was given")
            found.append(
                f"{label(stage)} {'failed' if stage['state'] == 'failed' else 'was left out'}: {message}"
            )
        elif stage["state"] != "done":
            waiting.append(label(stage))
    if waiting:
        shown = waiting if len(waiting) <= 6 else [*waiting[:5], f"{len(waiting) - 5} more"]
        found.append(f"not finished: {'; '.join(shown)}. Run the same command again, it goes on from there.")
    return found


def warnings(result: Mapping[str, Any], *, most: int = 8) -> list[str]:
    """Sentences on the health of stages, one for each sentence, with the stages it was said of."""
    said: dict[str, list[str]] = {}
    for stage in result["stages"]:
        for sentence in stage.get("warnings", ()):
            said.setdefault(plain(sentence), []).append(label(stage))
    lines = []
    for sentence, names in said.items():
        shown = names if len(names) <= 3 else [*names[:2], f"{len(names) - 2} more"]
        lines.append(f"{'; '.join(shown)}: {sentence}")
    return (
        lines if len(lines) <= most else [*lines[:most], f"... and {len(lines) - most} more, see report.html"]
    )


def compare_table(runs: Mapping[str, Mapping[str, Any]], *, width: int | None = None) -> Table:
    """Several runs, by what they are called: every stage of each over its seeds.

    Differences are to the ``direct`` of the same run.
    """
    rows = []
    summary: list[Mapping[str, Any]] = []
    for run, result in runs.items():
        for entry in result["summary"]:
            rows.append([f"{plain(run)}: {plain(entry['name'])}", *_figures(entry, result)])
        summary += result["summary"]
    return _fitted(
        [_Column(header="run: stage", text=True), *_FIGURES],
        rows,
        title="Test accuracy",
        below=_how_to_read(summary, runs=len(runs)),
        width=width,
    )


def groups_table(runs: Mapping[str, Mapping[str, Any]], *, width: int | None = None) -> Table | None:
    """Accuracy of every stage by how often a class is seen in training; None where classes are about equally frequent.

    Args:
        runs: contents of ``result.json`` by what each run is called.
        width: in characters; None: the terminal's.
    """
    found = groups.cells(runs)
    if found is None:
        return None
    return _fitted(
        [_Column(header=one.words, text=one.text, drop=one.drop) for one in found.headers],
        found.rows,
        title=groups.TITLE,
        below=groups.how_to_read(runs),
        width=width,
    )


def different_data(runs: Mapping[str, Mapping[str, Any]]) -> str | None:
    """One sentence that names how the data of some runs differ; None where all learned the same."""
    groups: dict[str, list[str]] = {}
    for run, result in runs.items():
        groups.setdefault(result["data"]["fingerprint"], []).append(run)
    if len(groups) < 2:
        return None
    of = {fingerprint: runs[names[0]]["data"] for fingerprint, names in groups.items()}
    differing = [
        (what, key)
        for what, key in (
            ("name", "name"),
            ("image size", "image"),
            ("classes", "class_names"),
            ("training images", "train"),
            ("validation images", "validation"),
            ("test images", "test"),
        )
        if len({repr(data.get(key)) for data in of.values()}) > 1
    ]

    def said(data: Mapping[str, Any], key: str) -> str:
        value = data.get(key)
        if key == "image" and value:
            return "x".join(str(side) for side in value)
        if key == "class_names" and value is not None:
            return f"{len(value)}"
        return "unknown" if value is None else plain(value)

    parts = []
    for what, key in differing:
        values = [said(data, key) for data in of.values()]
        if len(set(values)) == 1:  # as many classes, otherwise named
            parts.append("the names or order of the classes")
        else:
            parts.append(f"{what}: {' / '.join(values)}")
    if not parts:
        prints = " / ".join(fingerprint[:8] for fingerprint in groups)
        parts.append(f"pixels, labels or the split, fingerprints {prints}")
    names = [" and ".join(plain(run) for run in group) for group in groups.values()]
    return (
        f"The data differ between {' / '.join(names)} ({'; '.join(parts)}): their accuracies do not compare."
    )


def deploy_table(rows: Sequence[Mapping[str, Any]], *, machine: str = "", width: int | None = None) -> Table:
    """The forms of a student as a file, one a row: how good, how large, how fast.

    Args:
        rows: of ``deploy.json``; see ``understudy.report.deploy.RowOf``. A figure that is missing is a dash.
        machine: where they were measured, in words.
        width: in characters; None: the terminal's.
    """
    found = deploy.cells(rows)
    return _fitted(
        [_Column(header=one.words, text=one.text, drop=one.drop) for one in found.headers],
        found.rows,
        title="The student as a file",
        below=deploy.how_to_read(rows, machine=machine),
        width=width,
    )


State = Literal["kept", "resumes", "to do"]


@dataclass(frozen=True, kw_only=True)
class PlanRow:
    """A stage with one seed before it runs.

    Attributes:
        multiply_adds: of one image.
        epochs: of the training; 0 for given weights.
        state: ``kept`` in the store, ``resumes`` from a checkpoint, or ``to do``.
        seconds: expected, of what is left of it; None: not known.
    """

    name: str
    seed: int
    model: str
    teachers: tuple[str, ...]
    parameters: int
    multiply_adds: int
    epochs: int
    state: State
    seconds: float | None = None


def plan_table(rows: Sequence[PlanRow], *, width: int | None = None) -> Table:
    """What a run would do, stage by stage in the order of their making."""
    columns = [
        _Column(header="stage", text=True),
        _Column(header="seed"),
        _Column(header="model", text=True, drop=3),
        _Column(header="learns from", text=True, drop=6),
        _Column(header="parameters", drop=5),
        _Column(header="MMAC", drop=2),
        _Column(header="epochs", drop=4),
        _Column(header="state"),
        _Column(header="time", drop=1),
    ]
    cells = [
        [
            plain(row.name),
            str(row.seed),
            plain(row.model),
            plain(", ".join(row.teachers)),
            numbers.count(row.parameters),
            numbers.mmac(row.multiply_adds),
            str(row.epochs or numbers.NOTHING),
            row.state,
            numbers.NOTHING if row.state == "kept" else numbers.duration(row.seconds),
        ]
        for row in rows
    ]
    return _fitted(columns, cells, title="Plan", below=[_in_all(rows)], width=width)


def plan_sentences(forecast: Forecast, *, store: Path, parallel: int) -> list[str]:
    """What a run would take in all: time, disk, memory; nothing where all is kept already."""
    if all(estimate.state == "kept" for estimate in forecast.stages.values()):
        return []
    time = f"All of it takes about {numbers.duration(forecast.seconds)} here"
    if parallel > 1:
        time += f" with --jobs {parallel}"
    said = [f"{time}, judged by a few steps; a teacher speaks once, for the first stage that needs it."]
    disk = [f"stages {_mb(forecast.stage_bytes)}"]
    if forecast.signal_bytes:
        of = _counted(forecast.teachers, "teacher"), _counted(forecast.views, "view")
        disk.append(f"signals of {of[0]} on {of[1]} {_mb(forecast.signal_bytes)}")
    there = forecast.signal_bytes_there
    said.append(
        f"The store {store} grows by {_mb(forecast.stage_bytes + forecast.signal_bytes)}: {listing(disk)}"
        + (f"; {_mb(there)} of signals are there already." if there else ".")
    )
    if forecast.live:
        said.append(
            "Not all signals find room (signals.max_gb, or the disk): for the rest teachers answer live."
        )
    if forecast.memory is not None:
        said.append(
            f"Memory peaks at about {_mb(forecast.memory)}: Python with torch, images, networks in training, "
            "teachers that speak."
        )
    return said


def _mb(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size < 1e8 else f"{size / 1e6:.0f} MB"


def _counted(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _in_all(rows: Sequence[PlanRow]) -> str:
    states: dict[State, str] = {"kept": "kept already", "resumes": "resume", "to do": "to do"}
    counts = {state: sum(row.state == state for row in rows) for state in states}
    said = [f"{n} {states[state]}" for state, n in counts.items() if n]
    times = [row.seconds for row in rows if row.state != "kept"]
    known = [seconds for seconds in times if seconds is not None]
    text = (
        f"{len(rows)} {'stage' if len(rows) == 1 else 'stages'}: {listing(said)}" if said else "nothing to do"
    )
    if known:
        unknown = "" if len(known) == len(times) else f" (and {len(times) - len(known)} of unknown time)"
        text += f"; about {numbers.duration(sum(known))} one after another{unknown}"
    return text
