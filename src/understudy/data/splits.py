"""Which samples go where: pure functions of labels and a seed.

Every choice orders the samples of a class by 64 raw bits each from PCG64, whose stream numpy keeps for good
(the ``shuffle`` and ``permutation`` methods may change between numpy versions). A choice of more samples
holds every choice of fewer at the same seed. Returned rows are sorted, so that what stays keeps its order.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

import numpy as np

from understudy.data.dataset import UNLABELLED
from understudy.errors import BadInput
from understudy.randomness import numpy_stream


def shuffled_rows(labels: np.ndarray, label: int, *, seed: int, purpose: str) -> np.ndarray:
    """The rows that have ``label``, in an order that depends on seed, purpose, label and their number only."""
    rows = np.flatnonzero(labels == label)
    keys = numpy_stream(seed, purpose, label).bit_generator.random_raw(len(rows))
    return rows[np.argsort(keys, kind="stable")]


def _exact(fraction: float) -> Fraction:
    # 0.29 means 29/100 here: as a binary fraction, 100 samples of it would be 28
    return Fraction(repr(float(fraction)))


def _rest(total: int, taken: np.ndarray) -> np.ndarray:
    stays = np.ones(total, dtype=bool)
    stays[taken] = False
    return np.flatnonzero(stays)


def _name_of_row(labels: np.ndarray) -> Callable[[int], str]:
    return lambda row: f"class {labels[row]} (its only image is number {row})"


def carve_validation(
    labels: np.ndarray, *, fraction: float, seed: int, describe: Callable[[int], str] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Splits training data into what is trained on and a balanced validation split.

    With ``n`` labelled samples of ``classes`` classes, every class gives ``floor(fraction * n / classes)``
    samples, at least one. A class gives no more than half of its own samples (or ``fraction`` of them,
    where that is more) and always keeps one; what a small class cannot give, no other class gives for it.

    Args:
        labels: ``(n,)`` int64; -1 = unlabelled, always stays in training.
        fraction: of the labelled samples, in [0, 1); 0 carves nothing.
        seed: the split varies with this seed and with the labels, with nothing else.
        describe: names the class of a row for an error message.

    Returns:
        ``(train_rows, validation_rows)``, each sorted int64.

    Raises:
        BadInput: a class has a single sample, so it cannot be in both splits.

    >>> train, validation = carve_validation(np.arange(40) % 4, fraction=0.1, seed=0)
    >>> len(train), len(validation)
    (36, 4)
    """
    classes, counts = np.unique(labels[labels != UNLABELLED], return_counts=True)
    if fraction == 0 or not len(classes):
        return np.arange(len(labels)), np.zeros(0, dtype=np.int64)
    share = _exact(fraction)
    wanted = max(1, int(share * int(counts.sum()) / len(classes)))
    taken = []
    for label, count in zip(classes.tolist(), counts.tolist(), strict=True):
        rows = shuffled_rows(labels, label, seed=seed, purpose="validation")
        if count == 1:
            named = (describe or _name_of_row(labels))(int(rows[0]))
            raise BadInput(
                f"{named} has one training image, which cannot be in the training and in the validation split: "
                f"add images, remove the class, or set validation: 0"
            )
        most = min(count - 1, max(int(max(share, Fraction(1, 2)) * count), 1))
        taken.append(rows[: min(wanted, most)])
    validation = np.sort(np.concatenate(taken))
    return _rest(len(labels), validation), validation


def carve_test(
    labels: np.ndarray, *, fraction: float, seed: int, describe: Callable[[int], str] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Splits a set that has no test split, class by class in proportion.

    A class of ``count`` samples gives ``fraction * count`` of them, rounded half up, at least one and never all.

    Args:
        labels: ``(n,)`` int64; -1 = unlabelled, always stays in training.
        fraction: in (0, 1).
        seed: the split varies with this seed and with the labels, with nothing else.
        describe: names the class of a row for an error message.

    Returns:
        ``(train_rows, test_rows)``, each sorted int64.

    Raises:
        BadInput: a class has a single sample.
    """
    taken = [np.zeros(0, dtype=np.int64)]
    for label in np.unique(labels[labels != UNLABELLED]).tolist():
        rows = shuffled_rows(labels, label, seed=seed, purpose="test")
        if len(rows) == 1:
            named = (describe or _name_of_row(labels))(int(rows[0]))
            raise BadInput(
                f"{named} has one image, which cannot be in the training and in the test split: "
                f"add images or remove the class"
            )
        wanted = int(_exact(fraction) * len(rows) + Fraction(1, 2))
        taken.append(rows[: min(max(wanted, 1), len(rows) - 1)])
    test = np.sort(np.concatenate(taken))
    return _rest(len(labels), test), test


def limit(labels: np.ndarray, *, count: int, seed: int, purpose: str) -> np.ndarray:
    """``count`` samples that keep the proportions of the classes, as near as whole samples allow.

    Every class gives its first sample before any gives its second, so none is lost while ``count`` is at
    least their number. Fewer samples are a subset of more samples. Unlabelled samples (-1) count as one
    further class.

    Args:
        labels: ``(n,)`` int64.
        count: how many to keep, 0 .. n.
        seed: the choice varies with this seed.
        purpose: names the random stream.

    Returns:
        ``(count,)`` int64, sorted.
    """
    if not 0 <= count <= len(labels):
        raise ValueError(f"count must be in 0 .. {len(labels)}; got {count}")
    place = np.zeros(len(labels))  # 0 = first of its class, up to 1 = last of its class
    turn = np.zeros(len(labels), dtype=np.uint64)  # which class goes first where places are equal
    for label in np.unique(labels).tolist():
        rows = shuffled_rows(labels, label, seed=seed, purpose=purpose)
        place[rows] = (np.arange(len(rows)) + 0.5) / len(rows)
        place[rows[0]] = 0.0
        raw = numpy_stream(seed, purpose + " turn", label).bit_generator.random_raw(1)
        turn[rows] = np.uint64(2**64 - 1) if label == UNLABELLED else raw[0]
    return np.sort(np.lexsort((np.arange(len(labels)), turn, place))[:count])
