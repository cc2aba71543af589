"""Soft targets of standardised logits: what they ignore and what they equal."""

from __future__ import annotations

import pytest
import torch

from understudy.losses import soft_target_loss
from understudy.losses.standardised import standardised, standardised_soft_target_loss


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * 2


def test_a_standardised_row_has_mean_zero_and_sample_deviation_one() -> None:
    # (1, 2, 3): mean 2, sample deviation 1
    torch.testing.assert_close(
        standardised(torch.tensor([[1.0, 2.0, 3.0]])), torch.tensor([[-1.0, 0.0, 1.0]])
    )
    rows = standardised(drawn(5, 100))
    torch.testing.assert_close(rows.mean(-1), torch.zeros(5), atol=1e-6, rtol=0)
    torch.testing.assert_close(rows.std(-1), torch.ones(5))


def test_equal_logits_become_zeros_not_nan() -> None:
    assert (standardised(torch.full((2, 4), 7.0)) == 0).all()


@pytest.mark.parametrize(("scale", "shift"), [(0.1, 0.0), (5.0, -3.0)])
def test_ignores_scale_and_shift_of_either_side(scale: float, shift: float) -> None:
    student, teacher = drawn(6, 10), drawn(6, 10, seed=1)
    loss = standardised_soft_target_loss(student, teacher, temperature=2.0)
    moved = standardised_soft_target_loss(student * scale + shift, teacher, temperature=2.0)
    torch.testing.assert_close(moved, loss, rtol=1e-3, atol=1e-5)
    same = standardised_soft_target_loss(teacher * scale + shift, teacher, temperature=2.0)
    torch.testing.assert_close(same, torch.zeros(6), atol=1e-5, rtol=0)


def test_is_plain_distillation_of_the_z_scores() -> None:
    student, teacher = drawn(6, 10), drawn(6, 10, seed=1)
    expected = soft_target_loss(
        (student - student.mean(1, keepdim=True)) / student.std(1, keepdim=True),
        (teacher - teacher.mean(1, keepdim=True)) / teacher.std(1, keepdim=True),
        temperature=2.0,
    )
    torch.testing.assert_close(standardised_soft_target_loss(student, teacher, temperature=2.0), expected)


def test_the_teacher_gets_no_gradient_and_the_student_does() -> None:
    student, teacher = drawn(3, 4).requires_grad_(), drawn(3, 4, seed=1).requires_grad_()
    standardised_soft_target_loss(student, teacher, temperature=2.0).sum().backward()
    assert teacher.grad is None
    assert student.grad is not None
    torch.testing.assert_close(student.grad.sum(1), torch.zeros(3), atol=1e-5, rtol=0)
