"""A model card beside the delivered student: what it is, where it comes from, how good it is, and where it is not."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from understudy.errors import BadInput
from understudy.report import groups, numbers, sections
from understudy.report.deploy import Cells, Deployed, cells, how_to_read, read_deploy
from understudy.report.kinds import kinds
from understudy.report.loading import loading
from understudy.report.markdown import escaped, fenced
from understudy.report.numbers import listing, plain
from understudy.report.result import read_result
from understudy.report.statistics import LEVEL
from understudy.report.structures import in_words, structure_of
from understudy.store.files import write_text

FILE = "student.md"
FEW_SEEDS = 5  # with fewer, a mean says little about the next seed
WORST_SHOWN = 3  # classes
_TRAINING = ("batch_size", "optimizer", "lr", "schedule", "weight_decay", "label_smoothing", "precision")


def write_card(folder: Path) -> Path:
    """Writes ``folder/student.md`` from ``result.json``, ``student.json``, ``recipe.yaml`` and ``deploy.json`` beside it.

    Returns:
        the card.

    Raises:
        BadInput: ``result.json`` or ``student.json`` is not there or is damaged, or nothing is delivered yet.
        CannotWrite: the card cannot be written; an older one is left as it was.
    """
    folder = Path(folder)
    result = read_result(folder)
    student = _read_student(folder)
    if sections.delivered_stage(result) is None:
        raise BadInput(
            f"{folder} has no delivered student to write a card for: its run is not finished. "
            f"Run the same command again, it goes on from there."
        )
    card = folder / FILE
    deployed = read_deploy(folder, result["delivered"])
    text = render(result, student=student, recipe=_read_recipe(folder), deployed=deployed)
    write_text(card, text.encode("utf-8", "replace").decode("utf-8"))
    return card


def _read_student(folder: Path) -> dict[str, Any]:
    path = folder / "student.json"
    again = "Run the same command with the same --out again to write it anew."
    try:
        value = json.loads(path.read_bytes())
    except OSError as error:
        raise BadInput(
            f"{path} cannot be read ({error.strerror}): there is no student to write a card for. {again}"
        ) from error
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{path} is damaged: it is not JSON ({error}). {again}") from error
    needed = {"name": str, "architecture": dict, "preprocessing": dict}
    for key, kind in needed.items():
        if not isinstance(value, dict) or not isinstance(value.get(key), kind):
            raise BadInput(f"{path} is damaged: it has no {key}. {again}")
    return dict(value)


def _read_recipe(folder: Path) -> dict[str, Any]:
    """The recipe, or nothing: a card is worth having without its settings too."""
    from understudy.recipe.reading import read_file

    try:
        return dict(read_file(folder / "recipe.yaml"))
    except (BadInput, OSError):
        return {}


def render(
    result: Mapping[str, Any],
    *,
    student: Mapping[str, Any],
    recipe: Mapping[str, Any],
    deployed: Deployed | None = None,
) -> str:
    """The card as Markdown.

    Args:
        result: the content of ``result.json``, with a delivered student.
        student: the content of ``student.json``.
        recipe: the content of ``recipe.yaml``; may be empty.
        deployed: what is known of it as a file.
    """
    stage = sections.delivered_stage(result)
    assert stage is not None
    parts = [
        f"# {escaped(student['name'])}, taught on {escaped(result['data']['name'])}",
        _in_short(result, stage),
        "## What it is\n\n" + _bullets(_what(result, stage, student)),
        "## What it was taught on\n\n" + _data(result),
        "## By whom\n\n" + _bullets(_by_whom(result, stage, student)),
        "## How\n\n"
        + _bullets(_how(result, stage, student, recipe))
        + "\n\n"
        + fenced(_command(result), "sh"),
        "## Its figures\n\n" + _figures(result, stage),
        *_by_group(result),
        *_on_a_device(deployed or Deployed()),
        "## Its limits\n\n" + _bullets(limits(result, stage)),
        "## How to load it\n\n" + loading(student),
        "## Licence\n\nThe licence of the data and of given weights is not known to the program that wrote this card. "
        "Find out what they allow before you pass the student on.",
    ]
    return "\n\n".join(parts) + "\n"


def _bullets(sentences: Sequence[str]) -> str:
    return "\n".join(f"- {sentence}" for sentence in sentences)


def _in_short(result: Mapping[str, Any], stage: Mapping[str, Any]) -> str:
    own = (stage.get("test") or {}).get("accuracy")
    text = f"A student network made by understudy: stage {escaped(stage['name'])}, seed {stage['seed']}"
    if own is not None:
        text += f", {numbers.percent(own)} % of {_tests(result)} right"
    return text + "."


def _tests(result: Mapping[str, Any]) -> str:
    return f"{result['data']['test']} test images" if result["data"].get("test") else "the test images"


def _what(result: Mapping[str, Any], stage: Mapping[str, Any], student: Mapping[str, Any]) -> list[str]:
    before = student["preprocessing"]
    image = before.get("image") or []
    found = structure_of(result, stage)
    said = [
        f"Architecture: {escaped(student['name'])}, layer by layer in `student.json`",
        *([_structure(found)] if found else []),
        f"Parameters: {numbers.NOTHING if stage.get('parameters') is None else format(stage['parameters'], ',')}",
        f"Multiply-adds for one image: {numbers.mmac(stage.get('multiply_adds'))} million (MMAC)",
    ]
    if len(image) == 2:
        text = f"Input: images of {image[0]} × {image[1]} pixels (height × width)"
        text += f" with {before['channels']} {'channel' if before['channels'] == 1 else 'channels'}" * (
            "channels" in before
        )
        said.append(f"{text}; {escaped(before['order'])}" if before.get("order") else text)
    names = student.get("class_names") or []
    if names:
        shown = [escaped(name) for name in names[:20]]
        more = f", … ({len(names)} in all, see `student.json`)" if len(names) > len(shown) else ""
        said.append(f"Output: one logit for each of {len(names)} classes: {', '.join(shown)}{more}")
    return said


def _structure(found: Mapping[str, Any]) -> str:
    said = " ".join(in_words(found)).rstrip(".")
    by = found["choice"].get("search")
    return f"Structure{f', found by {escaped(by)}' if by else ''}: {escaped(said[:1].lower() + said[1:])}"


def _data(result: Mapping[str, Any]) -> str:
    data = result["data"]
    counts = [
        f"{data[split]} for {what}"
        for split, what in (("train", "training"), ("validation", "validation"), ("test", "test"))
        if data.get(split) is not None
    ]
    said = [f"Data: {escaped(data['name'])}"]
    if counts:
        said.append(f"Images: {listing(counts)}")
    if of_classes := data.get("train_counts"):
        said.append(f"Training images of a class: {min(of_classes)} to {max(of_classes)}")
    return _bullets([*said, f"Fingerprint of pixels, labels and splits: {escaped(data['fingerprint'])}"])


def _taught(student: Mapping[str, Any]) -> Mapping[str, Any]:
    """What ``student.json`` says of how it was taught; that of an older understudy says nothing."""
    found = student.get("taught")
    return found if isinstance(found, Mapping) else {}


def _by_whom(result: Mapping[str, Any], stage: Mapping[str, Any], student: Mapping[str, Any]) -> list[str]:
    taught = _taught(student)
    peers = taught.get("peers")
    of_name = {entry["name"]: entry for entry in result["summary"]}
    nodes = {node["name"]: node for node in result["ladder"]["graph"]}
    shape = result["ladder"].get("shape")
    teachers = list(taught.get("teachers") or stage.get("teachers") or [])
    if not teachers and not peers:
        return ["By nobody: it learned from the labels alone"]
    said = [f"Ladder: {escaped(shape)}"] if shape else []
    if peers:
        said.append(
            f"By its peers: it is the first of the networks of {escaped(peers)}, which learned together"
        )
    asked, waiting = [], teachers
    while waiting:  # the teachers, then theirs, each once
        name, *waiting = waiting
        if name not in asked and name in nodes:
            asked.append(name)
            waiting += nodes[name].get("teachers") or []
    for name in sorted(asked, key=list(nodes).index):
        node, entry = nodes[name], of_name.get(name, {})
        text = f"{escaped(name)} ({escaped(node.get('model', ''))}"
        if node.get("parameters") is not None:
            text += f", {numbers.count(node['parameters'])} parameters"
        if entry.get("mean") is not None:
            text += f", {numbers.accuracy(entry['mean'], entry.get('std'))} % of the test images right, n = {entry['n']}"
        taught_by = [escaped(teacher) for teacher in node.get("teachers") or []]
        text += f"), taught by {listing(taught_by)}" if taught_by else ")"
        said.append(text + ("" if name in teachers else "; it did not teach the student itself"))
    return said


def _how(
    result: Mapping[str, Any],
    stage: Mapping[str, Any],
    student: Mapping[str, Any],
    recipe: Mapping[str, Any],
) -> list[str]:
    said = []
    taught = _taught(student)
    method, training = taught.get("method"), taught.get("training")
    if isinstance(method, Mapping) and method.get("name"):
        settings = _flat({key: value for key, value in method.items() if key not in ("name", "version")})
        said.append(f"Method: {escaped(str(method['name']).replace('_', ' '))}; {settings}".rstrip("; "))
    known = training if isinstance(training, Mapping) else {}
    if epochs := known.get("epochs", stage.get("epochs")):
        settings = _settings(known, _TRAINING)
        said.append(f"Training: {epochs} epochs" + (f"; {settings}" if settings else ""))
    seeds = result["ladder"].get("seeds") or []
    if seeds:
        said.append(
            f"Seeds: {', '.join(map(str, seeds))}; delivered is seed {stage['seed']}, "
            + _chosen(result, seeds)
        )
    if varied := (result.get("compare") or {}).get("varied"):
        said.append(escaped(varied))
    where = "All settings are in `recipe.yaml`; the command was:" if recipe else "It was run with:"
    return [*said, f"Weights: of the last step. {where}"]


def _chosen(result: Mapping[str, Any], seeds: Sequence[int]) -> str:
    if len(seeds) == 1 and len(result["ladder"]["delivered"]) == 1:
        return "the only one"
    if not result["data"].get("validation"):
        return "chosen without validation images"
    return "the best on validation images"


def _flat(settings: Mapping[str, Any]) -> str:
    """Settings with those inside of them, such as ``temperature 4.0, soft targets (soft_weight 0.5)``."""
    said = []
    for key, value in settings.items():
        if isinstance(value, Mapping):
            inner = {name: one for name, one in value.items() if name not in ("name", "version")}
            said.append(f"{escaped(str(value.get('name', key)).replace('_', ' '))} ({_flat(inner)})")
        elif value not in (None, "", 0.0):
            said.append(f"{escaped(key)} {escaped(value)}")
    return ", ".join(said)


def _settings(part: Mapping[str, Any], keys: Sequence[str]) -> str:
    return ", ".join(
        f"{escaped(key)} {escaped(part[key])}" for key in keys if part.get(key) not in (None, "", 0.0)
    )


def _command(result: Mapping[str, Any]) -> str:
    return plain(result.get("command") or "understudy run recipe.yaml --out NEW_FOLDER")


def _figures(result: Mapping[str, Any], stage: Mapping[str, Any]) -> str:
    against = (result.get("compare") or {}).get("against")
    compared = against is not None and any(entry.get("difference") for entry in result["summary"])
    header = [
        "stage",
        "test accuracy, %",
        "n",
        *([f"to {escaped(against)}, points"] if compared else []),
        "MMAC",
    ]
    lines = ["| " + " | ".join(header) + " |", "|---|" + "---:|" * (len(header) - 1)]
    kind = kinds(result)
    for entry in result["summary"]:
        if kind[entry["name"]] == "structure":  # nothing was trained in it
            continue
        name = escaped(entry["name"])
        cells = [
            f"**{name}**" if entry["name"] == stage["name"] else name,
            numbers.accuracy(entry["mean"], entry.get("std")) + (" (n = 1)" if entry["n"] == 1 else ""),
            str(entry["n"]),
            *([_difference(entry.get("difference"))] if compared else []),
            numbers.mmac(entry.get("multiply_adds")),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    said = ["Mean ± sample deviation over n seeds, of test images."]
    if compared:
        claimed = [
            entry["name"] for entry in result["summary"] if (entry.get("difference") or {}).get("claim")
        ]
        text = "Differences are paired by seed, with their interval"
        if claimed:
            text += f"; {listing([escaped(name) for name in claimed])} is the claim, as the recipe names it, and stands by itself"
        others = sum(bool(entry.get("difference")) for entry in result["summary"]) - len(claimed)
        if others > 1:
            which = f"the other {others}" if claimed else f"all {others}"
            text += f"; those of {which} arms hold together (Bonferroni)"
        said.append(text + ".")
    own = []
    for what in ("validation", "test"):
        if (found := (stage.get(what) or {}).get("accuracy")) is not None:
            own.append(f"{numbers.percent(found)} % of the {what} images")
    if own:
        said.append(f"The delivered seed gets {listing(own)} right.")
    analysis = stage.get("analysis") or {}
    if analysis.get("ece") is not None:
        said.append(f"Its expected calibration error (ECE) is {numbers.percent(analysis['ece'])} points.")
    if worst := analysis.get("worst_class"):
        name = escaped(sections.class_name(result, int(worst[0])))
        said.append(
            f"Its worst class is {name}, {numbers.percent(worst[1])} % of whose test images it gets right."
        )
    return "\n".join(lines) + "\n\n" + " ".join(said)


def _on_a_device(deployed: Deployed) -> list[str]:
    """The table of its forms, as a section; none where there is nothing, or nothing that can be used."""
    if not deployed.rows:
        return []
    said = [escaped(sentence) for sentence in how_to_read(deployed.rows, machine=deployed.machine)]
    return ["## On a device\n\n" + _table(cells(deployed.rows)) + ("\n\n" + " ".join(said) if said else "")]


def _by_group(result: Mapping[str, Any]) -> list[str]:
    """Accuracy by how often a class is seen, as a section; none where classes are about equally frequent."""
    runs = {"": result}
    found = groups.cells(runs)
    if found is None:
        return []
    said = " ".join(escaped(sentence) for sentence in groups.how_to_read(runs))
    return [f"## {groups.TITLE}\n\n{_table(found)}\n\n{said}"]


def _table(table: Cells) -> str:
    lines = [
        "| " + " | ".join(escaped(header.words) for header in table.headers) + " |",
        "|" + "".join("---|" if header.text else "---:|" for header in table.headers),
        *("| " + " | ".join(escaped(cell) for cell in row) + " |" for row in table.rows),
    ]
    return "\n".join(lines)


def _difference(found: Mapping[str, Any] | None) -> str:
    if not found:
        return ""
    interval = found.get("interval")
    text = f"{numbers.points(found['mean'])} "
    text += (
        f"({numbers.points(interval[0])} to {numbers.points(interval[1])})"
        if interval
        else f"(n = {found['n']})"
    )
    return text + (", the claim" if found.get("claim") else "")


def limits(result: Mapping[str, Any], stage: Mapping[str, Any]) -> list[str]:
    """What the figures do not show, or show to be weak, in sentences of Markdown.

    Args:
        result: the content of ``result.json``.
        stage: the delivered one.
    """
    entry = next((entry for entry in result["summary"] if entry["name"] == stage["name"]), {"n": 0})
    said = [
        _luck(entry),
        _against(result, entry),
        _gap(result, stage),
        _worst(result, stage),
        _few_images(result, stage),
    ]
    ece = (stage.get("analysis") or {}).get("ece")
    if ece is not None and ece > 0.02:
        said.append(
            f"Its confidence and its accuracy lie {numbers.percent(ece)} points apart on average: do not take a softmax "
            f"output for a probability without calibrating it on images of your own."
        )
    said += [f"The health check warned: {escaped(warning)}" for warning in stage.get("warnings") or []]
    if not result["complete"]:
        said.append(
            "The run that it comes from is not finished: comparisons are missing, and another seed may be better."
        )
    said.append(
        "It was tested on this test split alone. How it does on images of another kind, source or time is not known, "
        "and it answers with one of its classes whatever it is shown."
    )
    return [sentence for sentence in said if sentence]


def _luck(entry: Mapping[str, Any]) -> str:
    if entry["n"] == 1:
        return "It was made with one seed (n = 1): how much of its accuracy is luck is not known."
    if entry["n"] and entry["n"] < FEW_SEEDS and entry.get("interval"):
        low, high = (numbers.percent(end) for end in entry["interval"])
        return f"With {entry['n']} seeds the mean accuracy is known only to lie somewhere from {low} to {high} % (95 % interval)."
    return ""


def _against(result: Mapping[str, Any], entry: Mapping[str, Any]) -> str:
    found = entry.get("difference")
    against = escaped((result.get("compare") or {}).get("against"))
    if not found or not found.get("interval"):
        return ""
    p = found.get("p_corrected") if found.get("p_corrected") is not None else found.get("p")
    if p is not None and p >= LEVEL:
        return (
            f"That it is better or worse than {against} is not shown by these seeds (p = {numbers.p_value(p)}"
            f"{'' if found.get('claim') else ', corrected for the number of comparisons'})."
        )
    return f"It is worse than {against}, which is simpler to make." if found["mean"] < 0 else ""


def _gap(result: Mapping[str, Any], stage: Mapping[str, Any]) -> str:
    teacher = sections.its_teacher(result, stage) if stage.get("teachers") else None
    own, theirs = ((one or {}).get("test") or {} for one in (stage, teacher))
    if teacher is None or own.get("accuracy") is None or theirs.get("accuracy") is None:
        return ""
    gap = theirs["accuracy"] - own["accuracy"]
    if gap <= 0:
        return ""
    called = "Its teacher" if teacher["name"] == "teacher" else f"Its teacher {escaped(teacher['name'])}"
    text = f"{called} gets {numbers.percent(gap)} points more of the test images right"
    beside = ((stage.get("analysis") or {}).get("teachers") or {}).get(teacher["name"]) or {}
    if beside.get("lost") is not None and beside.get("gained") is not None:
        text += f": {beside['lost']} images are lost and {beside['gained']} gained"
    return text + "."


def _worst(result: Mapping[str, Any], stage: Mapping[str, Any]) -> str:
    per_class = [
        (value, number)
        for number, value in enumerate((stage.get("analysis") or {}).get("per_class") or [])
        if value is not None
    ]
    own = (stage.get("test") or {}).get("accuracy")
    worst = [
        (value, number) for value, number in sorted(per_class)[:WORST_SHOWN] if own is None or value < own
    ]
    if len(per_class) < 2 or not worst:
        return ""
    said = [
        f"{escaped(sections.class_name(result, number))} ({numbers.percent(value)} %)"
        for value, number in worst
    ]
    return f"It is weakest on {listing(said)}."


def _few_images(result: Mapping[str, Any], stage: Mapping[str, Any]) -> str:
    """± 1.96 · sqrt(p (1 - p) / n): the normal approximation of the binomial, left out where it does not hold."""
    tests, own = result["data"].get("test"), (stage.get("test") or {}).get("accuracy")
    if not tests or own is None or tests * min(own, 1 - own) < 5:
        return ""
    half = 1.96 * math.sqrt(own * (1 - own) / tests)
    return f"{tests} test images pin its accuracy down to about ± {numbers.percent(half)} points (95 %), whatever the seeds say."
