"""Balanced distillation against worked numbers, its two forms against sums, and torch's weighted mean."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from understudy.losses import hard_label_loss, soft_target_loss
from understudy.losses.balanced import (
    balanced_logits,
    effective_number_weights,
    effective_numbers,
    unnormalised_factor,
    weighted_cross_entropy,
)

COUNTS = torch.tensor([5000, 500, 50])
TEACHER = torch.tensor([[2.0, 1.0, 0.1]], dtype=torch.float64)
STUDENT = torch.tensor([[1.5, 0.2, -0.3]], dtype=torch.float64)


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def close(found: Tensor, expected: list[float], tolerance: float = 1e-8) -> None:
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), atol=tolerance, rtol=0)


# ------------------------------------------------------------------------------------------------------- weights
def test_effective_numbers_are_exact() -> None:
    beta = Fraction(0.9999)  # the number that a computer takes 0.9999 for
    exact = [float((1 - beta**n) / (1 - beta)) for n in COUNTS.tolist()]
    torch.testing.assert_close(effective_numbers(COUNTS, 0.9999).tolist(), exact, rtol=1e-12, atol=0)
    assert effective_numbers(torch.tensor([1]), 0.9999).item() == pytest.approx(1, rel=1e-12)


def test_weights_of_a_worked_example() -> None:
    weights = effective_number_weights(COUNTS, 0.9999)
    assert weights.dtype == torch.float64
    close(weights, [0.03410736, 0.27516723, 2.69072541])
    # before they are scaled, (1 - beta) / (1 - beta**n): the scale is 3 over the sum of these
    unscaled = [(1 - 0.9999) / (1 - 0.9999**n) for n in COUNTS.tolist()]
    torch.testing.assert_close((1 / effective_numbers(COUNTS, 0.9999)).tolist(), unscaled, rtol=1e-9, atol=0)
    close(weights, [3 * value / sum(unscaled) for value in unscaled])


def long_tail(largest: int, classes: int, imbalance: int) -> Tensor:
    return torch.tensor([int(largest * (1 / imbalance) ** (c / (classes - 1))) for c in range(classes)])


@pytest.mark.parametrize(("largest", "classes", "ratio"), [(5000, 10, 78.89), (500, 100, 97.57)])
def test_the_spread_of_the_weights_of_long_tailed_sets(largest: int, classes: int, ratio: float) -> None:
    weights = effective_number_weights(long_tail(largest, classes, 100), 0.9999)
    assert (weights.max() / weights.min()).item() == pytest.approx(ratio, abs=0.005)


@settings(deadline=None)
@given(counts=st.lists(st.integers(0, 10**6), min_size=1, max_size=12), beta=st.floats(0, 0.999999))
def test_weights_have_mean_one_and_never_rise_with_the_count(counts: list[int], beta: float) -> None:
    weights = effective_number_weights(torch.tensor(counts), beta)
    assert weights.isfinite().all()
    assert (weights > 0).all()
    assert weights.mean().item() == pytest.approx(1)
    ordered = weights[torch.tensor(counts).argsort()]
    assert (ordered.diff() <= 1e-9).all()


def test_beta_zero_makes_all_equal_and_towards_one_they_are_inverse_counts() -> None:
    assert torch.equal(effective_number_weights(COUNTS, 0.0), torch.ones(3, dtype=torch.float64))
    inverse = 1 / COUNTS.double()
    close(effective_number_weights(COUNTS, 1 - 1e-12), (inverse / inverse.mean()).tolist(), 1e-6)


def test_a_class_without_examples_weighs_as_one_with_one() -> None:
    weights = effective_number_weights(torch.tensor([100, 1, 0]), 0.99)
    assert weights[1] == weights[2]
    assert torch.equal(effective_number_weights(torch.zeros(3), 0.99), torch.ones(3, dtype=torch.float64))


def test_wrong_counts_and_betas_are_named() -> None:
    for counts in (torch.tensor([3, -1]), torch.tensor([]), torch.tensor([1.0, math.nan])):
        with pytest.raises(ValueError, match=r"counts are .* numbers from 0 up; got"):
            effective_number_weights(counts, 0.9)
    for beta in (-0.1, 1.0, math.nan):
        with pytest.raises(ValueError, match=r"beta lies in \[0, 1\); got"):
            effective_number_weights(COUNTS, beta)


# ------------------------------------------------------------------------------------------------- balanced targets
def test_the_loss_of_a_worked_example() -> None:
    weights = effective_number_weights(COUNTS, 0.9999)
    shifted = balanced_logits(TEACHER, weights, 2.0)
    close((TEACHER / 2).softmax(-1)[0], [0.50168776, 0.30428901, 0.19402324])
    close((shifted / 2).softmax(-1)[0], [0.02747008, 0.13441918, 0.83811074])
    close((STUDENT / 2).softmax(-1)[0], [0.51850669, 0.27068423, 0.21080909])
    close(soft_target_loss(STUDENT, TEACHER, temperature=2.0), [0.01186877], 1e-7)
    close(soft_target_loss(STUDENT, shifted, temperature=2.0), [3.92785205], 1e-7)
    close(hard_label_loss(STUDENT, torch.tensor([2])), [2.16313551], 1e-7)
    close(hard_label_loss(STUDENT, torch.tensor([0])), [0.36313551], 1e-7)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_the_target_is_the_weighed_answer_scaled_to_a_distribution(temperature: float) -> None:
    teacher, weights = 3 * drawn(6, 5), drawn(5, seed=1).exp()
    p = (teacher / temperature).softmax(-1)
    expected = weights * p / (weights * p).sum(-1, keepdim=True)
    target = (balanced_logits(teacher, weights, temperature) / temperature).softmax(-1)
    torch.testing.assert_close(target, expected)


def test_equal_weights_change_nothing_and_a_scale_does_not_matter() -> None:
    teacher, student, weights = drawn(6, 5), drawn(6, 5, seed=1), drawn(5, seed=2).exp()

    def loss(w: Tensor) -> Tensor:
        return soft_target_loss(student, balanced_logits(teacher, w, 2.0), temperature=2.0)

    ones = torch.ones(5, dtype=torch.float64)
    assert torch.equal(loss(ones), soft_target_loss(student, teacher, temperature=2.0))
    torch.testing.assert_close(loss(7 * weights), loss(weights))


def test_any_leading_shape_and_number_format() -> None:
    teacher, weights = drawn(3, 4, 5), drawn(5, seed=1).exp()
    shifted, factor = balanced_logits(teacher, weights, 2.0), unnormalised_factor(teacher, weights, 2.0)
    assert shifted.shape == (3, 4, 5)
    assert factor.shape == (3, 4)
    torch.testing.assert_close(shifted[1], balanced_logits(teacher[1], weights, 2.0))
    torch.testing.assert_close(factor[1, 2], unnormalised_factor(teacher[1, 2], weights, 2.0))
    half = teacher.bfloat16()
    assert balanced_logits(half, weights, 2.0).dtype == torch.float32
    assert unnormalised_factor(half, weights, 2.0).dtype == torch.float32
    torch.testing.assert_close(
        balanced_logits(half, weights, 2.0), balanced_logits(half.double(), weights, 2.0).float()
    )


def test_the_unnormalised_form_is_a_factor_and_a_constant_away() -> None:
    temperature, weights = 2.0, drawn(5, seed=2).exp()
    teacher, student = drawn(6, 5), drawn(6, 5, seed=1).requires_grad_()
    other = student.detach().clone().requires_grad_()
    p = (teacher / temperature).softmax(-1)
    written = -(temperature**2) * (weights * p * (student / temperature).log_softmax(-1)).sum(-1)
    shifted = balanced_logits(teacher, weights, temperature)
    factor = unnormalised_factor(teacher, weights, temperature)
    torch.testing.assert_close(factor, (weights * p).sum(-1))
    ours = factor * soft_target_loss(other, shifted, temperature=temperature)
    scale = torch.arange(1, 7, dtype=torch.float64)
    (scale * written).sum().backward()
    (scale * ours).sum().backward()
    torch.testing.assert_close(student.grad, other.grad)
    log_target = (shifted / temperature).log_softmax(-1)
    constant = temperature**2 * factor * -(log_target.exp() * log_target).sum(-1)
    torch.testing.assert_close(ours + constant, written)


def test_a_class_that_the_teacher_excludes_and_one_of_weight_zero_stay_out() -> None:
    teacher, student = drawn(4, 5), drawn(4, 5, seed=1)
    teacher[:, 2] = -math.inf
    weights = torch.tensor([1.0, 0.0, 2.0, 1.0, 0.5])
    loss = soft_target_loss(student, balanced_logits(teacher, weights, 2.0), temperature=2.0)
    assert loss.isfinite().all()
    kept = (teacher / 2).softmax(-1) * weights
    torch.testing.assert_close(unnormalised_factor(teacher, weights, 2.0), kept.sum(-1))


def test_the_teacher_gets_no_gradient() -> None:
    teacher, weights = drawn(4, 5).requires_grad_(), torch.ones(5)
    loss = soft_target_loss(
        drawn(4, 5).requires_grad_(), balanced_logits(teacher, weights, 2.0), temperature=2.0
    )
    (unnormalised_factor(teacher, weights, 2.0) * loss).sum().backward()
    assert teacher.grad is None


def test_wrong_shapes_and_temperatures_are_named() -> None:
    with pytest.raises(ValueError, match=r"weights \(classes,\); got \(4, 5\) and \(4,\)"):
        balanced_logits(torch.zeros(4, 5), torch.ones(4), 2.0)
    with pytest.raises(ValueError, match="temperature is positive; got 0"):
        unnormalised_factor(torch.zeros(4, 5), torch.ones(5), 0.0)


# --------------------------------------------------------------------------------------------------- hard labels
@pytest.mark.parametrize("missing", [0, 3])
def test_the_mean_over_labelled_examples_is_torchs_weighted_mean(missing: int) -> None:
    student, weights = drawn(12, 5).requires_grad_(), drawn(5, seed=1).exp()
    other = student.detach().clone().requires_grad_()
    labels = torch.arange(12) % 5
    labels[:missing] = -1
    each = weighted_cross_entropy(student, labels, weights)
    ours = each.sum() / (12 - missing)
    theirs = F.cross_entropy(other, labels, weight=weights, ignore_index=-1)
    torch.testing.assert_close(ours, theirs)
    ours.backward()
    theirs.backward()
    torch.testing.assert_close(student.grad, other.grad)
    assert torch.equal(each[:missing], torch.zeros(missing, dtype=torch.float64))


def test_a_value_is_the_cross_entropy_times_the_weight_over_the_batchs_mean_weight() -> None:
    student, labels = drawn(3, 3), torch.tensor([0, 2, 2])
    each = weighted_cross_entropy(student, labels, torch.tensor([1.0, 100.0, 4.0]))
    hard = hard_label_loss(student, labels)
    torch.testing.assert_close(each, hard * torch.tensor([1.0, 4.0, 4.0]) / 3)


def test_equal_weights_are_the_ordinary_loss_and_a_batch_without_labels_has_none() -> None:
    student = drawn(4, 3).float()
    labels = torch.tensor([0, 2, -1, 1])
    torch.testing.assert_close(
        weighted_cross_entropy(student, labels, torch.full((3,), 7.0)), hard_label_loss(student, labels)
    )
    nothing = student.clone().requires_grad_()
    loss = weighted_cross_entropy(nothing, torch.full((4,), -1), torch.ones(3))
    loss.sum().backward()
    assert torch.equal(loss, torch.zeros(4))
    assert nothing.grad is not None
    assert torch.equal(nothing.grad, torch.zeros(4, 3))
    assert weighted_cross_entropy(student.bfloat16(), labels, torch.ones(3)).dtype == torch.float32
