"""The files a run leaves: recipe.yaml, result.json, the delivered student."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from understudy.data.long_tail import class_sizes, is_imbalanced
from understudy.errors import BadInput, listed
from understudy.recipe.reading import read_file
from understudy.report.deploy import FILE as DEPLOY
from understudy.report.kinds import BETWEEN, edges
from understudy.report.summary import comparison, summary
from understudy.store import files

if TYPE_CHECKING:
    from understudy.data.dataset import Dataset
    from understudy.ladder.graph import Job, Ladder
    from understudy.ladder.runner import Outcome
    from understudy.report.analysis import Analyst
    from understudy.store import Store

VERSION = 1
RECIPE = "recipe.yaml"
RESULT = "result.json"
STUDENT = "student.safetensors"
STUDENT_CARD = "student.json"
MODEL_CARD = "student.md"
INT8 = "student-int8"  # the student that was trained on as int8, where there is one
EXPORTED = (".onnx", ".int8.onnx", ".pt2", ".pte")
_MAY_GROW = ("seeds", "controls")


def check_out(out: Path, recipe: Mapping[str, Any], *, force: bool) -> None:
    """Whether a run of ``recipe`` may go into ``out``: an empty place, or the same recipe with fewer seeds or controls.

    Raises:
        BadInput: it holds another run (the keys that differ are named), or something that is no run.
    """
    there = out / RECIPE
    try:
        for place in (out, *out.parents):
            if place.exists() and not place.is_dir():
                what = "is a file" if place == out else f"lies below {place}, which is a file"
                raise BadInput(f"--out {out} {what}; name a folder.")
        if force or not out.is_dir() or not any(out.iterdir()):
            return
        if not there.exists():
            whose = (
                "a run that was started from Python" if (out / RESULT).exists() else "files that no run left"
            )
            raise BadInput(f"--out {out} holds {whose}. Choose another folder.")
    except OSError as error:
        raise BadInput(f"--out {out} cannot be used: {error.strerror}. Choose another folder.") from error
    try:
        before = read_file(there)
    except BadInput as error:
        raise BadInput(f"{error} Choose another --out, or --force to write over this run.") from error
    differing = []
    for key in {**before, **recipe}:
        old, new = before.get(key), recipe.get(key)
        if old == new:
            continue
        if key in _MAY_GROW and isinstance(old, list) and isinstance(new, list) and set(old) <= set(new):
            continue
        differing += _differences(old, new, key)
    if differing:
        raise BadInput(
            f"--out {out} holds another run: {listed(differing)}. Choose another --out, or --force to write over it "
            f"(what the store keeps is not touched)."
        )


def _differences(old: Any, new: Any, path: str) -> list[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        return [
            line
            for key in {**old, **new}
            if old.get(key) != new.get(key)
            for line in _differences(old.get(key), new.get(key), f"{path}.{key}")
        ]
    return [f"{path} is {_short(old)} there and {_short(new)} here"]


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else text[:57] + "..."


@contextmanager
def alone(out: Path, store: Path) -> Iterator[None]:
    """Only one run writes into ``out`` at a time.

    Raises:
        BadInput: another one does.
    """
    name = hashlib.sha256(str(out.resolve()).encode()).hexdigest()[:16]
    place = store / "locks"
    with files.explained(place):
        place.mkdir(parents=True, exist_ok=True)
    lock = FileLock(place / f"out-{name}.lock", thread_local=False)
    try:
        with files.explained(place):
            lock.acquire(timeout=0)
    except Timeout:
        raise BadInput(
            f"another run writes into {out} at this moment; choose another --out or wait."
        ) from None
    try:
        yield
    finally:
        lock.release()


def result_of(
    outcomes: Sequence[Outcome],
    *,
    ladder: Ladder,
    dataset: Dataset,
    recipe: Mapping[str, Any],
    environment: Mapping[str, Any],
    command: str,
    analyst: Analyst | None = None,
) -> dict[str, Any]:
    """The content of ``result.json``; accuracies are fractions, seconds are of the training wherever it was made.

    Args:
        outcomes: of all jobs, finished or not.
        ladder: the stages.
        dataset: what was learned.
        recipe: as resolved.
        environment: versions and hardware of this machine.
        command: how to run it again.
        analyst: adds what the kept outputs say; None: nothing is added.
    """
    chosen = choose(outcomes, ladder)
    stages = [{**_stage(outcome), **(analyst.of(outcome) if analyst else {})} for outcome in outcomes]
    complete = all(outcome.state == "done" for outcome in outcomes)
    costs = {outcome.job.name: (outcome.job, _cost(outcome)) for outcome in outcomes}
    return {
        "version": VERSION,
        "complete": complete,
        "ladder": {
            "shape": recipe["ladder"]["shape"] or "stages",
            "delivered": list(ladder.delivered),
            "controls": ladder.controls,
            "seeds": recipe["seeds"],
            "repeat": recipe["repeat"],
            "graph": [_node(*costs[stage.name]) for stage in ladder.stages if stage.name in costs],
            "edges": edges(ladder),
        },
        "data": {
            "name": dataset.name,
            "classes": len(dataset.class_names),
            "class_names": list(dataset.class_names),
            **_train_counts(dataset),
            "train": len(dataset.train),
            "validation": len(dataset.validation),
            "test": len(dataset.test),
            "image": [dataset.height, dataset.width, dataset.channels],
            "fingerprint": dataset.fingerprint,
        },
        "environment": dict(environment),
        "command": command,
        "delivered": None
        if chosen is None
        else {"name": chosen.job.name, "seed": chosen.job.seed, "key": chosen.job.key},
        "stages": stages,
        "compare": comparison(ladder.students, claim=recipe.get("compare"), repeat=recipe["repeat"]),
        "summary": summary(
            stages,
            [*_beside(ladder), *ladder.students],
            students=ladder.students,
            claim=recipe.get("compare"),
        ),
        **(analyst.closing(outcomes, chosen) if analyst and chosen and complete else {}),
    }


def _beside(ladder: Ladder) -> list[str]:
    """Stages beside the arms whose figures are of interest."""
    students = ladder.students
    return [stage.name for stage in ladder.stages if stage.name not in students and stage.role not in BETWEEN]


def _train_counts(dataset: Dataset) -> dict[str, list[int]]:
    """Training images of each class, where they differ much."""
    counts = class_sizes(dataset.train.labels, classes=len(dataset.class_names))
    return {"train_counts": counts} if is_imbalanced(counts) else {}


def _cost(outcome: Outcome) -> dict[str, int]:
    """Of the network that was made; before that, what is expected of it."""
    record = outcome.result.record if outcome.result else {}
    expected = outcome.job.cost
    return {
        "parameters": record.get("parameters", expected.parameters),
        "multiply_adds": record.get("multiply_adds", expected.multiply_adds),
    }


def _node(job: Job, cost: Mapping[str, int]) -> dict[str, Any]:
    return {
        "name": job.name,
        "model": job.stage.network.label,
        "role": job.stage.role,
        "teachers": list(job.stage.teachers),
        **cost,
    }


def _stage(outcome: Outcome) -> dict[str, Any]:
    record = outcome.result.record if outcome.result else {}
    training = outcome.job.stage.training
    return {
        "name": outcome.job.name,
        "seed": outcome.job.seed,
        "key": outcome.job.key,
        "role": outcome.job.stage.role,
        "state": outcome.state,
        "message": outcome.message,
        "model": outcome.job.stage.network.label,
        "teachers": list(outcome.job.stage.teachers),
        **_cost(outcome),
        **{name: record[name] for name in ("choice",) if name in record},
        "epochs": record.get("epochs", training.epochs if training else 0),
        "seconds": record.get("seconds"),
        "from_store": outcome.from_store,
        "validation": record.get("validation", {}),
        "test": record.get("test", {}),
    }


def choose(outcomes: Sequence[Outcome], ladder: Ladder) -> Outcome | None:
    """The delivered student: of all seeds (and, with ``paths``, all paths) the one best on validation.

    The earlier in order wins a tie. Without a validation split there is only one, see the recipe's checks. None while
    none is finished.
    """
    done = [o for o in outcomes if o.job.name in ladder.delivered and o.state == "done" and o.result]
    return max(
        done,
        key=lambda o: o.result.record["validation"].get("accuracy", 0.0) if o.result else 0.0,
        default=None,
    )


def withdraw(out: Path) -> None:
    """Removes a student that another run left in ``out``, and its figures as a file: none of this run is finished."""
    beside = ("landscape.json", "landscape.svg", "paper.json", "paper.md")
    for name in (STUDENT, STUDENT_CARD, MODEL_CARD, DEPLOY, f"{INT8}.safetensors", f"{INT8}.json", *beside):
        (out / name).unlink(missing_ok=True)
    for name in (STUDENT_CARD.removesuffix(".json"), INT8):
        _clear_exported(out, name, key="")


def deliver(
    out: Path,
    chosen: Outcome,
    *,
    store: Store,
    dataset: Dataset,
    name: str = STUDENT_CARD.removesuffix(".json"),
) -> None:
    """Writes ``student.safetensors`` and ``student.json``: enough to rebuild the student with torch alone.

    What was exported of another student is removed: it would be taken for this one's.

    Raises:
        Damaged: the kept weights differ from their checksum.
        CannotWrite: no space or right to write.
    """
    from safetensors.torch import save

    assert chosen.result is not None
    record = chosen.result.record
    weights, file = store.weights(chosen.result), f"{name}.safetensors"
    _clear_exported(out, name, key=chosen.job.key)
    files.write_bytes(out / file, save(weights))
    files.write_json(
        out / f"{name}.json",
        {
            "version": VERSION,
            "name": record["model"],
            "stage": chosen.job.name,
            "seed": chosen.job.seed,
            "key": chosen.job.key,
            "architecture": record["architecture"],
            "network": record.get("network"),
            "structure": record.get("structure"),
            "taught": _taught(chosen.job),
            "preprocessing": {
                **record["preprocessing"],
                "channels": dataset.channels,
                "image": [dataset.height, dataset.width],
                "order": "pixels 0..255 -> resize to size (if any) -> / 255 -> - mean -> / std, per channel",
            },
            "class_names": list(dataset.class_names),
            "parameters": record["parameters"],
            "multiply_adds": record["multiply_adds"],
            "validation": record["validation"],
            "test": record["test"],
            "weights": {"file": file, "sha256": files.sha256_of_file(out / file)},
        },
    )


def _taught(job: Job) -> dict[str, Any]:
    """How a student came to its weights: that of the peers where it is one of them."""
    trained = job.taken or job
    return {
        "peers": job.taken.name if job.taken else None,
        "teachers": [teacher.name for teacher in trained.teachers],
        "method": trained.definition.get("method"),
        "training": trained.definition.get("training"),
    }


def _clear_exported(out: Path, name: str, *, key: str) -> None:
    """Removes files that were exported of a student with another key than ``key``."""
    try:
        if json.loads((out / f"{name}.json").read_text("utf-8")).get("key") == key:
            return
    except (OSError, ValueError, AttributeError):
        pass
    for ending in EXPORTED:
        for path in (out / f"{name}{ending}", out / f"{name}{ending}.json"):
            path.unlink(missing_ok=True)
