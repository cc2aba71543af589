import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from understudy.data.splits import carve_test, carve_validation, limit
from understudy.errors import BadInput

seeds = st.integers(0, 2**31)
fractions = st.floats(0.001, 0.999)


@st.composite
def label_rows(draw, *, unlabelled: bool = True):
    """Labels of classes that have at least two samples each, and perhaps some unlabelled ones."""
    counts = draw(st.lists(st.integers(2, 30), min_size=1, max_size=6))
    rows = [label for label, count in enumerate(counts) for _ in range(count)]
    rows += [-1] * (draw(st.integers(0, 10)) if unlabelled else 0)
    return np.array(draw(st.permutations(rows)), dtype=np.int64)


def counts_of(labels: np.ndarray) -> dict[int, int]:
    values, counts = np.unique(labels, return_counts=True)
    return dict(zip(values.tolist(), counts.tolist(), strict=True))


@settings(max_examples=60, deadline=None)
@given(label_rows(), fractions, seeds)
@pytest.mark.parametrize("carve", [carve_validation, carve_test])
def test_every_sample_is_in_exactly_one_split_and_every_class_in_both(carve, labels, fraction, seed):
    stays, taken = carve(labels, fraction=fraction, seed=seed)
    assert sorted([*stays, *taken]) == list(range(len(labels)))
    assert list(stays) == sorted(stays)
    assert list(taken) == sorted(taken)
    assert -1 not in labels[taken]
    assert set(labels[taken]) == set(labels[labels >= 0]) == set(labels[stays][labels[stays] >= 0])


@settings(max_examples=60, deadline=None)
@given(label_rows(), fractions, seeds)
def test_validation_is_balanced_but_for_classes_that_cannot_give_more(labels, fraction, seed):
    _, taken = carve_validation(labels, fraction=fraction, seed=seed)
    has, gives = counts_of(labels[labels >= 0]), counts_of(labels[taken])
    most = max(gives.values())
    for label, count in gives.items():
        room = min(has[label] - 1, max(int(max(fraction, 0.5) * has[label] + 1e-9), 1))
        assert count in (most, room)


@settings(max_examples=60, deadline=None)
@given(label_rows(), fractions, fractions, seeds)
def test_a_larger_fraction_holds_the_smaller_one(labels, one, other, seed):
    small, large = sorted((one, other))
    for carve in (carve_validation, carve_test):
        few = carve(labels, fraction=small, seed=seed)[1]
        many = carve(labels, fraction=large, seed=seed)[1]
        assert set(few) <= set(many)


@settings(max_examples=40, deadline=None)
@given(label_rows(), fractions, seeds)
def test_the_same_seed_gives_the_same_split(labels, fraction, seed):
    for carve in (carve_validation, carve_test):
        for one, again in zip(
            carve(labels, fraction=fraction, seed=seed),
            carve(labels, fraction=fraction, seed=seed),
            strict=True,
        ):
            np.testing.assert_array_equal(one, again)


def test_another_seed_gives_another_split():
    labels = np.arange(200) % 4
    assert list(carve_validation(labels, fraction=0.2, seed=0)[1]) != list(
        carve_validation(labels, fraction=0.2, seed=1)[1]
    )


def test_unlabelled_samples_do_not_change_which_labelled_ones_are_carved():
    labels = np.arange(60) % 3
    more = np.concatenate([labels, np.full(500, -1)])
    np.testing.assert_array_equal(
        carve_validation(labels, fraction=0.1, seed=5)[1], carve_validation(more, fraction=0.1, seed=5)[1]
    )


def test_a_decimal_fraction_means_what_it_says():
    labels = np.zeros(100, dtype=np.int64)  # 0.29 * 100 is 28.999999999999996
    assert len(carve_validation(labels, fraction=0.29, seed=0)[1]) == 29


def test_without_validation_everything_is_training():
    stays, taken = carve_validation(np.array([0, 1, 1]), fraction=0.0, seed=0)
    assert list(stays) == [0, 1, 2]
    assert len(taken) == 0


def test_a_class_with_one_sample_cannot_be_split():
    with pytest.raises(
        BadInput, match=r"class 1 \(its only image is number 2\) has one training image.*validation: 0"
    ):
        carve_validation(np.array([0, 0, 1]), fraction=0.1, seed=0)
    with pytest.raises(BadInput, match="the cat has one image"):
        carve_test(np.array([0, 0, 1]), fraction=0.1, seed=0, describe=lambda row: "the cat")


def test_a_small_class_gives_at_most_half_of_its_samples():
    labels = np.array([0] * 100 + [1] * 4)
    _, taken = carve_validation(labels, fraction=0.2, seed=0)
    assert counts_of(labels[taken]) == {0: 10, 1: 2}


@settings(max_examples=60, deadline=None)
@given(npst.arrays(np.int64, st.integers(1, 60), elements=st.integers(-1, 4)), seeds, st.data())
def test_a_limit_gives_exactly_that_many_and_fewer_are_a_subset_of_more(labels, seed, data):
    many = data.draw(st.integers(0, len(labels)))
    few = data.draw(st.integers(0, many))
    kept = limit(labels, count=many, seed=seed, purpose="train_images")
    assert len(set(kept)) == len(kept) == many
    assert list(kept) == sorted(kept)
    assert set(limit(labels, count=few, seed=seed, purpose="train_images")) <= set(kept)
    if many >= len(set(labels)):
        assert set(labels[kept]) == set(labels)


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 6), st.integers(1, 12), seeds, st.data())
def test_a_limit_of_equal_classes_is_balanced(classes, each, seed, data):
    labels = np.arange(classes * each) % classes
    count = data.draw(st.integers(1, len(labels)))
    kept = np.bincount(labels[limit(labels, count=count, seed=seed, purpose="x")], minlength=classes)
    assert kept.max() - kept.min() <= 1


def test_a_limit_keeps_proportions():
    labels = np.array([0] * 600 + [1] * 300 + [-1] * 100)
    kept = labels[limit(labels, count=100, seed=3, purpose="x")]
    assert np.abs(np.array([np.sum(kept == k) for k in (0, 1, -1)]) - [60, 30, 10]).max() <= 2


@pytest.mark.parametrize("count", [-1, 4])
def test_a_limit_outside_the_set_is_a_mistake_of_ours(count):
    with pytest.raises(ValueError, match=r"0 \.\. 3"):
        limit(np.zeros(3, dtype=np.int64), count=count, seed=0, purpose="x")
