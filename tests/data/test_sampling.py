"""How often an epoch shows a class, and that samples of a class take turns."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from understudy.data.batches import epoch_order
from understudy.data.sampling import sampled_order
from understudy.errors import BadInput

OTHERS = ["balanced", "square_root"]
label_rows = st.lists(st.integers(-1, 5), min_size=0, max_size=120).map(
    lambda rows: np.array(rows, dtype=np.int64)
)


def seen(labels: np.ndarray, **more: Any) -> np.ndarray:
    """The positions of an epoch."""
    said = {"seed": 0, "epoch": 0, "sampling": "balanced", **more}
    order = sampled_order(labels, 16, **said)
    return np.concatenate(order) if order else np.zeros(0, dtype=np.int64)


@settings(max_examples=60, deadline=None)
@given(label_rows, st.integers(2, 40), st.integers(0, 9), st.integers(0, 9))
def test_by_instance_it_is_the_order_of_an_epoch_bit_for_bit(
    labels: np.ndarray, batch_size: int, seed: int, epoch: int
) -> None:
    ours = sampled_order(labels, batch_size, seed=seed, epoch=epoch, sampling="instance")
    theirs = epoch_order(len(labels), batch_size, seed=seed, epoch=epoch)
    assert [batch.tolist() for batch in ours] == [batch.tolist() for batch in theirs]


@settings(max_examples=60, deadline=None)
@given(label_rows, st.integers(2, 40), st.integers(0, 9), st.sampled_from(OTHERS))
def test_batches_are_as_many_and_as_large_as_ever(
    labels: np.ndarray, batch_size: int, epoch: int, sampling: Any
) -> None:
    ours = sampled_order(labels, batch_size, seed=0, epoch=epoch, sampling=sampling)
    theirs = epoch_order(len(labels), batch_size, seed=0, epoch=epoch)
    assert [len(batch) for batch in ours] == [len(batch) for batch in theirs]
    assert {batch.dtype for batch in ours} <= {np.dtype(np.int64)}
    assert all(0 <= position < len(labels) for batch in ours for position in batch)


@settings(max_examples=60, deadline=None)
@given(label_rows, st.integers(0, 9))
def test_balanced_shows_every_class_equally_often_up_to_one(labels: np.ndarray, epoch: int) -> None:
    shown = labels[seen(labels, epoch=epoch)]
    counts = [int((shown == label).sum()) for label in set(labels.tolist()) - {-1}]
    assert not counts or max(counts) - min(counts) <= 1
    assert sum(counts) == int((labels >= 0).sum())


@settings(max_examples=60, deadline=None)
@given(label_rows)
def test_by_square_root_the_share_of_a_class_is_that_of_its_root_up_to_one(labels: np.ndarray) -> None:
    shown = labels[seen(labels, sampling="square_root")]
    classes, counts = np.unique(labels[labels >= 0], return_counts=True)
    exact = np.sqrt(counts) / np.sqrt(counts).sum() * counts.sum() if len(counts) else np.zeros(0)
    for label, expected in zip(classes, exact, strict=True):
        assert abs((shown == label).sum() - expected) < 1
        assert (shown == label).any()


@pytest.mark.parametrize("sampling", ["instance", *OTHERS])
def test_unlabelled_samples_come_once_each(sampling: Any) -> None:
    labels = np.repeat([-1, 0, 1], [30, 50, 5])
    for epoch in range(3):
        positions = seen(labels, epoch=epoch, sampling=sampling)
        assert sorted(positions[labels[positions] == -1]) == list(range(30))


@settings(max_examples=40, deadline=None)
@given(label_rows, st.integers(1, 6), st.sampled_from(OTHERS))
def test_a_sample_comes_again_only_after_all_of_its_class_came(
    labels: np.ndarray, epochs: int, sampling: Any
) -> None:
    """Over all epochs the times that samples of a class came differ by one at most."""
    times = np.zeros(len(labels), dtype=np.int64)
    for epoch in range(epochs):
        np.add.at(times, seen(labels, epoch=epoch, sampling=sampling), 1)
        for label in set(labels.tolist()):
            of_class = times[labels == label]
            assert of_class.max() - of_class.min() <= 1


@pytest.mark.parametrize("sampling", OTHERS)
def test_the_order_is_of_seed_and_epoch(sampling: Any) -> None:
    labels = np.repeat([0, 1, 2], [60, 30, 6])
    first = seen(labels, sampling=sampling).tolist()
    assert seen(labels, sampling=sampling).tolist() == first
    assert seen(labels, sampling=sampling, seed=1).tolist() != first
    assert seen(labels, sampling=sampling, epoch=1).tolist() != first


def test_classes_are_mixed_within_an_epoch() -> None:
    labels = np.repeat([0, 1], [90, 6])
    batches = sampled_order(labels, 16, seed=0, epoch=0, sampling="balanced")
    assert all({0, 1} == set(labels[batch].tolist()) for batch in batches)


def test_permutations_of_a_class_are_fresh() -> None:
    labels = np.repeat([0, 1], [40, 8])  # the rare class has 24 samples of an epoch: three turns
    walk = [position for position in seen(labels).tolist() if position >= 40]
    assert sorted(walk) == sorted([*range(40, 48)] * 3)
    of_epochs = [
        tuple(position for position in seen(labels, epoch=epoch) if position < 40) for epoch in range(4)
    ]
    assert len({frozenset(positions) for positions in of_epochs}) > 1


def test_a_word_that_is_none_and_a_batch_of_one_are_refused() -> None:
    with pytest.raises(BadInput) as caught:
        seen(np.zeros(4, dtype=np.int64), sampling="balance")
    assert str(caught.value) == (
        "sampling is 'balance'; it can be instance, balanced, square_root. Did you mean 'balanced'?"
    )
    with pytest.raises(BadInput, match="batch_size is 1"):
        sampled_order(np.zeros(4, dtype=np.int64), 1, seed=0, epoch=0, sampling="balanced")
