"""The tables and lists of a run's page, taken from ``result.json``: rows of plain values, which templates write down.

Every function takes the content of ``result.json`` and gives an empty list, or None, where it holds nothing of the kind:
an older file, or a run that has not come so far.
"""

from __future__ import annotations

import base64
import binascii
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from understudy.report.figures import delivered_name
from understudy.report.numbers import listing, plain

CLASSES_SHOWN = 20  # the others are folded away
PNG = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True, kw_only=True)
class WithTeacher:
    """A stage beside one of its teachers, over its seeds; shares are fractions, ``lost`` and ``gained`` test images."""

    name: str
    teacher: str
    n: int
    agreement: float
    std: float | None
    lost: float | None
    gained: float | None
    error_overlap: float | None


@dataclass(frozen=True, kw_only=True)
class ClassRow:
    """Test accuracy of one class, student and teacher, as fractions; ``images``: for training, where it matters."""

    name: str
    student: float
    teacher: float | None
    images: int | None = None

    @property
    def difference(self) -> float | None:
        return None if self.teacher is None else self.student - self.teacher


@dataclass(frozen=True, kw_only=True)
class Classes:
    """All classes of which there are test images, the ones that lost most first."""

    student: str
    teacher: str
    rows: list[ClassRow]


@dataclass(frozen=True, kw_only=True)
class Example:
    """A test image that the teacher gets right and the student wrong; ``source`` is a data URI."""

    index: int
    label: str
    answer: str
    teacher: str
    source: str


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """A stage over its seeds; ``ece`` and ``accuracy`` (of the worst class) are fractions.

    ``entropy`` is in nats, of its answers as soft targets at ``temperature``; both None where nobody is taught by such.
    """

    name: str
    n: int
    ece: float
    std: float | None
    entropy: float | None
    temperature: float | None
    worst: str
    accuracy: float | None


@dataclass(frozen=True, kw_only=True)
class Warned:
    """A warning, and which stages and seeds it is about."""

    about: str
    text: str


def with_teachers(result: Mapping[str, Any]) -> list[WithTeacher]:
    """Agreement of every stage with each of its teachers: students first, the delivered one before all."""
    rows = []
    for name, stages in _analysed(result).items():
        beside: dict[str, list[Mapping[str, Any]]] = {}
        for stage in stages:
            for teacher, figures in (stage["analysis"].get("teachers") or {}).items():
                if figures.get("agreement") is not None:
                    beside.setdefault(teacher, []).append(figures)
        for teacher, found in beside.items():
            mean, std = _mean_std([figures["agreement"] for figures in found])
            rows.append(
                WithTeacher(
                    name=name,
                    teacher=teacher,
                    n=len(found),
                    agreement=mean,
                    std=std,
                    lost=_mean([figures.get("lost") for figures in found]),
                    gained=_mean([figures.get("gained") for figures in found]),
                    error_overlap=_mean([figures.get("error_overlap") for figures in found]),
                )
            )
    roles = {stage["name"]: stage.get("role") for stage in result["stages"]}
    rows.sort(
        key=lambda row: (row.name != delivered_name(result), roles[row.name] in ("teacher", "assistant"))
    )
    return rows


def delivered_stage(result: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The stage and seed that is delivered."""
    delivered = result.get("delivered")
    if delivered is None:
        return None
    return next(
        (s for s in result["stages"] if s["name"] == delivered["name"] and s["seed"] == delivered["seed"]),
        None,
    )


def its_teacher(result: Mapping[str, Any], stage: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The stage that ``stage`` is held against: of its teachers the first with that role, else the ladder's; done."""
    done = [other for other in result["stages"] if other["state"] == "done"]
    roles = {node["name"]: node.get("role") for node in result["ladder"]["graph"]}
    own = [name for name in stage.get("teachers", []) if roles.get(name) == "teacher"]
    names = own or [name for name, role in roles.items() if role == "teacher"]
    of_names = [other for name in names for other in done if other["name"] == name]
    same_seed = [other for other in of_names if other["seed"] == stage["seed"]]
    return next(iter([*same_seed, *of_names]), None)


def classes(result: Mapping[str, Any]) -> Classes | None:
    """What the delivered student gets right of each class, beside its teacher."""
    stage = delivered_stage(result)
    student = _per_class(stage)
    if stage is None or not student:
        return None
    teacher = its_teacher(result, stage)
    theirs = _per_class(teacher)
    rows = [
        ClassRow(
            name=class_name(result, number),
            student=value,
            teacher=theirs[number] if number < len(theirs) else None,
            images=_at(result["data"].get("train_counts"), number),
        )
        for number, value in enumerate(student)
        if value is not None
    ]
    # equal ones in the order of the data, so that the page does not change from one writing to the next
    rows.sort(key=lambda row: (row.difference if row.difference is not None else 0.0, row.student))
    held = teacher is not None and any(row.teacher is not None for row in rows)
    return Classes(
        student=f"{plain(stage['name'])}, seed {stage['seed']}",
        teacher=plain(teacher["name"]) if teacher is not None and held else "",
        rows=rows,
    )


def examples(result: Mapping[str, Any]) -> list[Example]:
    """The kept test images that the student lost; what is no PNG is left out."""
    made = []
    for example in result.get("lost_examples") or []:
        try:
            content = base64.b64decode(example["png"], validate=True)
        except (binascii.Error, ValueError):
            continue
        if not content.startswith(PNG):
            continue
        made.append(
            Example(
                index=example["index"],
                label=class_name(result, example["label"]),
                answer=class_name(result, example["answer"]),
                teacher=class_name(result, example["teacher"]),
                source=f"data:image/png;base64,{base64.b64encode(content).decode()}",
            )
        )
    return made


def calibration(result: Mapping[str, Any]) -> list[Calibration]:
    """Expected calibration error and worst class of every stage, in the order of the summary."""
    analysed = _analysed(result)
    order = [entry["name"] for entry in result["summary"] if entry["name"] in analysed]
    rows = []
    for name in order:
        found = [stage["analysis"] for stage in analysed[name]]
        errors = [one["ece"] for one in found if one.get("ece") is not None]
        if not errors:
            continue
        mean, std = _mean_std(errors)
        entropies = [one["entropy"] for one in found if one.get("entropy")]
        by_class = {
            number: statistics.fmean(values)
            for number in range(max(len(one.get("per_class") or []) for one in found))
            if (
                values := [value for one in found if (value := _at(one.get("per_class"), number)) is not None]
            )
        }
        worst = min(by_class, key=by_class.__getitem__, default=None)
        rows.append(
            Calibration(
                name=name,
                n=len(errors),
                ece=mean,
                std=std,
                entropy=_mean([one["nats"] for one in entropies]),
                temperature=entropies[0]["temperature"] if entropies else None,
                worst="" if worst is None else class_name(result, worst),
                accuracy=None if worst is None else by_class[worst],
            )
        )
    return rows


def entropy_scale(rows: Sequence[Calibration], *, classes: int) -> tuple[float, float] | None:
    """Temperature of the entropies in ``rows``, and the largest that there can be; None where there are none."""
    found = next((row.temperature for row in rows if row.temperature is not None), None)
    return None if found is None else (found, math.log(classes))


def warnings(result: Mapping[str, Any]) -> list[Warned]:
    """What the health check said, each sentence once with the stages and seeds it was said of."""
    seeds: dict[tuple[str, str], list[str]] = {}
    for stage in result["stages"]:
        for text in stage.get("warnings") or []:
            seeds.setdefault((stage["name"], plain(text)), []).append(str(stage["seed"]))
    several = {name for name in (s["name"] for s in result["stages"]) if len(_seeds(result, name)) > 1}
    return [
        Warned(
            about=plain(name)
            + (f", {'seed' if len(numbers) == 1 else 'seeds'} {listing(numbers)}" if name in several else ""),
            text=text,
        )
        for (name, text), numbers in seeds.items()
    ]


def checked(result: Mapping[str, Any]) -> bool:
    """Whether the health of any stage was looked at."""
    return any("warnings" in stage for stage in result["stages"] if stage["state"] == "done")


def class_name(result: Mapping[str, Any], number: int) -> str:
    """What a class is called; ``class 7`` where the data give it no name."""
    return plain(_at(result["data"].get("class_names"), number) or "") or f"class {number}"


def _seeds(result: Mapping[str, Any], name: str) -> set[int | None]:
    return {stage["seed"] for stage in result["stages"] if stage["name"] == name}


def _analysed(result: Mapping[str, Any]) -> dict[str, list[Mapping[str, Any]]]:
    by_name: dict[str, list[Mapping[str, Any]]] = {}
    for stage in result["stages"]:
        if stage["state"] == "done" and stage.get("analysis"):
            by_name.setdefault(stage["name"], []).append(stage)
    return by_name


def _per_class(stage: Mapping[str, Any] | None) -> list[float | None]:
    return list(((stage or {}).get("analysis") or {}).get("per_class") or [])


def _at(values: Sequence[Any] | None, number: int) -> Any:
    return values[number] if values and 0 <= number < len(values) else None


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known else None


def _mean_std(values: Sequence[float]) -> tuple[float, float | None]:
    """The sample deviation is None for one value, never 0."""
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None
