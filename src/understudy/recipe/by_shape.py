"""The short form of a recipe: a ladder by its shape, and its controls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from understudy.errors import BadInput
from understudy.recipe.parts import dropping_of, network_of, rung_of
from understudy.recipe.schema import Recipe
from understudy.recipe.teachings import (
    UNTAUGHT,
    added,
    matching_of,
    method_of,
    peers_of,
    plain_method_of,
)
from understudy.recipe.validating import differing

if TYPE_CHECKING:
    from understudy.data.dataset import Dataset
    from understudy.ladder import Ladder, Network, Stage
    from understudy.ladder.shapes import Rung
    from understudy.teaching import Method


def ladder_by_shape(recipe: Recipe, dataset: Dataset) -> Ladder:
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
    more["own"] = student

    how = {"labels" if shape in UNTAUGHT else "method": taught}
    main = arm_of(shape, teacher, assistants, student, recipe, dataset, **how, **more)
    name = _name(recipe)
    if name != shape:
        main = additions.renamed(main, shape, name)
        main = additions.renamed(main, f"{shape} {additions.ENSEMBLE}", f"{name} {additions.ENSEMBLE}")
    if "sparse_codes" in parts:
        assert teacher is not None  # checked
        *others, last = main
        main = [*others, *additions.with_sparse_codes(last, shapes.teacher_stage(teacher), more["matching"])]
    if name in recipe.control_training:
        raise BadInput(
            f"control_training.{name}: {name} is the ladder itself here, whose student models.student.training is about."
        )
    controls = [
        as_control(control, arm_of(control, teacher, assistants, alone, recipe, dataset, **more), recipe)
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
    from understudy.teaching.balanced import BalancedLabels
    from understudy.teaching.curriculum import Curriculum

    assert recipe.models is not None
    teaching, said = recipe.teaching, recipe.models.student
    more: dict[str, Any] = {"peers": peers_of(teaching), "shape": shape}
    if said is not None and said.peers is not None:
        more["form"] = network_of(said).peers
    if teaching.balance is not None:
        more["weighed"] = BalancedLabels(beta=teaching.balance.beta, defer=teaching.balance.defer)
    if isinstance(taught, Curriculum):
        more["curriculum"] = taught
    if teaching.sparse_codes is not None:
        assert teacher is not None  # checked
        more["matching"] = matching_of(
            recipe, teaching, student=student.network, teacher=teacher.network, dataset=dataset
        )
    return more


def arm_of(
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


def as_control(name: str, stages: Sequence[Stage], recipe: Recipe) -> list[Stage]:
    """The stages of a control, whose student is trained as ``control_training`` says."""
    from understudy.ladder.additions import ENSEMBLE

    own = recipe.control_training.get(name)
    if own is None:
        return list(stages)
    path = f"control_training.{name}."
    return [
        replace(stage, training=differing(stage.training, own, path))
        if stage.training is not None and stage.name in (name, f"{name} {ENSEMBLE}")
        else stage
        for stage in stages
    ]


def _check_weights(recipe: Recipe) -> None:
    """How many teachers the last stage has, against the number of weights given."""
    weights = recipe.teaching.teacher_weights
    if weights is None or recipe.models is None:
        return
    teachers = 1
    if recipe.ladder.shape == "dense" or "dense" in recipe.controls:
        teachers += len(recipe.models.assistants)
    elif recipe.ladder.shape == "pacemaker" and recipe.ladder.reading == "ensemble":
        teachers += 1
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
