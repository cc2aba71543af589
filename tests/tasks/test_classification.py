from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from understudy.data.batches import Batch
from understudy.tasks import Classification


def batch_with(
    labels: list[int], *, partner_labels: list[int] | None = None, share: list[float] | None = None
) -> Batch:
    n = len(labels)
    return Batch(
        index=torch.arange(n),
        pixels=torch.zeros(n, 1, 2, 2, dtype=torch.uint8),
        labels=torch.tensor(labels),
        partner_labels=None if partner_labels is None else torch.tensor(partner_labels),
        share=None if share is None else torch.tensor(share),
    )


def drawn(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def test_the_hard_loss_of_a_labelled_batch_is_mean_cross_entropy() -> None:
    logits, batch = drawn(5, 3), batch_with([0, 1, 2, 1, 0])
    torch.testing.assert_close(
        Classification().hard_loss(logits, batch), F.cross_entropy(logits, batch.labels)
    )


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_unlabelled_examples_do_not_dilute_the_mean(smoothing: float) -> None:
    task, logits = Classification(label_smoothing=smoothing), drawn(5, 3)
    some = task.hard_loss(logits, batch_with([0, -1, 2, -1, 1]))
    labelled = task.hard_loss(logits[[0, 2, 4]], batch_with([0, 2, 1]))
    torch.testing.assert_close(some, labelled)


def test_mixed_examples_count_where_both_labels_are_known() -> None:
    task, logits = Classification(), drawn(4, 3)
    some = task.hard_loss(
        logits, batch_with([0, -1, 2, 1], partner_labels=[1, 1, -1, 1], share=[0.3, 0.5, 0.5, 0.9])
    )
    known = task.hard_loss(logits[[0, 3]], batch_with([0, 1], partner_labels=[1, 1], share=[0.3, 0.9]))
    torch.testing.assert_close(some, known)


def test_a_batch_without_labels_has_a_loss_of_zero_that_can_be_differentiated() -> None:
    logits = drawn(4, 3).requires_grad_()
    loss = Classification().hard_loss(logits, batch_with([-1, -1, -1, -1]))
    loss.backward()
    assert loss.item() == 0.0
    assert logits.grad is not None
    assert not logits.grad.any()


def test_smoothing_is_of_the_hard_term_and_part_of_the_definition() -> None:
    logits, batch = drawn(5, 3), batch_with([0, 1, 2, 1, 0])
    expected = F.cross_entropy(logits, batch.labels, label_smoothing=0.1)
    torch.testing.assert_close(Classification(label_smoothing=0.1).hard_loss(logits, batch), expected)
    assert Classification(label_smoothing=0.1).definition() != Classification().definition()


def test_accuracy_is_the_fraction_of_right_answers() -> None:
    logits = torch.tensor([[2.0, 1.0, 0.0], [0.0, 1.0, 0.5], [0.0, 0.0, 3.0], [1.0, 0.0, 0.0]])
    assert Classification().metrics(logits, torch.tensor([0, 1, 2, 2])) == {"accuracy": 0.75}
    assert Classification().metrics(logits, logits.argmax(-1)) == {"accuracy": 1.0}
    assert Classification().metrics(logits, (logits.argmax(-1) + 1) % 3) == {"accuracy": 0.0}


def test_accuracy_is_exact_for_many_samples() -> None:
    labels = torch.zeros(3_000_001, dtype=torch.int64)
    logits = torch.zeros(3_000_001, 2)
    logits[:, 0] = 1.0
    logits[0, 1] = 2.0
    # float32 sums of this many ones and a mean of them are not to be trusted
    assert Classification().metrics(logits, labels) == {"accuracy": 3_000_000 / 3_000_001}


def test_no_samples_have_no_accuracy() -> None:
    assert Classification().metrics(torch.zeros(0, 0), torch.zeros(0, dtype=torch.int64)) == {}


# ---------------------------------------------------------------------------------------- by how often a class is seen
COUNTS = (500, 101, 100, 20, 19)


def answers(right: list[bool], labels: list[int], *, classes: int = 5) -> tuple[Tensor, Tensor]:
    """Logits that are right where they should be."""
    given = torch.tensor(labels)
    said = torch.where(torch.tensor(right), given, (given + 1) % classes)
    return F.one_hot(said, classes).double(), given


def test_accuracy_is_told_apart_by_training_images_of_the_class() -> None:
    labels = [0, 0, 0, 0, 1, 1, 2, 3, 4, 4]
    right = [True, True, True, False, False, False, True, True, True, False]
    found = Classification(train_counts=COUNTS).metrics(*answers(right, labels))
    assert found == {
        "accuracy": 0.6,
        "many": 0.5,  # of six images, not of two classes
        "medium": 1.0,
        "few": 0.5,
        "balanced": pytest.approx((0.75 + 0 + 1 + 1 + 0.5) / 5),
    }


def test_a_group_or_a_class_without_images_is_left_out() -> None:
    found = Classification(train_counts=COUNTS).metrics(*answers([True, False], [0, 4]))
    assert found == {"accuracy": 0.5, "many": 1.0, "few": 0.0, "balanced": 0.5}
    only = Classification(train_counts=(90, 30)).metrics(*answers([True, False], [0, 1], classes=2))
    assert set(only) == {"accuracy", "medium", "balanced"}


@pytest.mark.parametrize("counts", [None, (30, 30, 30, 30, 30), (59, 20, 20, 20, 20), (0, 0, 0, 0, 0)])
def test_classes_that_are_about_equally_frequent_have_accuracy_alone(counts: tuple[int, ...] | None) -> None:
    given = answers([True, False], [0, 4])
    assert Classification(train_counts=counts).metrics(*given) == Classification().metrics(*given)


def test_balanced_is_accuracy_where_test_images_are_balanced() -> None:
    labels = list(range(5)) * 4
    right = [position % 3 == 0 for position in range(20)]
    found = Classification(train_counts=COUNTS).metrics(*answers(right, labels))
    assert found["balanced"] == pytest.approx(found["accuracy"])


def test_training_images_are_no_part_of_the_definition() -> None:
    assert Classification(train_counts=COUNTS).definition() == Classification().definition()
