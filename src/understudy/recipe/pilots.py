"""A ladder of pilots: short trainings of the candidates for an assistant, and of the student, to choose by."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from understudy.recipe.building import dataset_of
from understudy.recipe.parts import rung_of
from understudy.recipe.schema import Recipe
from understudy.recipe.teachings import soft_method_of

if TYPE_CHECKING:
    from understudy.data.dataset import Dataset
    from understudy.ladder import Ladder
    from understudy.ladder.shapes import Rung


@dataclass(frozen=True, kw_only=True)
class Pilots:
    """What is tried before a ladder is decided.

    Attributes:
        ladder: stages of the teacher, of what comes before the candidates, and one pilot for each and the student.
        candidates: name of the pilot of each assistant of the recipe, in order. student: of the student's.
        teacher: name of the teacher's stage.
        dataset: of the recipe.
    """

    ladder: Ladder
    candidates: tuple[str, ...]
    student: str
    teacher: str
    dataset: Dataset


def pilots_of(recipe: Recipe, *, epochs: int, dataset: Dataset | None = None) -> Pilots:
    """The assistants of ``recipe`` as candidates: each is taught by the teacher alone, for ``epochs``.

    Teacher, searches and choices are the stages of the recipe itself, so a later run of it finds them made.
    """
    from understudy.ladder import Ladder, shapes

    dataset = dataset or dataset_of(recipe)
    assert recipe.models is not None
    assert recipe.models.teacher is not None
    teacher = rung_of(recipe, recipe.models.teacher, "models.teacher")
    method = replace(soft_method_of(recipe.teaching), teacher_weights=None)
    before = [shapes.teacher_stage(teacher)]
    if recipe.structure is not None:
        from understudy.recipe.structures import found

        structures = found(recipe, dataset, teacher=teacher)
        before, assistants, student = structures.stages, structures.assistants, structures.student
    else:
        assert recipe.models.student is not None
        listed = enumerate(recipe.models.assistants)
        assistants = [rung_of(recipe, model, f"models.assistants.{i}") for i, model in listed]
        student = rung_of(recipe, recipe.models.student, "models.student")

    def pilot(rung: Rung, name: str) -> list:  # type: ignore[type-arg]
        short = replace(rung, training=replace(rung.training, epochs=epochs))
        return shapes.direct(teacher, short, method, name=name)

    names = [f"pilot/{label}" for label in shapes.labels(assistants)]
    tried = [pilot(rung, name) for rung, name in zip(assistants, names, strict=True)]
    last = "pilot/student"
    stages = shapes.merged(before, *tried, pilot(student, last))
    return Pilots(
        ladder=Ladder(stages, (last,)),
        candidates=tuple(names),
        student=last,
        teacher=teacher.name,
        dataset=dataset,
    )
