"""From a checked recipe to what the layers below take: a data set, a ladder, its jobs."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from understudy.errors import BadInput, listed, suggestion
from understudy.recipe.parts import dropping_of, given_file, network_of, rung_of
from understudy.recipe.schema import Data, Recipe, StageEntry, Views
from understudy.recipe.teachings import (
    UNTAUGHT,
    added,
    matching_of,
    method_of,
    peers_of,
    plain_method_of,
    soft_method_of,
)
from understudy.recipe.validating import quantise_training_of, teaching_of, training_of

if TYPE_CHECKING:
    from understudy.data.dataset import Dataset
    from understudy.data.views import Views as ViewsOfEpochs
    from understudy.ladder import Ladder, Network, Stage
    from understudy.ladder.graph import Job
    from understudy.ladder.shapes import Rung
    from understudy.teaching import Method
    from understudy.training.signals import Signals


INT8 = "int8"  # name of the arm that quantisation-aware distillation makes
SHORT_ONLY = (  # controls that are made of sections of the short form
    *("chain", "dense", "uniform", "structure_alone", "peers_alone"),
    *("balanced_labels", "curriculum_reverse", "curriculum_random", "hints"),
)


@dataclass(frozen=True, kw_only=True)
class Built:
    """What a recipe means on this machine and this data."""

    recipe: Recipe
    dataset: Dataset
    ladder: Ladder
    jobs: list[Job]


def build(recipe: Recipe, *, cache: Path | None = None) -> Built:
    """Loads the data and builds the ladder and its jobs.

    Args:
        recipe: checked.
        cache: folder for what is costly to find out about large folders of images.

    Raises:
        BadInput: data, networks, weights or devices that do not fit what the recipe says.
    """
    from understudy.ladder.planning import planned

    dataset = dataset_of(recipe, cache=cache)
    views = views_of(recipe)
    with _keys_of("data.views"):
        views.policy.check_fits(height=dataset.height, width=dataset.width)
    ladder = ladder_of(recipe, dataset)
    made = planned(
        ladder,
        dataset,
        seeds=recipe.seeds,
        views=views,
        signals=signals_of(recipe),
        repeat=recipe.repeat,
        ladder_seed=recipe.ladder_seed,
    )
    for name in recipe.compare or ():
        possible = [student for student in ladder.students if student != "direct"]
        if name not in possible:
            raise BadInput(
                f"compare names {name!r}, which is no arm beside direct. Arms: {listed(possible)}.{suggestion(name, possible)}"
            )
    return Built(recipe=recipe, dataset=dataset, ladder=ladder, jobs=made)


def dataset_of(recipe: Recipe, *, cache: Path | None = None) -> Dataset:
    """The data set of a recipe."""
    from understudy.data import load
    from understudy.data.long_tail import LongTail

    said = recipe.data.model_dump(exclude={"views", "long_tail"})
    tail = recipe.data.long_tail
    with _keys_of("data"):
        long_tail = None if tail is None else LongTail(**tail.model_dump())
        return load(**said, long_tail=long_tail, cache=cache)


def views_of(recipe: Recipe) -> ViewsOfEpochs:
    """The augmentation of a recipe, and which view each epoch shows."""
    from understudy.data.views import ViewPolicy
    from understudy.data.views import Views as ViewsOfEpochs

    which = {"seed", "distinct", "per_seed"}
    said = recipe.data.views.model_dump(exclude=which)
    with _keys_of("data.views"):
        policy = ViewPolicy(**{**said, "transforms": tuple(said["transforms"])})
        return ViewsOfEpochs(policy=policy, **recipe.data.views.model_dump(include=which))


def signals_of(recipe: Recipe) -> Signals:
    """How a recipe keeps what teachers say."""
    from understudy.training.signals import Signals

    return Signals(**recipe.signals.model_dump())


@contextlib.contextmanager
def _keys_of(section: str) -> Iterator[None]:
    """Complaints of the layers below that begin with an argument's name begin with the recipe's key instead."""
    fields = {"data": Data.model_fields, "data.views": Views.model_fields}[section]
    try:
        yield
    except BadInput as error:
        word = re.match(r"\w*", str(error))
        if word is None or word[0] not in fields:
            raise
        raise BadInput(f"{section}.{error}") from error


def ladder_of(recipe: Recipe, dataset: Dataset) -> Ladder:
    """The ladder of a recipe with its controls."""
    ladder = _long(recipe, dataset) if recipe.ladder.stages is not None else _short(recipe, dataset)
    return ladder if recipe.quantise is None else _with_int8(recipe, ladder)


def _with_int8(recipe: Recipe, ladder: Ladder) -> Ladder:
    """The ladder and one more arm: its student trained on, rounded to int8, taught by itself and its teachers."""
    from understudy.ladder import Ladder, Stage

    if len(ladder.delivered) > 1:
        raise BadInput(
            "quantise goes with one student; with paths it is known at the end only which one that is."
        )
    student = ladder[ladder.delivered[0]]
    taught = ladder[student.taken] if student.taken else student
    stage = Stage(
        name=INT8,
        network=replace(student.network, note=f"{student.network.note} int8".strip()),
        role="student",
        teachers=(student.name, *taught.teachers),
        start=student.name,
        structure=student.structure,
        quantised=True,
        method=replace(soft_method_of(recipe.teaching), teacher_weights=None),
        training=quantise_training_of(recipe),
    )
    return Ladder((*ladder.stages, stage), ladder.delivered)


# --- the short form ---------------------------------------------------------------------------------------------


def _short(recipe: Recipe, dataset: Dataset) -> Ladder:
    from understudy.ladder import Ladder, additions, shapes

    assert recipe.models is not None
    assistants = [
        rung_of(recipe, m, f"models.assistants.{i}") for i, m in enumerate(recipe.models.assistants)
    ]
    teacher = (
        None if recipe.models.teacher is None else rung_of(recipe, recipe.models.teacher, "models.teacher")
    )
    _check_weights(recipe)
    shape = recipe.ladder.shape
    assert shape is not None
    before: list[Stage] = []
    more: dict[str, Any] = {}
    if recipe.structure is not None:
        from understudy.recipe.structures import found

        structures = found(recipe, dataset, teacher=teacher)
        before, more = structures.stages, structures.material
        assistants, student = structures.assistants, structures.student
    else:
        assert recipe.models.student is not None  # checked
        student = rung_of(recipe, recipe.models.student, "models.student")

    alone = replace(student, network=student.network.alone)
    parts = added(recipe.teaching)
    taught = method_of(recipe.teaching, teachers=shape not in UNTAUGHT)
    more |= _compared(recipe, dataset, shape=shape, taught=taught, teacher=teacher, student=alone)

    how = {"labels" if shape in UNTAUGHT else "method": taught}
    main = _arm(shape, teacher, assistants, student, recipe, dataset, **how, **more)
    name = _name(recipe)
    if name != shape:
        main = additions.renamed(main, shape, name)
        main = additions.renamed(main, f"{shape} {additions.ENSEMBLE}", f"{name} {additions.ENSEMBLE}")
    if "sparse_codes" in parts:
        assert teacher is not None  # checked
        *others, last = main
        main = [*others, *additions.with_sparse_codes(last, shapes.teacher_stage(teacher), more["matching"])]
    controls = [
        _arm(control, teacher, assistants, alone, recipe, dataset, **more)
        for control in recipe.controls
        if control != name
    ]
    delivered = [stage.name for stage in main if stage.role == "student"]
    said = recipe.models.student
    if len(delivered) == 2 and shape != "paths":  # of peers: the ensemble, then the first
        ensemble = said is not None and said.peers is not None and said.peers.deliver == "ensemble"
        delivered = delivered[:1] if ensemble else delivered[1:]
    return Ladder(shapes.merged(before, main, *controls), tuple(delivered))


def _name(recipe: Recipe) -> str:
    """What the ladder's own student is called: by its shape, and by what it has and controls do not."""
    assert recipe.models is not None
    student, shape = recipe.models.student, recipe.ladder.shape
    assert shape is not None
    parts = added(recipe.teaching)
    if student is not None and student.peers is not None and shape != "peers":
        parts.append("peers")
    return " + ".join([shape, *parts])


def _compared(
    recipe: Recipe, dataset: Dataset, *, shape: str, taught: Method, teacher: Rung | None, student: Rung
) -> dict[str, Any]:
    """What the controls are made of that a part of the teaching is compared with."""
    from understudy.teaching.curriculum import Curriculum

    assert recipe.models is not None
    teaching, said = recipe.teaching, recipe.models.student
    more: dict[str, Any] = {"peers": peers_of(teaching), "shape": shape}
    if said is not None and said.peers is not None:
        more["form"] = network_of(said).peers
    if teaching.balance is not None:
        more["beta"] = teaching.balance.beta
    if isinstance(taught, Curriculum):
        more["curriculum"] = taught
    if teaching.sparse_codes is not None:
        assert teacher is not None  # checked
        more["matching"] = matching_of(
            recipe, teaching, student=student.network, teacher=teacher.network, dataset=dataset
        )
    return more


def _arm(
    name: str,
    teacher: Rung | None,
    assistants: Sequence[Rung],
    student: Rung,
    recipe: Recipe,
    dataset: Dataset,
    *,
    method: Method | None = None,
    **more: Any,
) -> list[Stage]:
    """The stages of a shape, or of a control, which has plain soft targets."""
    from understudy.ladder.arms import Material, arm

    costs = None
    if name == "direct_long" and recipe.direct_long.match == "multiply_adds":
        costs = [_multiply_adds(rung.network, dataset) for rung in (*assistants, student)]
    plain = plain_method_of(recipe.teaching)
    if recipe.ladder.stages is not None:
        plain = replace(plain, teacher_weights=None)
    material = Material(
        teacher=teacher,
        assistants=assistants,
        student=student,
        method=method or plain,
        stochastic=dropping_of(recipe.ladder.stochastic),
        costs=costs,
        reading=recipe.ladder.reading,
        **more,
    )
    return arm(name, material)


def _check_weights(recipe: Recipe) -> None:
    """How many teachers the last stage has, against the number of weights given."""
    weights = recipe.teaching.teacher_weights
    if weights is None or recipe.models is None:
        return
    teachers = 1 + (
        len(recipe.models.assistants) if recipe.ladder.shape == "dense" or "dense" in recipe.controls else 0
    )
    if len(weights) != teachers:
        raise BadInput(
            f"teaching.teacher_weights has {len(weights)} numbers; the last stage has {teachers} "
            f"teacher{'s' if teachers > 1 else ''}, largest first."
        )


def _multiply_adds(network: Network, dataset: Dataset) -> int:
    import torch

    from understudy.structure.cost import cost

    with torch.random.fork_rng(devices=[]):
        model = network.build(dataset)
    size = tuple(network.arguments(dataset)["size"])
    return cost(model, channels=dataset.channels, size=size).multiply_adds


# --- the long form ----------------------------------------------------------------------------------------------


def _long(recipe: Recipe, dataset: Dataset) -> Ladder:
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
        stages = _arm(control, teacher, assistants, _as_rung(end), recipe, dataset)
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
