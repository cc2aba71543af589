"""The long form of a recipe: a ladder stage by stage, and its controls."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from understudy.errors import BadInput
from understudy.recipe.by_shape import arm_of, as_control
from understudy.recipe.parts import dropping_of, given_file, network_of
from understudy.recipe.schema import Recipe, StageEntry
from understudy.recipe.teachings import (
    matching_of,
    method_of,
    peers_of,
)
from understudy.recipe.validating import teaching_of, training_of

if TYPE_CHECKING:
    from understudy.data.dataset import Dataset
    from understudy.ladder import Ladder, Stage
    from understudy.ladder.shapes import Rung

SHORT_ONLY = (  # controls that are made of sections of the short form
    *("chain", "dense", "uniform", "structure_alone", "peers_alone"),
    *("balanced_labels", "curriculum_reverse", "curriculum_random", "hints"),
)


def ladder_by_stages(recipe: Recipe, dataset: Dataset) -> Ladder:
    from understudy.ladder import Ladder
    from understudy.ladder.graph import in_order

    entries = recipe.ladder.stages
    assert entries is not None
    needed = {
        name for entry in entries for name in (*entry.teachers, *([entry.start] if entry.start else []))
    }
    last = [entry.name for entry in entries if entry.name not in needed]
    student = recipe.ladder.student
    if student is None:
        if len(last) != 1:
            # Unknown names and circles are why there are several ends or none: they are what to say.
            in_order([_stage(recipe, i, entry, student="", last=last) for i, entry in enumerate(entries)])
            ends = ", ".join(last) or "none"
            raise BadInput(
                f"ladder.student is missing: which stage is delivered? Stages that nothing is made from: {ends}."
            )
        student = last[0]
    written = [_stage(recipe, i, entry, student=student, last=last) for i, entry in enumerate(entries)]
    stages = in_order(_with_additions(recipe, dataset, written))
    delivered = _delivered(entries, student)
    ladder = Ladder(stages, (delivered,))
    if ladder[student].weights is not None:
        what = "weights" if ladder[student].network.file is None else "a file"
        raise BadInput(f"the student {student!r} has {what}: the student is what is taught; use model.start.")
    return Ladder((*stages, *_controls(recipe, dataset, ladder, student)), (delivered,))


def _delivered(entries: Sequence[StageEntry], student: str) -> str:
    """The stage that is delivered: the student, or the ensemble of its peers where that is asked for."""
    from understudy.ladder.additions import ENSEMBLE

    peers = next((entry.model.peers for entry in entries if entry.name == student), None)
    return f"{student} {ENSEMBLE}" if peers is not None and peers.deliver == "ensemble" else student


def _with_additions(recipe: Recipe, dataset: Dataset, written: Sequence[Stage]) -> list[Stage]:
    """Stages of the long form with those that their peers and sparse codes need."""
    from understudy.ladder.additions import with_peers, with_sparse_codes

    assert recipe.ladder.stages is not None
    known = {stage.name: stage for stage in written}
    found: list[Stage] = []
    for entry, stage in zip(recipe.ladder.stages, written, strict=True):
        teaching = teaching_of(recipe, entry, "")
        if given_file(entry.model) is not None:
            found.append(stage)
        elif teaching.sparse_codes is not None and entry.teachers and entry.teachers[0] in known:
            teacher = known[entry.teachers[0]]
            matching = matching_of(
                recipe, teaching, student=stage.network, teacher=teacher.network, dataset=dataset
            )
            found += with_sparse_codes(stage, teacher, matching)
        else:
            found += with_peers([stage], peers_of(teaching))
    return found


def _stage(recipe: Recipe, position: int, entry: StageEntry, *, student: str, last: Sequence[str]) -> Stage:
    from understudy.ladder import Stage

    path = f"ladder.stages.{position}"
    role: Any = "assistant" if entry.teachers or entry.start else "teacher"
    if entry.name == student or (entry.name in last and given_file(entry.model) is None):
        role = "student"
    given = given_file(entry.model)
    if given is not None:
        if entry.teachers or entry.start or entry.teaching:
            key = "weights" if entry.model.weights else "file"
            raise BadInput(
                f"{path} has model.{key}, so nothing is trained: leave out teachers, start and teaching."
            )
        return Stage(name=entry.name, network=network_of(entry.model), role=role, weights=given)
    without = {"curriculum", "peers"}  # what a stage may have without teachers
    if not entry.teachers and (set(entry.teaching) - without or entry.stochastic):
        raise BadInput(f"{path} has no teachers; teaching and stochastic say how teachers teach.")
    teaching = teaching_of(recipe, entry, f"{path}.teaching.")
    try:
        return Stage(
            name=entry.name,
            network=network_of(entry.model),
            role=role,
            teachers=tuple(entry.teachers),
            start=entry.start or (Path(entry.model.start) if entry.model.start else None),
            method=method_of(teaching, dropping_of(entry.stochastic), teachers=bool(entry.teachers)),
            training=training_of(recipe, entry.model, f"{path}.model.training."),
        )
    except BadInput as error:
        raise BadInput(f"{path}: {error}") from error


def _controls(recipe: Recipe, dataset: Dataset, ladder: Ladder, student: str) -> list[Stage]:
    """Controls of a ladder given stage by stage: the same student, taught otherwise."""
    names = {stage.name for stage in ladder.stages}
    end = ladder[student]
    above = _above(ladder, student)
    roots = [stage for stage in above if stage.role == "teacher"]
    teacher = _as_rung(roots[0]) if roots else None
    assistants = [_as_rung(stage) for stage in above if stage.role != "teacher"]
    made: list[Stage] = []
    for control in recipe.controls:
        if control in names:
            continue
        if control in SHORT_ONLY:
            raise BadInput(
                f"controls: {control} goes with the short form; write its stages under ladder.stages."
            )
        if control == "scratch" and not (end.teachers or isinstance(end.start, str)):
            continue  # the student learns from nobody anyway
        if teacher is None and control not in ("scratch", "label_smoothing"):
            continue  # nobody teaches: there is no direct way either
        made_of = arm_of(control, teacher, assistants, _as_rung(end), recipe, dataset)
        stages = as_control(control, made_of, recipe)
        made += [stage for stage in stages if stage.name not in names]
        names |= {stage.name for stage in stages}
    return made


def _as_rung(stage: Stage) -> Rung:
    from understudy.ladder.shapes import Rung
    from understudy.training import Training

    return Rung(
        name=stage.name,
        network=stage.network,
        training=stage.training or Training(),
        weights=stage.weights,
        start=stage.start if isinstance(stage.start, Path) else None,
    )


def _above(ladder: Ladder, name: str) -> list[Stage]:
    """Every stage that one is made from, directly or not, in the ladder's order."""
    wanted, waiting = set(), list(ladder[name].inputs)
    while waiting:
        here = waiting.pop()
        if here not in wanted:
            wanted.add(here)
            waiting += ladder[here].inputs
    return [stage for stage in ladder.stages if stage.name in wanted]
