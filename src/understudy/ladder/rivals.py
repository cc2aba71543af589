"""Rival remedies for the capacity gap, each one word: controls that a ladder should be compared with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from understudy.errors import BadInput
from understudy.ladder.shapes import Rung, among, check_unlike, direct, labels, scratch, teacher_stage
from understudy.ladder.stage import Stage
from understudy.teaching import Method, SoftTargets
from understudy.teaching.decoupled import Decoupled
from understudy.teaching.standardised import Standardised

SMOOTHING = 0.1  # Szegedy et al. 2016, section 7
EARLY = 0.5  # share of the teacher's epochs: our choice, the paper searches for the best one
DECOUPLED_WARMUP = 20 / 240  # of the epochs, as in the official code


def label_smoothing(student: Rung) -> list[Stage]:
    """The student without a teacher, its labels smoothed by 0.1: what a teacher that knows nothing would give.

    References:
        Szegedy et al. 2016, arXiv:1512.00567, section 7. Yuan et al. 2020, arXiv:1909.11723, on distillation as
        learned label smoothing.
    """
    return scratch(
        replace(student, training=replace(student.training, label_smoothing=SMOOTHING)),
        name="label_smoothing",
    )


def early_teacher(teacher: Rung, student: Rung, method: Method) -> list[Stage]:
    """``direct`` from the same teacher trained for half of its epochs, its schedule run to its end at that length.

    A less trained teacher can be an easier one. That it is half is our choice; the paper tries several.

    Raises:
        BadInput: the teacher's weights are given, so there is nothing to stop early.

    References:
        Cho & Hariharan 2019, arXiv:1910.01348 (early-stopped knowledge distillation).
    """
    if teacher.weights is not None:
        raise BadInput(
            "the control early_teacher trains the teacher for fewer epochs, and this teacher's weights are given."
        )
    epochs = max(1, round(EARLY * teacher.training.epochs))
    shorter = replace(teacher, training=replace(teacher.training, epochs=epochs))
    name = "early_teacher/teacher"
    return [
        shorter.stage(name, role="teacher"),
        student.stage("early_teacher", role="student", teachers=(name,), method=among(method, 1)),
    ]


def mean_teachers(
    teacher: Rung, assistants: Sequence[Rung], student: Rung, method: SoftTargets
) -> list[Stage]:
    """The student taught by the mean of the softened answers of teacher and assistants, each trained on labels alone.

    The gradient of the mean of the KL terms is that of KL to the mean answer, because KL is linear in the target but
    for a constant. An ensemble of independent trainers is what dense guidance must beat to be worth its order.

    References:
        Son et al. 2021, arXiv:2009.08825, the comparison with a simple ensemble of trainers; that every trainer
        learns from the labels alone is our reading.
    """
    check_unlike(assistants, "mean_teachers")
    stages = [teacher_stage(teacher)]
    for label, assistant in zip(labels(assistants), assistants, strict=True):
        stages.append(assistant.stage(f"mean_teachers/{label}", role="assistant"))
    averaged = replace(method, combine="mean", hard_terms="once", teacher_weights=None)
    names = tuple(stage.name for stage in stages)
    stages.append(student.stage("mean_teachers", role="student", teachers=names, method=averaged))
    return stages


def logit_std(teacher: Rung, student: Rung) -> list[Stage]:
    """``direct`` with standardised logits, see ``understudy.teaching.standardised.Standardised``."""
    return direct(teacher, student, Standardised(), name="logit_std")


def dkd(teacher: Rung, student: Rung) -> list[Stage]:
    """``direct`` with decoupled distillation, see ``understudy.teaching.decoupled.Decoupled``.

    The ramp takes a twelfth of the epochs, as 20 of 240 in the official code.
    """
    warmup = round(DECOUPLED_WARMUP * student.training.epochs)
    return direct(teacher, student, Decoupled(warmup=warmup), name="dkd")
