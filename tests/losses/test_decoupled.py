"""Decoupled distillation against a hand-written reference and the identity that gives it its name."""

from __future__ import annotations

import math

import pytest
import torch

from understudy.losses import soft_target_loss
from understudy.losses.decoupled import decoupled_loss


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * 2


def reference(
    student: list[float], teacher: list[float], label: int, temperature: float
) -> tuple[float, float]:
    """TCKD and NCKD (Zhao et al. 2022, Eq. 7) in double precision, with explicit loops."""

    def softmax(row: list[float]) -> list[float]:
        powers = [math.exp(z / temperature) for z in row]
        return [power / sum(powers) for power in powers]

    p, q = softmax(teacher), softmax(student)
    target = p[label] * math.log(p[label] / q[label])
    target += (1 - p[label]) * math.log((1 - p[label]) / (1 - q[label]))
    others = 0.0
    for i in range(len(p)):
        if i != label:
            ours, theirs = p[i] / (1 - p[label]), q[i] / (1 - q[label])
            others += ours * math.log(ours / theirs)
    return target, others


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_equals_the_hand_written_sum(temperature: float) -> None:
    student, teacher, labels = drawn(6, 5), drawn(6, 5, seed=1), torch.tensor([0, 1, 2, 3, 4, 2])
    loss = decoupled_loss(
        student, teacher, labels, temperature=temperature, target_weight=0.7, others_weight=3.0
    )
    for row in range(6):
        target, others = reference(
            student[row].tolist(), teacher[row].tolist(), int(labels[row]), temperature
        )
        assert loss[row].item() == pytest.approx(temperature**2 * (0.7 * target + 3.0 * others), rel=1e-4)


def test_plain_distillation_is_the_case_beta_equal_to_one_minus_the_teachers_confidence() -> None:
    student, teacher, labels = drawn(8, 10), drawn(8, 10, seed=1), torch.arange(8)
    target = decoupled_loss(student, teacher, labels, temperature=4.0, target_weight=1.0, others_weight=0.0)
    others = decoupled_loss(student, teacher, labels, temperature=4.0, target_weight=0.0, others_weight=1.0)
    confidence = torch.softmax(teacher / 4.0, -1)[torch.arange(8), labels]
    plain = soft_target_loss(student, teacher, temperature=4.0)
    torch.testing.assert_close(target + (1 - confidence) * others, plain, rtol=1e-4, atol=1e-5)


def test_is_zero_when_the_student_agrees_and_never_negative() -> None:
    teacher, labels = drawn(8, 10), torch.arange(8)
    same = decoupled_loss(teacher + 3.0, teacher, labels, temperature=2.0)
    torch.testing.assert_close(same, torch.zeros(8), atol=1e-4, rtol=0)
    assert (decoupled_loss(drawn(8, 10, seed=2), teacher, labels, temperature=2.0) >= 0).all()


def test_an_unlabelled_example_has_no_loss_and_no_gradient() -> None:
    student = drawn(3, 4).requires_grad_()
    loss = decoupled_loss(student, drawn(3, 4, seed=1), torch.tensor([1, -1, 2]), temperature=4.0)
    loss.sum().backward()
    assert loss[1] == 0
    assert student.grad is not None
    assert student.grad[1].abs().sum() == 0
    assert student.grad[0].abs().sum() > 0


def test_the_teacher_gets_no_gradient() -> None:
    teacher = drawn(3, 4, seed=1).requires_grad_()
    decoupled_loss(
        drawn(3, 4).requires_grad_(), teacher, torch.tensor([0, 1, 2]), temperature=4.0
    ).sum().backward()
    assert teacher.grad is None


def test_wrong_shapes_and_temperatures_are_named() -> None:
    with pytest.raises(ValueError, match=r"two classes or more; got \(2, 1\)"):
        decoupled_loss(
            torch.zeros(2, 1), torch.zeros(2, 1), torch.zeros(2, dtype=torch.long), temperature=1.0
        )
    with pytest.raises(ValueError, match="labels are"):
        decoupled_loss(
            torch.zeros(2, 3), torch.zeros(2, 3), torch.zeros(3, dtype=torch.long), temperature=1.0
        )
    with pytest.raises(ValueError, match="temperature is positive; got 0"):
        decoupled_loss(
            torch.zeros(2, 3), torch.zeros(2, 3), torch.zeros(2, dtype=torch.long), temperature=0.0
        )
