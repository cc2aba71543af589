"""Profiles of long-tailed sets, which images they keep, and what is called rare."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from understudy.data import Dataset, load
from understudy.data.long_tail import (
    LongTail,
    class_counts,
    class_sizes,
    group_of,
    is_imbalanced,
    long_tailed,
    note_on,
)
from understudy.errors import BadInput

profiles = st.sampled_from(["exp", "step"])


def balanced(classes: int, each: int) -> np.ndarray:
    return np.arange(classes * each) % classes


# ------------------------------------------------------------------------------------------------------- profiles
@pytest.mark.parametrize(
    ("classes", "largest", "imbalance", "images"),
    [
        (10, 5000, 100, 12_406),
        (10, 5000, 50, 13_996),
        (10, 5000, 10, 20_431),
        (10, 5000, 200, 11_203),
        (100, 500, 100, 10_847),
        (100, 500, 50, 12_608),
        (100, 500, 10, 19_573),
        (100, 500, 200, 9_502),
    ],
)
def test_long_tailed_cifar_has_the_sizes_of_the_papers(
    classes: int, largest: int, imbalance: float, images: int
) -> None:
    assert sum(class_counts(classes, largest=largest, imbalance=imbalance)) == images


def test_long_tailed_cifar_10_has_the_classes_of_the_papers() -> None:
    assert class_counts(10, largest=5000, imbalance=100) == [
        5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50,
    ]  # fmt: skip
    hundred = class_counts(100, largest=500, imbalance=100)
    assert (hundred[0], hundred[-1]) == (500, 5)


@pytest.mark.parametrize(("imbalance", "images"), [(10, 27_500), (100, 25_250)])
def test_steps_have_the_sizes_of_the_papers(imbalance: float, images: int) -> None:
    assert sum(class_counts(10, largest=5000, imbalance=imbalance, profile="step")) == images
    assert sum(class_counts(100, largest=500, imbalance=imbalance, profile="step")) == images


@settings(max_examples=200, deadline=None)
@given(st.integers(2, 60), st.integers(1, 3000), st.floats(1, 3000), profiles)
def test_counts_fall_from_the_largest_to_the_smallest(
    classes: int, largest: int, imbalance: float, profile: Any
) -> None:
    if imbalance > largest:
        with pytest.raises(BadInput, match=f"would have none. Possible: 1 to {largest}"):
            class_counts(classes, largest=largest, imbalance=imbalance, profile=profile)
        return
    counts = class_counts(classes, largest=largest, imbalance=imbalance, profile=profile)
    assert counts == sorted(counts, reverse=True)
    assert counts[0] == largest
    assert counts[-1] == pytest.approx(largest / imbalance, abs=1)
    assert min(counts) >= 1


@pytest.mark.parametrize("profile", ["exp", "step"])
def test_no_imbalance_leaves_all_and_one_class_is_never_cut(profile: Any) -> None:
    assert class_counts(4, largest=7, imbalance=1, profile=profile) == [7] * 4
    assert class_counts(1, largest=7, imbalance=5, profile=profile) == [7]


def test_rounding_errors_take_no_image_away() -> None:
    assert 49 * (1 / 49) < 1  # why
    assert class_counts(10, largest=49, imbalance=49)[-1] == 1


# --------------------------------------------------------------------------------------------- which images stay
@settings(max_examples=60, deadline=None)
@given(
    st.integers(2, 8), st.integers(20, 40), st.floats(1, 20), st.floats(1, 20), profiles, st.integers(0, 99)
)
def test_a_larger_imbalance_keeps_some_of_the_images_of_a_smaller_one(
    classes: int, each: int, one: float, other: float, profile: Any, seed: int
) -> None:
    labels = balanced(classes, each)
    small, large = (
        long_tailed(labels, LongTail(imbalance=imbalance, profile=profile), classes=classes, seed=seed)
        for imbalance in sorted((one, other))
    )
    assert set(large) <= set(small)
    assert large.tolist() == sorted(large)
    assert class_sizes(labels[large], classes=classes) == class_counts(
        classes, largest=each, imbalance=max(one, other), profile=profile
    )


def test_the_choice_is_of_the_seed_alone() -> None:
    labels, tail = balanced(5, 40), LongTail(imbalance=10)
    first = long_tailed(labels, tail, classes=5, seed=0).tolist()
    assert long_tailed(labels, tail, classes=5, seed=0).tolist() == first
    assert long_tailed(labels, tail, classes=5, seed=1).tolist() != first


def test_classes_that_differ_a_little_are_cut_to_what_the_whole_ones_have() -> None:
    labels = np.repeat([0, 1, 2, 3], [30, 33, 31, 32])
    kept = long_tailed(labels, LongTail(imbalance=10), classes=4, seed=0)
    assert class_sizes(labels[kept], classes=4) == class_counts(4, largest=30, imbalance=10)
    steps = long_tailed(labels[::-1], LongTail(imbalance=10, profile="step"), classes=4, seed=0)
    assert class_sizes(labels[::-1][steps], classes=4) == [30, 30, 3, 3]


def test_unlabelled_images_are_left_out() -> None:
    labels = np.concatenate([balanced(3, 20), np.full(9, -1)])
    kept = long_tailed(labels, LongTail(imbalance=4), classes=3, seed=0)
    assert -1 not in labels[kept]


def test_a_set_that_is_imbalanced_already_works_where_its_classes_suffice() -> None:
    labels = np.repeat([0, 1, 2], [100, 40, 10])
    kept = long_tailed(labels, LongTail(imbalance=20), classes=3, seed=0)
    assert class_sizes(labels[kept], classes=3) == [100, 22, 5]


@pytest.mark.parametrize(
    ("counts", "tail", "said"),
    [
        (
            [100, 20, 10],
            LongTail(imbalance=4),
            "long_tail.imbalance is 4; class 1 has 20 training images and the profile asks for 50: "
            "add images, remove the class, or set a larger imbalance",
        ),
        (
            [10, 100, 100],
            LongTail(imbalance=50),
            "long_tail.imbalance is 50; the largest class has 10 training images, so the smallest would have none. "
            "Possible: 1 to 10",
        ),
        (
            [0, 100, 100],
            LongTail(imbalance=2),
            "long_tail.profile exp leaves class 0 whole, which has no training image: add images or remove the class",
        ),
    ],
)
def test_classes_that_do_not_suffice_are_one_clear_line(counts: list[int], tail: LongTail, said: str) -> None:
    with pytest.raises(BadInput) as caught:
        long_tailed(np.repeat(np.arange(3), counts), tail, classes=3, seed=0)
    assert str(caught.value) == said


@pytest.mark.parametrize("imbalance", [0.5, 0, -3, math.inf, math.nan, True, "100"])
def test_an_imbalance_is_a_number_from_one(imbalance: Any) -> None:
    with pytest.raises(BadInput, match=r"^long_tail.imbalance is .*; it is how many images .* such as 100$"):
        LongTail(imbalance=imbalance)


def test_a_profile_is_one_of_two() -> None:
    with pytest.raises(BadInput) as caught:
        LongTail(imbalance=10, profile="expo")  # type: ignore[arg-type]
    assert str(caught.value) == "long_tail.profile is 'expo'; it can be exp, step. Did you mean 'exp'?"


# -------------------------------------------------------------------------------------------------------- loading
def digits(**more: Any) -> Dataset:
    return load(name="digits", **more)


def test_the_validation_split_is_carved_before_and_test_images_stay() -> None:
    whole, tailed = digits(), digits(long_tail=LongTail(imbalance=10))
    assert tailed.validation.labels.tolist() == whole.validation.labels.tolist()
    assert tailed.test.labels.tolist() == whole.test.labels.tolist()
    assert class_sizes(tailed.train.labels, classes=10) == class_counts(10, largest=81, imbalance=10)


def test_samples_are_found_in_the_source_as_before() -> None:
    whole, tailed = digits(), digits(long_tail=LongTail(imbalance=20, profile="step"))
    assert whole.train.origin is not None
    assert tailed.train.origin is not None
    assert set(tailed.train.origin.rows) < set(whole.train.origin.rows)
    place = {row: position for position, row in enumerate(whole.train.origin.rows.tolist())}
    positions = np.array([place[row] for row in tailed.train.origin.rows.tolist()])
    assert (tailed.train.labels == whole.train.labels[positions]).all()
    same = whole.train.images.fetch(positions) == tailed.train.images.fetch(np.arange(len(positions)))
    assert same.all()


def test_the_fingerprint_follows_and_other_arguments_leave_it_alone() -> None:
    prints = {
        digits(long_tail=tail).fingerprint
        for tail in (
            None,
            LongTail(imbalance=10),
            LongTail(imbalance=20),
            LongTail(imbalance=10, profile="step"),
        )
    }
    assert len(prints) == 4
    assert digits(long_tail=LongTail(imbalance=10.0)).fingerprint in prints


def test_the_limit_on_training_images_applies_before_the_profile() -> None:
    tailed = digits(train_images=200, long_tail=LongTail(imbalance=5))
    assert class_sizes(tailed.train.labels, classes=10) == class_counts(
        10, largest=class_sizes(digits(train_images=200).train.labels, classes=10)[0], imbalance=5
    )


def test_what_was_left_out_and_what_differs_is_said() -> None:
    tailed = digits(long_tail=LongTail(imbalance=10))
    assert tailed.notes[-2:] == (
        f"long_tail keeps {len(tailed.train)} of 816 training images.",
        "Classes have 8 to 81 training images (10.1 to 1): see teaching.balance and training.sampling.",
    )
    assert not [note for note in digits().notes if "training.sampling" in note]


def test_a_set_that_is_imbalanced_by_itself_says_so_and_unlabelled_images_are_counted(tmp_path: Path) -> None:
    labels = np.repeat([0, 1, -1], [30, 10, 4])
    path = tmp_path / "data.npz"
    pixels = np.random.default_rng(0).integers(0, 256, (44, 8, 8), dtype=np.uint8)
    np.savez(path, x_train=pixels, y_train=labels, x_test=pixels[:2], y_test=labels[:2] * 0 + [0, 1])
    own = load(path=path, validation=0)
    assert own.notes[-1].startswith("Classes have 10 to 30 training images (3 to 1)")
    tailed = load(path=path, validation=0, long_tail=LongTail(imbalance=6))
    assert "long_tail leaves out the 4 unlabelled images." in tailed.notes
    assert class_sizes(tailed.train.labels, classes=2) == [30, 5]
    assert len(tailed.train) == 35


def test_a_class_that_is_too_small_is_called_by_its_name(tmp_path: Path) -> None:
    path = tmp_path / "data.npz"
    labels = np.repeat([0, 1], [30, 10])
    np.savez(path, x_train=np.zeros((40, 8, 8), np.uint8), y_train=labels, x_test=np.zeros((2, 8, 8), np.uint8), y_test=[0, 1])  # fmt: skip
    with pytest.raises(BadInput) as caught:
        load(path=path, validation=0, long_tail=LongTail(imbalance=2))
    assert re.match(
        r"long_tail.imbalance is 2; class '1' has 10 training images and .* 15", str(caught.value)
    )


# ----------------------------------------------------------------------------------------------- what is called rare
def test_groups_are_those_of_the_papers() -> None:
    assert [group_of(count) for count in (5000, 101, 100, 20, 19, 1)] == [
        "many", "many", "medium", "medium", "few", "few",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ([3, 1], True),
        ([2, 1], False),
        ([], False),
        ([0, 0], False),
        ([0, 1], False),
        ([0, 3, 1], True),
        ([7], False),
    ],
)
def test_three_to_one_is_imbalanced(counts: list[int], expected: bool) -> None:
    assert is_imbalanced(counts) is expected
    assert bool(note_on(counts)) is expected


def test_the_note_gives_the_ratio_among_classes_that_have_images() -> None:
    assert note_on([500, 0, 5]) == [
        "Classes have 5 to 500 training images (100 to 1): see teaching.balance and training.sampling."
    ]
