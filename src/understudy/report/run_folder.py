"""The files a run leaves: recipe.yaml, result.json, the delivered student."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from understudy.errors import BadInput, listed
from understudy.recipe.reading import read_file
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
    costs = {outcome.job.name: outcome.job for outcome in outcomes}
    return {
        "version": VERSION,
        "complete": complete,
        "ladder": {
            "shape": recipe["ladder"]["shape"] or "stages",
            "delivered": list(ladder.delivered),
            "controls": [name for name in ladder.students if name not in ladder.delivered],
            "seeds": recipe["seeds"],
            "repeat": recipe["repeat"],
            "graph": [_node(costs[stage.name]) for stage in ladder.stages if stage.name in costs],
            "edges": [
                {"from": source, "to": stage.name, "kind": kind}
                for stage in ladder.stages
                for kind, sources in (
                    ("teaches", stage.teachers),
                    ("starts", (stage.start,) if isinstance(stage.start, str) else ()),
                )
                for source in sources
            ],
        },
        "data": {
            "name": dataset.name,
            "classes": len(dataset.class_names),
            "class_names": list(dataset.class_names),
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
            [*(stage.name for stage in ladder.stages if stage.name not in ladder.students), *ladder.students],
            students=ladder.students,
            claim=recipe.get("compare"),
        ),
        **(analyst.closing(outcomes, chosen) if analyst and chosen and complete else {}),
    }


def _node(job: Job) -> dict[str, Any]:
    return {
        "name": job.name,
        "model": job.stage.network.label,
        "role": job.stage.role,
        "teachers": list(job.stage.teachers),
        "parameters": job.cost.parameters,
        "multiply_adds": job.cost.multiply_adds,
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
        "parameters": outcome.job.cost.parameters,
        "multiply_adds": outcome.job.cost.multiply_adds,
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
    """Removes a student that another run left in ``out``: none of this run is finished."""
    for name in (STUDENT, STUDENT_CARD, MODEL_CARD):
        (out / name).unlink(missing_ok=True)


def deliver(out: Path, chosen: Outcome, *, store: Store, dataset: Dataset) -> None:
    """Writes ``student.safetensors`` and ``student.json``: enough to rebuild the student with torch alone.

    Raises:
        Damaged: the kept weights differ from their checksum.
        CannotWrite: no space or right to write.
    """
    from safetensors.torch import save

    assert chosen.result is not None
    record = chosen.result.record
    weights = store.weights(chosen.result)
    files.write_bytes(out / STUDENT, save(weights))
    files.write_json(
        out / STUDENT_CARD,
        {
            "version": VERSION,
            "name": record["model"],
            "stage": chosen.job.name,
            "seed": chosen.job.seed,
            "key": chosen.job.key,
            "architecture": record["architecture"],
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
            "weights": {"file": STUDENT, "sha256": files.sha256_of_file(out / STUDENT)},
        },
    )
