from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from understudy.losses import hard_label_loss


def drawn(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def labels_of(batch: int, classes: int, seed: int = 0) -> Tensor:
    return torch.randint(0, classes, (batch,), generator=torch.Generator().manual_seed(seed))


def test_is_cross_entropy_one_value_for_each_example() -> None:
    logits, labels = drawn(8, 10), labels_of(8, 10)
    assert torch.equal(hard_label_loss(logits, labels), F.cross_entropy(logits, labels, reduction="none"))


def test_is_minus_the_log_of_the_probability_of_the_label() -> None:
    logits, labels = drawn(8, 10, dtype=torch.float64), labels_of(8, 10)
    expected = []
    for row, label in zip(logits.tolist(), labels.tolist(), strict=True):
        expected.append(math.log(math.fsum(map(math.exp, row))) - row[label])
    loss = hard_label_loss(logits, labels)
    assert loss.tolist() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("smoothing", [0.05, 0.1, 0.9])
def test_smoothing_spreads_its_share_evenly_over_all_classes(smoothing: float) -> None:
    logits, labels = drawn(8, 10, dtype=torch.float64), labels_of(8, 10)
    target = torch.full((8, 10), smoothing / 10, dtype=torch.float64)
    target[torch.arange(8), labels] += 1 - smoothing
    expected = -(target * logits.log_softmax(-1)).sum(-1)
    torch.testing.assert_close(hard_label_loss(logits, labels, label_smoothing=smoothing), expected)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_an_example_without_label_has_no_loss_and_no_gradient(smoothing: float) -> None:
    logits = drawn(4, 10).requires_grad_()
    labels = torch.tensor([3, -1, 0, -1])
    loss = hard_label_loss(logits, labels, label_smoothing=smoothing)
    loss.sum().backward()
    assert logits.grad is not None
    assert loss[[1, 3]].tolist() == [0.0, 0.0]
    assert not logits.grad[[1, 3]].any()
    labelled = hard_label_loss(logits[[0, 2]], labels[[0, 2]], label_smoothing=smoothing)
    assert torch.equal(loss[[0, 2]], labelled)


def test_a_batch_without_any_label_has_no_loss_and_no_gradient() -> None:
    logits = drawn(4, 10).requires_grad_()
    loss = hard_label_loss(logits, torch.full((4,), -1))
    loss.sum().backward()
    assert logits.grad is not None
    assert not loss.any()
    assert not logits.grad.any()


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_a_whole_share_leaves_one_label(share: float) -> None:
    logits, labels, partners = drawn(8, 10), labels_of(8, 10, seed=1), labels_of(8, 10, seed=2)
    loss = hard_label_loss(logits, labels, partner_labels=partners, share=torch.full((8,), share))
    assert torch.equal(loss, hard_label_loss(logits, labels if share else partners))


def test_mixing_is_the_weighted_sum_of_both_labels() -> None:
    logits, labels, partners = drawn(8, 10), labels_of(8, 10, seed=1), labels_of(8, 10, seed=2)
    share = torch.linspace(0.1, 0.9, 8)
    both = F.one_hot(labels, 10) * share[:, None] + F.one_hot(partners, 10) * (1 - share[:, None])
    loss = hard_label_loss(logits, labels, partner_labels=partners, share=share)
    torch.testing.assert_close(loss, -(both * logits.log_softmax(-1)).sum(-1))


def test_mixing_with_a_sample_of_the_same_class_changes_nothing() -> None:
    logits, labels = drawn(8, 10), labels_of(8, 10)
    loss = hard_label_loss(logits, labels, partner_labels=labels, share=torch.linspace(0, 1, 8))
    torch.testing.assert_close(loss, hard_label_loss(logits, labels))


def test_a_mixed_example_of_which_a_label_is_missing_teaches_nothing() -> None:
    logits = drawn(4, 10).requires_grad_()
    labels, partners = torch.tensor([1, -1, 2, -1]), torch.tensor([-1, 3, 4, -1])
    loss = hard_label_loss(logits, labels, partner_labels=partners, share=torch.full((4,), 0.5))
    loss.sum().backward()
    assert logits.grad is not None
    assert loss[[0, 1, 3]].tolist() == [0.0, 0.0, 0.0]
    assert not logits.grad[[0, 1, 3]].any()
    assert logits.grad[2].any()


def test_its_gradient_is_that_of_its_values() -> None:
    logits, labels = drawn(3, 5, dtype=torch.float64).requires_grad_(), torch.tensor([0, 4, -1])
    share = torch.tensor([0.3, 0.6, 0.5], dtype=torch.float64)
    assert torch.autograd.gradcheck(
        lambda z: hard_label_loss(
            z, labels, label_smoothing=0.1, partner_labels=torch.tensor([2, 4, 1]), share=share
        ),
        (logits,),
    )


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
def test_half_precision_logits_are_computed_in_single_precision(half: torch.dtype) -> None:
    logits, labels = drawn(8, 10).to(half), labels_of(8, 10)
    loss = hard_label_loss(logits, labels)
    assert loss.dtype == torch.float32
    assert torch.equal(loss, hard_label_loss(logits.float(), labels))


@pytest.mark.parametrize(("logits", "labels"), [((4, 10), (5,)), ((10,), (10,)), ((4, 10), (4, 10))])
def test_other_shapes_are_refused(logits: tuple[int, ...], labels: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"are \(batch, classes\) and labels \(batch,\); got") as error:
        hard_label_loss(torch.zeros(logits), torch.zeros(labels, dtype=torch.int64))
    assert str(error.value).endswith(f"got {logits} and {labels}")


@pytest.mark.parametrize("smoothing", [-0.1, 1.0, math.nan])
def test_smoothing_outside_of_its_range_is_refused(smoothing: float) -> None:
    with pytest.raises(ValueError, match=rf"label_smoothing lies in \[0, 1\); got {smoothing}"):
        hard_label_loss(torch.zeros(4, 10), labels_of(4, 10), label_smoothing=smoothing)


def test_partner_labels_and_share_come_together() -> None:
    with pytest.raises(ValueError, match="partner_labels and share are given together"):
        hard_label_loss(torch.zeros(4, 10), labels_of(4, 10), partner_labels=labels_of(4, 10))
    with pytest.raises(ValueError, match="partner_labels and share are given together"):
        hard_label_loss(torch.zeros(4, 10), labels_of(4, 10), share=torch.ones(4))


@pytest.mark.parametrize("shape", [(4, 1), (1,), (3,)])
def test_a_share_that_would_broadcast_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"share is \(batch,\) like labels \(4,\); got"):
        hard_label_loss(
            torch.zeros(4, 10), labels_of(4, 10), partner_labels=labels_of(4, 10), share=torch.ones(shape)
        )
