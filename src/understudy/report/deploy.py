"""What is known of the student as a file: ``deploy.json`` of a run's folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NotRequired

from typing_extensions import TypedDict  # pydantic needs this one before Python 3.12

from understudy.report import numbers
from understudy.report.axes import usable
from understudy.report.numbers import plain
from understudy.report.result import Accuracy, damage, read_beside

FILE = "deploy.json"
VERSION = 1
SPEED = (
    "Teaching changes how many answers are right, not how long they take: time, size and memory follow from the "
    "structure of the network and from its number format."
)


class LatencyOf(TypedDict):
    """Of one image, in milliseconds; see ``understudy.deploy.latency``."""

    median_ms: NotRequired[float | None]
    p95_ms: NotRequired[float | None]
    threads: NotRequired[int | None]


class RowOf(TypedDict):
    """A form of the student; ``differing`` counts its answers that are not the float student's."""

    form: NotRequired[str]
    runtime: NotRequired[str | None]
    file: NotRequired[str | None]
    bytes: NotRequired[int | None]
    test: NotRequired[Accuracy | None]
    validation: NotRequired[Accuracy | None]
    differing: NotRequired[int | None]
    latency: NotRequired[LatencyOf | None]
    peak_bytes: NotRequired[int | None]
    note: NotRequired[str | None]


class StudentOf(TypedDict):
    """Of which stage and seed the files are."""

    name: NotRequired[str]
    seed: NotRequired[int | None]
    key: NotRequired[str]


class DeployOf(TypedDict):
    """All of it; ``machine`` says in words where it was measured."""

    version: int
    student: NotRequired[StudentOf | None]
    machine: NotRequired[str | None]
    rows: list[RowOf]


@dataclass(frozen=True, kw_only=True)
class Deployed:
    """What ``deploy.json`` says of a run's delivered student.

    Attributes:
        rows: one for each form (see ``RowOf``); none where there is no file, or none that can be used.
        machine: where it was measured, in words; empty: not said.
        problem: why the file cannot be used, in a sentence; empty: there is none, or it can.
    """

    rows: tuple[Mapping[str, Any], ...] = ()
    machine: str = ""
    problem: str = ""


def read_deploy(folder: Path, delivered: Mapping[str, Any] | None = None) -> Deployed:
    """Reads ``folder/deploy.json``; a file that is damaged, or of another student, is a sentence and no error.

    Args:
        folder: of a run.
        delivered: its ``delivered`` of ``result.json``; with it, rows of another student are left out.
    """
    again = "Run understudy export again to write it anew."
    value = read_beside(Path(folder) / FILE, version=VERSION, again=again)
    if not isinstance(value, dict):
        return Deployed(problem=value or "")
    if wrong := damage(value, DeployOf):
        return Deployed(problem=f"{FILE} is damaged: {wrong}. {again}")
    key = (value.get("student") or {}).get("key")
    if key and delivered and delivered.get("key") != key:
        student = value["student"]
        of = f"{plain(student.get('name', 'another stage'))}, seed {plain(student.get('seed'))}"
        return Deployed(problem=f"{FILE} is of another student ({of}) than the delivered one. {again}")
    return Deployed(rows=tuple(value["rows"]), machine=plain(value.get("machine") or ""))


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column of a table; in a narrow terminal the one with the highest ``drop`` goes first, 0 never."""

    words: str
    text: bool = False
    drop: int = 0


@dataclass(frozen=True, kw_only=True)
class Cells:
    """A table: columns of which something is known, and a text for each."""

    headers: list[Column]
    rows: list[list[str]]


def _accuracy(row: Mapping[str, Any], split: str) -> str:
    return _known((row.get(split) or {}).get("accuracy"), numbers.percent)


def _took(row: Mapping[str, Any], what: str) -> float | None:
    took: float | None = (row.get("latency") or {}).get(what)
    return took


def _known(figure: float | None, text: Callable[[Any], str]) -> str:
    return text(figure) if figure is not None and usable(figure) else ""


def _runtime(row: Mapping[str, Any]) -> str:
    return plain(row.get("runtime") or "")


def _threads(row: Mapping[str, Any]) -> str:
    return _known(_took(row, "threads"), str)


_COLUMNS: tuple[tuple[Column, Callable[[Mapping[str, Any]], str]], ...] = (
    (Column(words="form", text=True), lambda row: plain(row.get("form") or row.get("file") or "")),
    (Column(words="runtime", text=True, drop=5), _runtime),
    (Column(words="test, %"), lambda row: _accuracy(row, "test")),
    (Column(words="validation, %", drop=4), lambda row: _accuracy(row, "validation")),
    (Column(words="other answers", drop=2), lambda row: _known(row.get("differing"), str)),
    (Column(words="size"), lambda row: _known(row.get("bytes"), numbers.size)),
    (Column(words="median, ms"), lambda row: _known(_took(row, "median_ms"), numbers.three_figures)),
    (Column(words="p95, ms", drop=1), lambda row: _known(_took(row, "p95_ms"), numbers.three_figures)),
    (Column(words="threads", drop=6), _threads),
    (Column(words="memory", drop=3), lambda row: _known(row.get("peak_bytes"), numbers.size)),
    (Column(words="file", text=True, drop=7), lambda row: plain(row.get("file") or "")),
    (Column(words="note", text=True, drop=8), lambda row: plain(row.get("note") or "")),
)
_ALIKE = (
    ("runtime", _runtime),
    ("threads", _threads),
)  # columns that a sentence replaces where all rows are alike


def cells(rows: Sequence[Mapping[str, Any]]) -> Cells:
    """The rows of ``deploy.json`` as they are shown; a figure that is not known is a dash."""
    written = [[text(row) for _, text in _COLUMNS] for row in rows]
    said = {words for words, text in _ALIKE if _shared(rows, text)}
    kept = [
        number
        for number, (column, _) in enumerate(_COLUMNS)
        if any(row[number] for row in written) and column.words not in said
    ]
    return Cells(
        headers=[_COLUMNS[number][0] for number in kept],
        rows=[
            [row[number] or ("" if _COLUMNS[number][0].text else numbers.NOTHING) for number in kept]
            for row in written
        ],
    )


def how_to_read(rows: Sequence[Mapping[str, Any]], *, machine: str = "") -> list[str]:
    """What the figures of the table are, in sentences, and what is the same in all its rows.

    Args:
        rows: of ``deploy.json``; there is nothing to say of none.
        machine: where they were measured, in words.
    """
    shown = {header.words for header in cells(rows).headers}
    said = []
    if "other answers" in shown:
        said.append(
            "Other answers: images that the file puts into another class than the student in float32."
        )
    runtime, threads = (_shared(rows, text) for _, text in _ALIKE)
    measured = []
    if "median, ms" in shown:
        with_threads = f" with {threads} {'thread' if threads == '1' else 'threads'}" if threads else ""
        by = f", by {runtime}{with_threads}" if runtime else with_threads
        measured.append(f"time is of one image at a time{by}")
    elif runtime:
        measured.append(f"run by {runtime}")
    if "memory" in shown:
        measured.append("memory is the most that the process took, its runtime included")
    if measured:
        text = "; ".join(measured)
        said.append(f"{text[0].upper()}{text[1:]}.{f' Measured on {machine}.' if machine else ''}")
    return [*said, SPEED] if len(rows) > 1 else said


def _shared(rows: Sequence[Mapping[str, Any]], text: Callable[[Mapping[str, Any]], str]) -> str:
    """What is said of all rows alike; empty: nothing is."""
    found = {text(row) for row in rows}
    return found.pop() if len(found) == 1 else ""


def called(row: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> str:
    """A row's form; with its runtime where several forms are of that name.

    >>> rows = [{"form": "float32", "runtime": "onnxruntime"}, {"form": "float32", "runtime": "torch"}, {"form": "int8"}]
    >>> [called(row, rows) for row in rows]
    ['float32, onnxruntime', 'float32, torch', 'int8']
    """
    form = plain(row.get("form") or row.get("file") or "file")
    same = sum(other.get("form") == row.get("form") for other in rows) > 1
    return f"{form}, {plain(row['runtime'])}" if same and row.get("runtime") else form
