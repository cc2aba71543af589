"""From a checked recipe to what the layers below take: a data set, a ladder, its jobs."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from understudy.errors import BadInput, listed, suggestion
from understudy.recipe.by_shape import ladder_by_shape
from understudy.recipe.by_stages import ladder_by_stages
from understudy.recipe.schema import Data, Recipe, Views
from understudy.recipe.teachings import (
    soft_method_of,
)
from understudy.recipe.validating import quantise_training_of

if TYPE_CHECKING:
    from understudy.data.dataset import Dataset
    from understudy.data.views import Views as ViewsOfEpochs
    from understudy.ladder import Ladder
    from understudy.ladder.graph import Job
    from understudy.training.signals import Signals


INT8 = "int8"  # name of the arm that quantisation-aware distillation makes


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
    if recipe.compare and "direct" not in ladder.students:
        raise BadInput(
            f"compare names {listed(recipe.compare)}, and differences are to direct, which this ladder does not have. "
            f"Add direct to the controls, or leave out compare."
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
    by_hand = recipe.ladder.stages is not None
    ladder = ladder_by_stages(recipe, dataset) if by_hand else ladder_by_shape(recipe, dataset)
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
