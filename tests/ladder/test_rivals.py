"""Rival remedies: each trains what it says, with everything else as in direct."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.ladder.tiny import ASSISTANTS, STUDENT, TEACHER
from understudy.errors import BadInput
from understudy.ladder import rivals, shapes
from understudy.teaching import Labels, SoftTargets
from understudy.teaching.decoupled import Decoupled
from understudy.teaching.standardised import Standardised

METHOD = SoftTargets(temperature=3.0, soft_weight=0.7, combine="sum")


def test_label_smoothing_is_scratch_with_smoothed_labels() -> None:
    (only,) = rivals.label_smoothing(STUDENT)
    (plain,) = shapes.scratch(STUDENT)
    assert only.training == replace(STUDENT.training, label_smoothing=0.1)
    assert replace(only, name="scratch", training=plain.training) == plain


def test_an_early_teacher_is_trained_for_half_of_its_epochs_and_teaches_as_in_direct() -> None:
    teacher, student = rivals.early_teacher(TEACHER, STUDENT, METHOD)
    assert teacher.training == replace(TEACHER.training, epochs=1)  # of two
    assert (teacher.role, teacher.network) == ("teacher", TEACHER.network)
    assert student.teachers == (teacher.name,)
    assert (student.training, student.method) == (STUDENT.training, METHOD)


def test_an_early_teacher_has_the_first_of_several_weights() -> None:
    method = SoftTargets(teacher_weights=(1.0, 0.5))
    _, student = rivals.early_teacher(TEACHER, STUDENT, method)
    assert student.method == SoftTargets(teacher_weights=(1.0,))


def test_a_given_teacher_cannot_be_stopped_early() -> None:
    with pytest.raises(BadInput, match="this teacher's weights are given"):
        rivals.early_teacher(replace(TEACHER, weights=Path("teacher.safetensors")), STUDENT, METHOD)


def test_mean_teachers_are_trained_on_labels_alone_and_their_terms_averaged() -> None:
    *trainers, student = rivals.mean_teachers(TEACHER, ASSISTANTS, STUDENT, METHOD)
    assert all(isinstance(stage.method, Labels) and not stage.teachers for stage in trainers)
    assert student.teachers == tuple(stage.name for stage in trainers)
    assert len(trainers) == 1 + len(ASSISTANTS)
    assert isinstance(student.method, SoftTargets)
    assert (student.method.combine, student.method.hard_terms) == ("mean", "once")
    assert (student.method.temperature, student.method.soft_weight) == (3.0, 0.7)


@pytest.mark.parametrize(("build", "method"), [(rivals.logit_std, Standardised), (rivals.dkd, Decoupled)])
def test_another_loss_from_the_same_teacher(build: object, method: type) -> None:
    teacher, student = build(TEACHER, STUDENT)  # type: ignore[operator]
    assert teacher == shapes.teacher_stage(TEACHER)
    assert student.teachers == (teacher.name,)
    assert isinstance(student.method, method)
    assert student.training == STUDENT.training


def test_the_ramp_of_decoupled_distillation_takes_a_twelfth_of_the_epochs() -> None:
    longer = replace(STUDENT, training=replace(STUDENT.training, epochs=240))
    _, student = rivals.dkd(TEACHER, longer)
    assert isinstance(student.method, Decoupled)
    assert student.method.warmup == 20
