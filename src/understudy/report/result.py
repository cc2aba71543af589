"""A run's ``result.json``: what is in it, and the one way to read it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NotRequired

from typing_extensions import TypedDict  # pydantic needs this one before Python 3.12

from understudy.errors import BadInput
from understudy.report.numbers import plain

VERSION = 1
FILE = "result.json"


class Accuracy(TypedDict):
    """Of all images; with imbalanced training classes also by how often a class is seen, see ``understudy.tasks``."""

    accuracy: NotRequired[float]
    many: NotRequired[float]
    medium: NotRequired[float]
    few: NotRequired[float]
    balanced: NotRequired[float]


Edge = TypedDict("Edge", {"from": str, "to": str, "kind": str})


class Delivered(TypedDict):
    name: str
    seed: int
    key: str


class Node(TypedDict):
    """A stage of the ladder, whatever its seed."""

    name: str
    model: NotRequired[str]
    role: NotRequired[str]
    teachers: NotRequired[list[str]]
    parameters: NotRequired[int | None]
    multiply_adds: NotRequired[int | None]


class LadderOf(TypedDict):
    """The graph; ``delivered`` names the students of which one is delivered."""

    shape: NotRequired[str | None]
    delivered: list[str]
    controls: NotRequired[list[str]]
    seeds: NotRequired[list[int]]
    repeat: NotRequired[str]
    graph: list[Node]
    edges: list[Edge]


class OfTeacher(TypedDict):
    """A stage beside one of its teachers, on the test images; see ``understudy.report.analysis.analysis``."""

    agreement: NotRequired[float | None]
    lost: NotRequired[int | None]
    gained: NotRequired[int | None]
    p: NotRequired[float | None]
    error_overlap: NotRequired[float | None]


class Entropy(TypedDict):
    """How much a stage's answers say beside the class: the mean entropy of the soft targets that they make."""

    temperature: float
    nats: float


class Analysis(TypedDict):
    """What the kept outputs of a stage say; ``worst_class`` is a class number and its accuracy."""

    ece: NotRequired[float | None]
    entropy: NotRequired[Entropy | None]
    per_class: NotRequired[list[float | None]]
    worst_class: NotRequired[list[float] | None]
    teachers: NotRequired[dict[str, OfTeacher]]


class CurvePoint(TypedDict):
    """One epoch of a training: the whole loss, and the accuracy on validation images."""

    epoch: float
    loss: NotRequired[float | None]
    accuracy: NotRequired[float | None]


class CostOf(TypedDict):
    """Multiply-adds are of one image."""

    parameters: NotRequired[int]
    multiply_adds: NotRequired[int]


class WidthOf(TypedDict):
    """Output channels of a layer; 0 after: it is dropped."""

    layer: str
    before: int
    after: int


class CandidateOf(TypedDict):
    """What a search left, cut to the budget; ``validation`` is its accuracy before any further training."""

    search: str
    validation: NotRequired[float | None]
    threshold: NotRequired[float | None]
    reached: NotRequired[dict[str, float]]


class ChoiceOf(TypedDict):
    """Which channels a network keeps, chosen among searches; see ``understudy.structure.choosing``.

    ``search`` is None where nothing was searched and all layers were narrowed alike.

    ``budget`` has a float for a share of ``whole`` and an int for a number; ``reached`` how much of the budget is used.
    """

    search: NotRequired[str | None]
    budget: NotRequired[dict[str, int | float]]
    whole: NotRequired[CostOf]
    reached: NotRequired[dict[str, float]]
    threshold: NotRequired[float | None]
    widths: NotRequired[list[WidthOf]]
    candidates: NotRequired[list[CandidateOf]]


class StageOf(TypedDict):
    """A stage with one seed. Accuracies are fractions; seconds are of the training, also when ``from_store``."""

    name: str
    seed: int | None
    key: NotRequired[str]
    role: NotRequired[str]
    state: str
    message: NotRequired[str]
    model: NotRequired[str]
    teachers: NotRequired[list[str]]
    parameters: NotRequired[int | None]
    multiply_adds: NotRequired[int | None]
    epochs: NotRequired[int | None]
    seconds: NotRequired[float | None]
    from_store: NotRequired[bool]
    validation: NotRequired[Accuracy | None]
    test: NotRequired[Accuracy | None]
    analysis: NotRequired[Analysis | None]
    warnings: NotRequired[list[str]]
    curve: NotRequired[list[CurvePoint]]
    choice: NotRequired[ChoiceOf | None]


class DifferenceOf(TypedDict):
    """Of test accuracies, paired by seed, to the stage that ``compare`` names; ``p_corrected`` is p for the claim."""

    n: int
    mean: float
    std: NotRequired[float | None]
    interval: NotRequired[list[float] | None]
    p: NotRequired[float | None]
    p_corrected: NotRequired[float | None]
    claim: NotRequired[bool]


class SpreadOf(TypedDict):
    """Of a figure over seeds."""

    mean: float
    std: NotRequired[float | None]


class Summary(TypedDict):
    """A stage over its seeds; mean, std and interval are of the test accuracy, as fractions.

    ``groups``: the same of ``many``, ``medium``, ``few`` and ``balanced``, where the training classes are imbalanced.
    """

    name: str
    role: NotRequired[str]
    model: NotRequired[str]
    parameters: NotRequired[int | None]
    multiply_adds: NotRequired[int | None]
    epochs: NotRequired[int | None]
    n: int
    mean: float | None
    std: NotRequired[float | None]
    interval: NotRequired[list[float] | None]
    difference: NotRequired[DifferenceOf | None]
    groups: NotRequired[dict[str, SpreadOf] | None]


class CompareOf(TypedDict):
    """With what students are compared, which comparison was named beforehand, and what varied over seeds, in words."""

    against: NotRequired[str | None]
    claim: NotRequired[list[str] | None]
    level: NotRequired[float]
    varied: NotRequired[str]


class LostExample(TypedDict):
    """A test image that the teacher gets right and the delivered student wrong; classes as numbers, PNG in base64."""

    index: int
    label: int
    answer: int
    teacher: int
    png: str


class StudentsCompared(TypedDict):
    """Two students of one seed on the test images: how many only the one gets right, and McNemar's p."""

    first: str
    second: str
    seed: NotRequired[int | None]
    only_first: int
    only_second: int
    p: float


class DataOf(TypedDict):
    """The data that were learned; ``train_counts`` are training images of each class, where they differ much."""

    name: str
    fingerprint: str
    classes: NotRequired[int]
    class_names: NotRequired[list[str]]
    train_counts: NotRequired[list[int] | None]
    train: NotRequired[int]
    validation: NotRequired[int]
    test: NotRequired[int]
    image: NotRequired[list[int]]


class RunResult(TypedDict):
    """All of it."""

    version: int
    complete: bool
    ladder: LadderOf
    data: DataOf
    environment: NotRequired[dict[str, Any]]
    command: NotRequired[str]
    delivered: NotRequired[Delivered | None]
    stages: list[StageOf]
    summary: list[Summary]
    compare: NotRequired[CompareOf | None]
    lost_examples: NotRequired[list[LostExample] | None]
    students_compared: NotRequired[StudentsCompared | None]


def read_result(folder: Path) -> dict[str, Any]:
    """The checked content of ``folder/result.json``, with whatever else a later writer of this version put there.

    Raises:
        BadInput: the file is not there, is damaged, or is of another version.
    """
    path = Path(folder) / FILE
    again = "Run the same command with the same --out again to write it anew."
    try:
        value = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError) as error:
        raise BadInput(
            f"{path} is not there: {folder} is no run's folder, or its run has not begun. "
            f"Give the folder that `understudy run` wrote with --out."
        ) from error
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror or error}. Mend its permissions.") from error
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{path} is damaged: it is not JSON ({error}). {again}") from error
    version = value.get("version") if isinstance(value, dict) else None
    if type(version) is int and version > VERSION:
        raise BadInput(
            f"{path} has version {version}, this understudy reads version {VERSION}. "
            f"Use the version of understudy that wrote it, or a newer one."
        )
    if type(version) is not int or version != VERSION:
        raise BadInput(f"{path} is damaged: its version is {version!r}, not {VERSION}. {again}")
    if wrong := damage(value, RunResult):
        raise BadInput(f"{path} is damaged: {wrong}. {again}")
    return dict(value)


def read_beside(path: Path, *, version: int, again: str) -> dict[str, Any] | str | None:
    """What a file beside ``result.json`` holds; a sentence where it cannot be read; None: it is not there.

    Args:
        path: of a JSON object with a ``version``.
        version: that is understood.
        again: what to do about a damaged file.
    """
    try:
        value = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        return f"{path.name} cannot be read: {error.strerror or error}. Mend its permissions."
    except (ValueError, RecursionError):
        return f"{path.name} is damaged: it is not JSON. {again}"
    found = value.get("version") if isinstance(value, dict) else None
    if type(found) is not int or found != version:
        newer = "Use the understudy that wrote it." if type(found) is int and found > version else again
        return f"{path.name} has version {plain(found)[:40]}, this understudy reads {version}. {newer}"
    return dict(value)


def damage(value: object, kind: type) -> str:
    """The first thing that makes ``value`` no ``kind``, such as ``stages.3.seed: Input should be …``; empty: there is none.

    Args:
        value: what a file holds.
        kind: a ``TypedDict``; keys that it does not have do no harm.
    """
    from pydantic import TypeAdapter, ValidationError

    try:
        TypeAdapter(kind).validate_python(value, strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        return f"{plain('.'.join(str(step) for step in first['loc']))}: {first['msg']}"
    return ""
