"""The section ``structure`` of a recipe: stages that find structures, and the rungs that are made of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from understudy.errors import BadInput
from understudy.recipe.parts import rung_of
from understudy.recipe.schema import Recipe, StructureSection
from understudy.recipe.teachings import soft_method_of
from understudy.recipe.validating import structure_training_of

if TYPE_CHECKING:
    from understudy.data.dataset import Dataset
    from understudy.ladder import Network, Stage
    from understudy.ladder.shapes import Rung
    from understudy.ladder.structured import Search
    from understudy.structure.budget import Budget, Limits
    from understudy.structure.cost import Cost
    from understudy.teaching.structure_search import Unheld
    from understudy.training.settings import Training

BASE = "whole"


@dataclass(frozen=True, kw_only=True)
class Structures:
    """What a ladder of structures is made of.

    Attributes:
        stages: that come before: the teacher, the whole network where it is not the teacher, the searches, the choices.
        assistants: structures on the way, largest first. student: the last one.
        material: of the controls ``uniform`` and ``structure_alone``.
    """

    stages: list[Stage]
    assistants: list[Rung]
    student: Rung
    material: dict[str, Any]


def found(recipe: Recipe, dataset: Dataset, *, teacher: Rung | None) -> Structures:
    """The stages and rungs of a recipe with ``structure``.

    The whole network is the teacher's, or the student's where one is named; that is first taught by the teacher.

    Raises:
        BadInput: a budget that does not fit the network, a block that it does not have.
    """
    from understudy.ladder.shapes import teacher_stage
    from understudy.ladder.structured import between, rungs, searched
    from understudy.structure.cost import cost

    assert recipe.structure is not None
    assert recipe.models is not None
    assert teacher is not None  # checked
    section, method = recipe.structure, replace(soft_method_of(recipe.teaching), teacher_weights=None)
    said = recipe.models.student
    stages = [teacher_stage(teacher)]
    start = teacher.name
    if said is None:
        network, training = teacher.network, recipe.training
    else:
        whole = rung_of(recipe, said, "models.student")
        network, training = whole.network, whole.training
        stages.append(whole.stage(BASE, role="assistant", teachers=(teacher.name,), method=method))
        start = BASE
    if network.file is not None:
        raise BadInput(
            f"structure: the teacher is the file {network.file}, whose channels stay as they are. Name the network "
            f"whose structure is learnt as models.student."
        )
    whole_cost, size = _cost(network, dataset, cost)
    budget = _budget(section.budget.multiply_adds, section.budget.parameters, whole_cost)
    budgets = between(budget, section.assistants, whole_cost)
    shapes: dict[str, Any] = {"channels": dataset.channels, "size": size}
    search = _search(recipe, network, dataset, budgets, whole_cost, **shapes)
    _check_reach(search, network, dataset, **shapes)
    stages += searched(search, network, start=start, teachers=(teacher.name,), method=method, **shapes)
    *assistants, student = rungs(search, network, training)
    material: dict[str, Any] = {}
    if "uniform" in recipe.controls:
        material["uniform"] = _narrowed(network, training, budget, dataset, whole_cost)
    if "structure_alone" in recipe.controls:
        last = replace(search, budgets=budgets[-1:], expected=search.expected[-1:])
        name = "structure_alone/structure"
        alone = searched(last, network, start=start, name=name, **shapes)
        material["alone"] = (alone, rungs(last, network, training, name=name)[-1])
    return Structures(stages=stages, assistants=assistants, student=student, material=material)


def _search(
    recipe: Recipe,
    network: Network,
    dataset: Dataset,
    budgets: tuple[Budget, ...],
    whole: Cost,
    **shapes: Any,
) -> Search:
    from understudy.ladder.structured import Search

    section, training = recipe.structure, structure_training_of(recipe)
    assert section is not None
    limits = [budget.limits(whole) for budget in budgets]
    ways = _unheld(section, network, dataset, limits, **shapes)
    return Search(
        budgets=budgets,
        usual=_usual(ways[-1].pull, training, images=len(dataset.train)),
        expected=tuple(way.cost for way in ways),
        training=training,
        strengths=tuple(section.strengths),
        blocks=dict(section.blocks),
        schedule=section.schedule,
        retrain=section.retrain,
    )


def _unheld(
    section: StructureSection, network: Network, dataset: Dataset, limits: Sequence[Limits], **shapes: Any
) -> tuple[Unheld, ...]:
    import torch

    from understudy.structure.blocks import check_blocks
    from understudy.teaching.structure_search import unheld

    with torch.random.fork_rng(devices=[]):
        model = network.build(dataset)
    said = section.budget
    resources = [name for name in ("multiply_adds", "parameters") if getattr(said, name) is not None]
    try:
        check_blocks(model, section.blocks)
    except BadInput as error:
        raise BadInput(f"structure.blocks: {error}") from error
    try:
        return unheld(
            model, limits, resources=resources, blocks=section.blocks, schedule=section.schedule, **shapes
        )
    except BadInput as error:
        raise BadInput(f"structure: {error}") from error


def _usual(pull: float, training: Training, *, images: int) -> float:
    """The usual strength of a search that pulls so hard, rounded so that it may stand in a key."""
    import math

    from understudy.teaching.structure_search import usual_strength
    from understudy.training.schedules import factor_of

    an_epoch = math.ceil(images / (training.batch_size * training.accumulate))
    rates = (
        training.lr * factor_of(training, step=step, steps_an_epoch=an_epoch)
        for step in range(training.epochs * an_epoch)
    )
    return float(f"{usual_strength(pull, rates=rates, momentum=training.momentum):.4g}")


def _budget(multiply_adds: str | None, parameters: str | None, whole: Cost) -> Budget:
    from understudy.structure.budget import Budget

    try:
        budget = Budget(multiply_adds=multiply_adds, parameters=parameters)
        budget.limits(whole)
    except BadInput as error:
        raise BadInput(f"structure.budget.{error}" if _is_limit(error) else f"structure: {error}") from error
    return budget


def _cost(network: Network, dataset: Dataset, count: Any) -> tuple[Cost, tuple[int, int]]:
    import torch

    with torch.random.fork_rng(devices=[]):
        model = network.build(dataset)
    height, width = network.arguments(dataset)["size"]
    return count(model, channels=dataset.channels, size=(height, width)), (height, width)


def _check_reach(search: Search, network: Network, dataset: Dataset, **shapes: Any) -> None:
    """Whether the network can be made as small as is asked for, before it is trained for that."""
    import torch

    from understudy.structure.choosing import choose

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = network.build(dataset)
    try:
        choose(model, search.budgets[-1], blocks=search.blocks, **shapes)
    except BadInput as error:
        raise BadInput(f"structure.budget.{error}" if _is_limit(error) else f"structure: {error}") from error


def _is_limit(error: BadInput) -> bool:
    return str(error).startswith(("multiply_adds", "parameters"))


def _narrowed(
    network: Network, training: Any, budget: Budget, dataset: Dataset, whole: Cost
) -> tuple[list[Stage], Rung]:
    """All layers narrowed alike: a width of the network where one is within the budget, else fewer channels in each."""
    from understudy.ladder.shapes import Rung
    from understudy.ladder.structured import narrowed_alike

    width = _widest(network, budget, dataset, whole)
    if width is not None:
        return [], Rung(network=replace(network, width=width), training=training)
    return narrowed_alike(network, training, budget)


def _widest(network: Network, budget: Budget, dataset: Dataset, whole: Cost) -> float | None:
    """The widest factor, in steps of a thousandth, whose cost is within the budget; None: there is none."""
    from understudy.models.names import is_built_in
    from understudy.structure.cost import cost

    if network.factory is not None or not is_built_in(network.name):
        return None
    limits = budget.limits(whole)
    low, high = 0, 1000  # thousandths of the width; what is too narrow to be built costs too much
    while high - low > 1:
        middle = (low + high) // 2
        narrow = replace(network, width=network.width * middle / 1000)
        if limits.hold(_cost(narrow, dataset, cost)[0]):
            low = middle
        else:
            high = middle
    return round(network.width * low / 1000, 6) if low else None
