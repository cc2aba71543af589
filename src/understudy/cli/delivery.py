"""What a run's files are worth, kept in its ``deploy.json`` and shown: accuracy, size, time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from understudy.cli.options import console, say
from understudy.errors import UnderstudyError

if TYPE_CHECKING:
    from understudy.data.dataset import Dataset
    from understudy.deploy.parity import Parity
    from understudy.deploy.student import Student


@dataclass(frozen=True, kw_only=True)
class Form:
    """A file that was written and proved.

    Attributes:
        name: ``float32``, ``int8 after training``.
        path: of the file.
        runtime: what runs it.
        inside: it takes pixels.
        part: of the data that it was proved on: ``validation`` or ``test``.
        accuracy: of the file there, as a fraction.
        differing: answers that are not the float student's.
    """

    name: str
    path: Path
    runtime: str
    inside: bool
    part: str
    accuracy: float
    differing: int


def record(run: Path, student: Student, dataset: Dataset, forms: list[Form]) -> None:
    """Measures files of a run's student, adds them to its ``deploy.json`` and report, and shows all that are there.

    Rows of other files stay, unless these are gone, of another student, or were measured on another machine.
    """
    from understudy.deploy.hardware import hardware
    from understudy.report.card import write_card
    from understudy.report.deploy import FILE, VERSION, read_deploy
    from understudy.report.page import write_report
    from understudy.report.result import FILE as RESULT
    from understudy.report.tables import deploy_table
    from understudy.store.files import write_json

    known = hardware()
    where = [str(known[key]) for key in ("board", "processor") if known.get(key, "unknown") != "unknown"]
    machine = ", ".join([*(where or [str(known["machine"])]), f"{known['cores']} cores"])
    key = student.card.get("key")
    before = read_deploy(run, {"key": key})
    rows = [row_of(form, student, dataset, run) for form in forms]
    written = {row["file"] for row in rows}
    here = before.rows if before.machine == machine else ()
    older = [dict(row) for row in here if (run / str(row.get("file"))).is_file()]
    rows = sorted([*rows, *(row for row in older if row.get("file") not in written)], key=_order)
    of = {"name": student.card.get("stage"), "seed": student.card.get("seed"), "key": key}
    said = {"version": VERSION, "student": {k: v for k, v in of.items() if v is not None}}
    write_json(run / FILE, {**said, "machine": machine, "rows": rows})
    if (run / RESULT).is_file():
        write_report(run)
        write_card(run)
    if before.problem:
        say(f"note: {before.problem}")
    console().print(deploy_table(rows, machine=machine))


def row_of(form: Form, student: Student, dataset: Dataset, run: Path) -> dict[str, Any]:
    """A row of ``deploy.json``: the test images are answered once more, by the file as it is."""
    row: dict[str, Any] = {
        "form": form.name + (", with preprocessing" if form.inside else ""),
        "runtime": form.runtime,
        "file": form.path.resolve().relative_to(run.resolve()).as_posix(),
        "bytes": form.path.stat().st_size,
        form.part: {"accuracy": form.accuracy},
        "differing": form.differing,
    }
    if form.part != "test" and len(dataset.test):
        row["test"] = {"accuracy": on_test(form, student, dataset).file_accuracy}
    return {**row, **_measured(form)}


def on_test(form: Form, student: Student, dataset: Dataset) -> Parity:
    """The file beside the student on the test images; nothing is chosen by that."""
    from understudy.deploy.parity import parity

    return parity(
        student.model,
        form.path,
        dataset.test,
        preprocessing=student.preprocessing,
        classes=len(student.class_names),
        inside=form.inside,
        part="test",
    )


def _measured(form: Form) -> Mapping[str, Any]:
    """Time and memory; none of a file that runs elsewhere, and none where measuring fails: the file is good all the same."""
    from understudy.deploy.latency import latency

    if form.path.suffix == ".pte":
        return {"note": "to be measured on the device"}
    try:
        found = latency(form.path)
    except UnderstudyError as error:
        say(f"note: {form.path} could not be measured: {error}")
        return {}
    took = {
        "median_ms": 1000 * found.median,
        "p95_ms": 1000 * found.p95,
        "threads": found.threads,
    }
    runtime = f"{found.runtime} {found.runtime_version}"
    return {"runtime": runtime, "latency": took, "peak_bytes": found.memory_peak}


def _order(row: Mapping[str, Any]) -> tuple[str, str]:
    return str(row.get("form")), str(row.get("file"))
