"""Arms by name, and what is checked before a ladder is run."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, get_args

import pytest

from tests.ladder import tiny
from understudy.data.views import Views
from understudy.errors import BadInput
from understudy.ladder import Ladder
from understudy.ladder.additions import Matching
from understudy.ladder.arms import ARMS, CONTROLS, Material, arm
from understudy.ladder.graph import jobs
from understudy.ladder.planning import planned
from understudy.models.peers import PeerForm
from understudy.recipe.schema import Control, Shape
from understudy.teaching import Labels, SoftTargets
from understudy.teaching.balanced import BalancedLabels
from understudy.teaching.curriculum import Curriculum
from understudy.teaching.peers import Peers
from understudy.training.signals import Signals

MATERIAL = Material(
    teacher=tiny.TEACHER, assistants=tiny.ASSISTANTS, student=tiny.STUDENT, method=SoftTargets()
)
OF_TEACHINGS = {
    "balanced_labels": "teaching.balance",
    "curriculum_reverse": "teaching.curriculum",
    "curriculum_random": "teaching.curriculum",
    "hints": "teaching.sparse_codes",
}
WHOLE = replace(
    MATERIAL,
    uniform=((), tiny.STUDENT),
    alone=([], tiny.STUDENT),
    weighed=BalancedLabels(beta=0.99),
    shape="dense",
    curriculum=Curriculum(method=SoftTargets()),
    matching=Matching(
        pairs=(("body", "body"),), training=tiny.training(), dictionary_training=tiny.training()
    ),
)


def test_the_words_are_those_of_a_recipe() -> None:
    assert set(CONTROLS) == set(get_args(Control))
    assert set(ARMS) == {*get_args(Control), *get_args(Shape)}


@pytest.mark.parametrize("name", [name for name in ARMS if name != "paths"])
def test_every_arm_ends_in_a_student_of_its_name(name: str) -> None:
    assistants = tiny.ASSISTANTS[:1] if name == "pacemaker" else tiny.ASSISTANTS
    stages = arm(name, replace(WHOLE, assistants=assistants))
    assert (stages[-1].name, stages[-1].role) == (name, "student")
    assert stages[-1].network == tiny.STUDENT.network
    Ladder(tuple(stages), (name,))


@pytest.mark.parametrize("name", ["uniform", "structure_alone"])
def test_controls_of_structures_need_one(name: str) -> None:
    with pytest.raises(BadInput, match=f"{name} goes with structure"):
        arm(name, MATERIAL)


@pytest.mark.parametrize(("name", "part"), OF_TEACHINGS.items())
def test_controls_of_a_part_of_the_teaching_need_it(name: str, part: str) -> None:
    with pytest.raises(BadInput, match=f"the control {name} goes with {part}"):
        arm(name, MATERIAL)


@pytest.mark.parametrize("name", ["scratch", "peers"])
def test_a_student_that_nobody_teaches_learns_from_labels_as_it_is_told(name: str) -> None:
    curriculum = Curriculum(method=Labels(), score="loss")
    first = arm(name, replace(MATERIAL, labels=curriculum))[0]
    method = first.method.method if isinstance(first.method, Peers) else first.method
    assert method == curriculum
    assert arm("direct", replace(MATERIAL, labels=curriculum))[-1].method == SoftTargets()


@pytest.mark.parametrize("shape", ["scratch", "direct", "chain", "dense", "peers"])
@pytest.mark.parametrize(
    ("name", "changed"),
    [("curriculum_reverse", {"direction": "hard_first"}), ("curriculum_random", {"score": "random"})],
)
def test_another_order_is_the_same_shape_with_another_curriculum(
    shape: str, name: str, changed: dict[str, Any]
) -> None:
    alone = shape in ("scratch", "peers")
    curriculum = Curriculum(method=Labels() if alone else SoftTargets(), score="loss")
    material = replace(MATERIAL, shape=shape, curriculum=curriculum)
    other, same = arm(name, material), arm(shape, material)
    assert [stage.name.replace(name, shape) for stage in other] == [stage.name for stage in same]
    for stage, plain in zip(other, same, strict=True):
        if isinstance(stage.method, Peers):
            assert stage.method.method == replace(curriculum, **changed)
        elif stage.role == "teacher" or stage.taken:
            assert stage.method == plain.method
        else:
            assert stage.method == replace(curriculum, **changed)


@pytest.mark.parametrize("name", ["curriculum_reverse", "curriculum_random"])
def test_another_order_has_all_else_that_the_ladder_has(name: str) -> None:
    peers = replace(tiny.STUDENT, network=replace(tiny.STUDENT.network, peers=PeerForm(count=2)))
    material = replace(
        MATERIAL, shape="chain", curriculum=Curriculum(method=SoftTargets(), score="loss"), own=peers
    )
    together, first = arm(name, material)[-2:]
    assert (together.name, first.name, first.taken) == (f"{name} ensemble", name, f"{name} ensemble")
    assert isinstance(together.method, Peers)
    assert isinstance(together.method.method, Curriculum)
    matching = Matching(
        pairs=(("pool", "pool"),), training=tiny.training(epochs=3), dictionary_training=tiny.training()
    )
    *_, dictionaries, start, student = arm(name, replace(material, own=None, matching=matching))
    assert (dictionaries.name, student.start) == (f"{name}/dictionaries", start.name)


def test_the_long_control_counts_the_epochs_of_a_start_from_layers() -> None:
    matching = Matching(
        pairs=(("pool", "pool"),),
        training=tiny.training(epochs=3),
        dictionary_training=tiny.training(epochs=50),
    )
    usual, longer = (arm("direct_long", replace(MATERIAL, matching=one))[-1] for one in (None, matching))
    assert usual.training is not None
    assert longer.training is not None
    assert longer.training.epochs == usual.training.epochs + 3


def test_peers_alone_do_not_teach_each_other_and_are_no_arm_together() -> None:
    together, first = arm("peers_alone", MATERIAL)
    assert isinstance(together.method, Peers)
    assert (together.name, together.role, together.method.weight) == ("peers_alone ensemble", "start", 0.0)
    assert (first.name, first.role, first.taken) == ("peers_alone", "student", "peers_alone ensemble")


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
