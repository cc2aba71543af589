"""Orders of a curriculum: properties of the list, of the pacing, and of the batches that are drawn from it."""

from __future__ import annotations

import math
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from understudy.data.batches import epoch_order
from understudy.data.ordering import (
    available,
    curriculum_order,
    prefix_batches,
    prefix_length,
    sequence_batches,
)
from understudy.errors import BadInput

seeds = st.integers(0, 2**31)
PACINGS = ["exponential", "linear", "single_step", "sequence"]


@st.composite
def scored(draw: st.DrawFn) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    labels = draw(st.lists(st.integers(-1, 4), min_size=1, max_size=60))
    scores = draw(
        st.lists(st.sampled_from([0.0, 0.5, 1.0, 2.0, math.inf]), min_size=len(labels), max_size=len(labels))
    )
    return np.array(scores), np.array(labels)


# --------------------------------------------------------------------------------------------------------- order
@settings(deadline=None)
@given(scored())
def test_the_order_is_a_permutation_and_easiest_first_within_each_class(
    given_ones: tuple[NDArray[np.float64], NDArray[np.int64]],
) -> None:
    scores, labels = given_ones
    order = curriculum_order(scores, labels)
    assert order.dtype == np.int64
    assert sorted(order.tolist()) == list(range(len(scores)))
    for label in set(labels.tolist()):
        rows = [row for row in order.tolist() if labels[row] == label]
        assert rows == sorted(rows, key=lambda row: (scores[row], row))


@settings(deadline=None)
@given(scored())
def test_any_prefix_keeps_the_proportions_of_the_classes(
    given_ones: tuple[NDArray[np.float64], NDArray[np.int64]],
) -> None:
    scores, labels = given_ones
    order, total = curriculum_order(scores, labels), Counter(labels.tolist())
    seen: Counter[int] = Counter()
    for taken, row in enumerate(order.tolist(), start=1):
        seen[int(labels[row])] += 1
        for label, count in total.items():
            # other classes shift the place by half a sample each at the most
            assert abs(seen[label] - count * taken / len(order)) <= 0.5 + 0.5 * len(total)


def test_a_small_case_that_can_be_read() -> None:
    #  position   0    1    2    3    4    5    6
    labels = np.array([0, 0, 0, 0, 1, 1, -1])
    scores = np.array([4.0, 3.0, 2.0, 1.0, 9.0, 8.0, 0.0])
    # places: class 0 at 1/8 3/8 5/8 7/8, class 1 at 1/4 3/4, the unlabelled one at 1/2
    assert curriculum_order(scores, labels).tolist() == [3, 5, 2, 6, 1, 4, 0]


def test_equal_places_follow_by_class_and_the_unlabelled_come_last() -> None:
    labels = np.array([-1, 2, 0, 1])
    assert curriculum_order(np.zeros(4), labels).tolist() == [2, 3, 1, 0]


def test_only_the_ranks_of_the_scores_matter() -> None:
    stream = np.random.default_rng(0)
    scores, labels = stream.standard_normal(500), stream.integers(0, 7, 500)
    order = curriculum_order(scores, labels)
    assert order.tolist() == curriculum_order(np.exp(scores), labels).tolist()
    assert order.tolist() == curriculum_order(scores.astype(np.float32), labels.astype(np.int32)).tolist()


def test_scores_that_are_no_numbers_and_other_shapes_are_named() -> None:
    with pytest.raises(BadInput, match="2 of 3 samples have a score that is not a number, sample 1 first"):
        curriculum_order(np.array([0.0, math.nan, math.nan]), np.zeros(3, dtype=np.int64))
    with pytest.raises(BadInput, match=r"scores of shape \(3,\) and labels of shape \(2,\)"):
        curriculum_order(np.zeros(3), np.zeros(2, dtype=np.int64))
    assert curriculum_order(np.zeros(0), np.zeros(0, dtype=np.int64)).tolist() == []


# -------------------------------------------------------------------------------------------------------- pacing
def test_the_exponential_pacing_of_fifty_thousand() -> None:
    lengths = [prefix_length(50_000, available(k * 5 / 100, pacing="exponential")) for k in range(21)]
    assert lengths == [5000, 9500, 18050, 34295] + [50_000] * 17


@pytest.mark.parametrize("batches", [20, 140, 260, 1000])
def test_steps_begin_at_their_batch_whatever_the_rounding(batches: int) -> None:
    fractions = [available(i / batches, pacing="exponential") for i in range(batches)]
    starts = [i for i in range(batches) if i == 0 or fractions[i] != fractions[i - 1]]
    assert starts == [k * batches // 20 for k in range(5)]


def test_the_other_pacings() -> None:
    assert [available(p, pacing="linear") for p in (0.0, 0.2, 0.7, 1.0)] == [0.1, 1, 1, 1]
    assert available(0.1, pacing="linear") == pytest.approx(0.55)
    assert [available(p, pacing="single_step") for p in (0.0, 0.199, 0.2, 1.0)] == [0.1, 0.1, 1, 1]
    assert [available(p, pacing="sequence") for p in (0.0, 0.5, 1.0)] == [1, 1, 1]


@settings(deadline=None)
@given(
    pacing=st.sampled_from(PACINGS),
    first=st.floats(0, 1),
    second=st.floats(0, 1),
    start=st.floats(0.001, 1),
    growth=st.floats(1.0001, 10),
    step=st.floats(1e-6, 1),
)
def test_pacing_never_falls_and_stays_within_start_and_all(
    pacing: str, first: float, second: float, start: float, growth: float, step: float
) -> None:
    early, late = (
        available(progress, pacing=pacing, start=start, growth=growth, step=step)  # type: ignore[arg-type]
        for progress in sorted((first, second))
    )
    assert start <= early <= late <= 1
    if pacing != "sequence" and start < 1:
        assert available(0.0, pacing=pacing, start=start, growth=growth, step=step) == start  # type: ignore[arg-type]


@settings(deadline=None)
@given(start=st.floats(0.001, 0.9), growth=st.floats(1.1, 10), step=st.floats(0.001, 1))
def test_all_pacings_have_everything_at_the_same_moment(start: float, growth: float, step: float) -> None:
    for progress in np.linspace(0, 1, 41).tolist():
        whole = [
            available(progress, pacing=pacing, start=start, growth=growth, step=step) == 1  # type: ignore[arg-type]
            for pacing in ("exponential", "single_step")
        ]
        assert whole[0] == whole[1]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"pacing": "expontial"}, "pacing is 'expontial': possible are .* Did you mean 'exponential'?"),
        ({"progress": 1.1}, "progress of the curriculum is 1.1: possible are 0 to 1"),
        ({"progress": math.nan}, "progress of the curriculum is nan"),
        ({"start": 0.0}, "start of the curriculum is 0.0: possible are above 0 to 1"),
        ({"growth": 1.0}, "growth of the curriculum is 1.0: possible are numbers above 1"),
        ({"step": 0.0}, "step of the curriculum is 0.0: possible are above 0 to 1"),
    ],
)
def test_wrong_pacings_are_named(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        available(**{"progress": 0.0, "pacing": "linear"} | wrong)  # type: ignore[arg-type]


def test_a_prefix_has_at_least_one_sample_and_at_most_all() -> None:
    assert prefix_length(3, 0.001) == 1
    assert prefix_length(3, 1.0) == 3
    assert prefix_length(10, 0.25) == 3


# ------------------------------------------------------------------------------------------------ prefix batches
@st.composite
def paced(draw: st.DrawFn) -> tuple[NDArray[np.int64], list[float], list[int], int, int]:
    samples = draw(st.integers(1, 60))
    order = np.array(draw(st.permutations(range(samples))), dtype=np.int64)
    sizes = draw(st.lists(st.integers(1, 12), min_size=0, max_size=15))
    fractions = sorted(draw(st.lists(st.floats(0.01, 1), min_size=len(sizes), max_size=len(sizes))))
    return order, fractions, sizes, draw(seeds), draw(st.integers(0, 5))


@settings(deadline=None)
@given(paced())
def test_every_batch_has_its_size_and_comes_from_its_prefix_without_repeats(
    case: tuple[NDArray[np.int64], list[float], list[int], int, int],
) -> None:
    order, fractions, sizes, seed, epoch = case
    made = prefix_batches(order, fractions, sizes, seed=seed, epoch=epoch)
    assert [len(batch) for batch in made] == sizes
    for batch, fraction, size in zip(made, fractions, sizes, strict=True):
        prefix = order[: prefix_length(len(order), fraction)]
        assert batch.dtype == np.int64
        assert set(batch.tolist()) <= set(prefix.tolist())
        if size <= len(prefix):
            assert len(set(batch.tolist())) == size
        else:  # whole passes and a part of one
            counts = Counter(batch.tolist())
            assert max(counts.values()) - min(counts[row] for row in prefix.tolist()) <= 2


@settings(deadline=None)
@given(paced())
def test_the_same_arguments_give_the_same_batches(
    case: tuple[NDArray[np.int64], list[float], list[int], int, int],
) -> None:
    order, fractions, sizes, seed, epoch = case
    kept = order.copy()
    one, again = (prefix_batches(order, fractions, sizes, seed=seed, epoch=epoch) for _ in range(2))
    assert [batch.tolist() for batch in one] == [batch.tolist() for batch in again]
    assert order.tolist() == kept.tolist()
    # a later batch plays no part in an earlier one
    shorter = prefix_batches(order, fractions[:-1], sizes[:-1], seed=seed, epoch=epoch)
    assert [batch.tolist() for batch in shorter] == [batch.tolist() for batch in one[:-1]] or not sizes


@settings(deadline=None)
@given(samples=st.integers(2, 80), size=st.integers(2, 12), seed=seeds)
def test_with_everything_available_it_is_an_ordinary_epoch(samples: int, size: int, seed: int) -> None:
    order = np.arange(samples)[::-1]
    sizes = [len(batch) for batch in epoch_order(samples, size, seed=0, epoch=0)]
    made = prefix_batches(order, [1.0] * len(sizes), sizes, seed=seed, epoch=0)
    assert sorted(np.concatenate(made).tolist()) == list(range(samples))


@settings(deadline=None)
@given(samples=st.integers(4, 40), size=st.integers(1, 4), passes=st.integers(1, 4), seed=seeds)
def test_within_one_pass_no_sample_repeats(samples: int, size: int, passes: int, seed: int) -> None:
    # batches that do not fit the prefix: passes end in the middle of batches
    count = math.ceil(passes * samples / size)
    made = np.concatenate(
        prefix_batches(np.arange(samples), [1.0] * count, [size] * count, seed=seed, epoch=0)
    )
    for begin in range(0, samples * passes, samples):
        assert len(set(made[begin : begin + samples].tolist())) == samples


def test_what_becomes_available_joins_the_pass() -> None:
    # 4 of the first 5, then all 10: the pass ends with the tenth place
    made = prefix_batches(np.arange(10), [0.5, 1.0, 1.0], [4, 3, 3], seed=0, epoch=0)
    assert set(made[0].tolist()) <= set(range(5))
    assert sorted(np.concatenate(made).tolist()) == list(range(10))


def test_epochs_and_seeds_differ_and_all_samples_are_drawn_equally_often() -> None:
    order = np.arange(100)
    fractions, sizes = [0.2] * 10, [4] * 10

    def flat(seed: int, epoch: int) -> list[int]:
        return np.concatenate(prefix_batches(order, fractions, sizes, seed=seed, epoch=epoch)).tolist()

    assert len({tuple(flat(seed, epoch)) for seed in range(3) for epoch in range(3)}) == 9
    assert Counter(flat(0, 0)) == dict.fromkeys(range(20), 2)
    first = Counter(flat(seed, 0)[0] for seed in range(400))  # expected 20 each, deviation 4.4
    assert set(first) == set(range(20))
    assert max(first.values()) < 45


def test_a_real_epoch_of_a_growing_prefix_is_quick() -> None:
    batches = 500
    fractions = [available(i / batches, pacing="linear") for i in range(batches)]
    made = prefix_batches(np.arange(50_000), fractions, [100] * batches, seed=0, epoch=0)
    lengths = [prefix_length(50_000, fraction) for fraction in fractions]
    assert all(int(batch.max()) < length for batch, length in zip(made, lengths, strict=True))
    assert all(len(set(batch.tolist())) == 100 for batch in made)


def test_wrong_shares_and_sizes_are_named() -> None:
    order = np.arange(10)
    with pytest.raises(BadInput, match="with 1 shares and 2 batch sizes"):
        prefix_batches(order, [0.5], [2, 2], seed=0, epoch=0)
    with pytest.raises(BadInput, match=r"a share of the curriculum is 1\.5: possible are above 0 to 1"):
        prefix_batches(order, [1.5], [2], seed=0, epoch=0)
    with pytest.raises(BadInput, match=r"falls to 0\.5: within an epoch it may only grow"):
        prefix_batches(order, [1.0, 0.5], [2, 2], seed=0, epoch=0)
    with pytest.raises(BadInput, match="has 0 places: possible are 1 and more"):
        prefix_batches(order, [0.5], [0], seed=0, epoch=0)
    with pytest.raises(BadInput, match=r"at least one sample; got one of shape \(0,\)"):
        prefix_batches(order[:0], [0.5], [2], seed=0, epoch=0)


# ---------------------------------------------------------------------------------------------- sequence batches
@settings(deadline=None)
@given(
    sizes=st.lists(st.integers(1, 6), min_size=1, max_size=30),
    band=st.integers(1, 12),
    seed=seeds,
    epoch=st.integers(0, 3),
)
def test_a_sequence_has_every_sample_once_and_mixes_only_inside_bands(
    sizes: list[int], band: int, seed: int, epoch: int
) -> None:
    order = np.arange(sum(sizes))[::-1].copy()
    made = sequence_batches(order, sizes, band=band, seed=seed, epoch=epoch)
    assert [len(batch) for batch in made] == sizes
    assert sorted(np.concatenate(made).tolist()) == sorted(order.tolist())
    bands = [np.concatenate(made[first : first + band]) for first in range(0, len(sizes), band)]
    for easier, harder in pairwise(bands):
        assert easier.min() > harder.max()  # the list was turned round
    again = sequence_batches(order, sizes, band=band, seed=seed, epoch=epoch)
    assert [batch.tolist() for batch in made] == [batch.tolist() for batch in again]


def test_bands_are_shuffled_anew_each_epoch() -> None:
    order, sizes = np.arange(100), [5] * 20
    flat = [
        np.concatenate(sequence_batches(order, sizes, seed=0, epoch=epoch)).tolist() for epoch in range(3)
    ]
    assert len({tuple(one) for one in flat}) == 3
    assert flat[0] != sorted(flat[0])


def test_wrong_sizes_of_a_sequence_are_named() -> None:
    with pytest.raises(BadInput, match="have 9 places for 10 samples"):
        sequence_batches(np.arange(10), [4, 5], seed=0, epoch=0)
    with pytest.raises(BadInput, match="band is 0: possible are whole numbers from 1 up"):
        sequence_batches(np.arange(10), [5, 5], band=0, seed=0, epoch=0)
