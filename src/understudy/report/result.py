"""A run's ``result.json``: what is in it, and the one way to read it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NotRequired

from typing_extensions import TypedDict  # pydantic needs this one before Python 3.12

from understudy.errors import BadInput

VERSION = 1
FILE = "result.json"


class Accuracy(TypedDict):
    accuracy: NotRequired[float]


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


class Summary(TypedDict):
    """A stage over its seeds; mean, std and interval are of the test accuracy, as fractions."""

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


class DataOf(TypedDict):
    """The data that were learned."""

    name: str
    fingerprint: str
    classes: NotRequired[int]
    class_names: NotRequired[list[str]]
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
    from pydantic import TypeAdapter, ValidationError

    try:
        TypeAdapter(RunResult).validate_python(value, strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(step) for step in first["loc"])
        raise BadInput(f"{path} is damaged: {where}: {first['msg']}. {again}") from error
    return dict(value)
