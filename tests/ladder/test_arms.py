"""Arms by name, and what is checked before a ladder is run."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

import pytest

from tests.ladder import tiny
from understudy.data.views import Views
from understudy.errors import BadInput
from understudy.ladder import Ladder
from understudy.ladder.arms import ARMS, CONTROLS, Material, arm
from understudy.ladder.graph import jobs
from understudy.ladder.planning import planned
from understudy.recipe.schema import Control, Shape
from understudy.teaching import SoftTargets
from understudy.training.signals import Signals

MATERIAL = Material(
    teacher=tiny.TEACHER, assistants=tiny.ASSISTANTS, student=tiny.STUDENT, method=SoftTargets()
)


def test_the_words_are_those_of_a_recipe() -> None:
    assert set(CONTROLS) == set(get_args(Control))
    assert set(ARMS) == {*get_args(Control), *get_args(Shape)}


@pytest.mark.parametrize("name", [name for name in ARMS if name != "paths"])
def test_every_arm_ends_in_a_student_of_its_name(name: str) -> None:
    assistants = tiny.ASSISTANTS[:1] if name == "pacemaker" else tiny.ASSISTANTS
    stages = arm(
        name, replace(MATERIAL, assistants=assistants, uniform=tiny.STUDENT, alone=([], tiny.STUDENT))
    )
    assert (stages[-1].name, stages[-1].role) == (name, "student")
    assert stages[-1].network == tiny.STUDENT.network
    Ladder(tuple(stages), (name,))


@pytest.mark.parametrize("name", ["uniform", "structure_alone"])
def test_controls_of_structures_need_one(name: str) -> None:
    with pytest.raises(BadInput, match=f"{name} goes with structure"):
        arm(name, MATERIAL)


def test_an_unknown_arm_and_a_missing_teacher_are_named() -> None:
    with pytest.raises(BadInput, match=r"'dens' is no arm.*Did you mean 'dense'"):
        arm("dens", MATERIAL)
    with pytest.raises(BadInput, match="a teacher is missing"):
        arm("direct", Material(teacher=None, student=tiny.STUDENT, method=SoftTargets()))


def test_planned_jobs_are_those_of_the_graph() -> None:
    dataset = tiny.made_up()
    ladder = Ladder(tuple(arm("chain", MATERIAL)), ("chain",))
    found = planned(ladder, dataset, seeds=[0, 1], views=Views(), signals=Signals())
    assert [job.key for job in found] == [
        job.key for job in jobs(ladder, dataset, seeds=[0, 1], views=Views(), signals=Signals())
    ]
