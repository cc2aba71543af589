"""How many training images the classes have: a profile that makes a set long-tailed, and names for what is rare."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from understudy.data.dataset import UNLABELLED
from understudy.data.splits import shuffled_rows
from understudy.errors import BadInput, listed, suggestion

Profile = Literal["exp", "step"]
GROUPS = ("many", "medium", "few")
"""Classes by their training images: more than 100, 20 to 100, fewer than 20."""

IMBALANCED = 3  # a class with so many times the images of another one makes a set imbalanced; our choice


@dataclass(frozen=True, kw_only=True)
class LongTail:
    """How training images are left out of a set, so that its classes have fewer and fewer.

    Attributes:
        imbalance: images of the largest class for one of the smallest, 1 or more.
        profile: ``exp``: from class to class the same factor; ``step``: the first half of the classes stays whole, the
            second half has ``imbalance`` times fewer.

    Raises:
        BadInput: an argument cannot be used.
    """

    imbalance: float
    profile: Profile = "exp"

    def __post_init__(self) -> None:
        _check(self.imbalance, self.profile)


def class_counts(classes: int, *, largest: int, imbalance: float, profile: Profile = "exp") -> list[int]:
    """Images of each class of a long-tailed set; the order of the classes is the order of their frequency.

    With f = 1 / imbalance, class c of C has int(largest * f**(c / (C - 1))) images under ``exp``. Under ``step`` the
    first half has ``largest`` and the second half int(largest * f). With an odd number of classes the second half is
    the larger one.

    Args:
        classes: how many, 1 or more.
        largest: images of the first class.
        imbalance: images of the first class for one of the last, 1 or more.
        profile: ``exp`` or ``step``.

    Raises:
        BadInput: a class would have no image, or an argument cannot be used.

    References:
        Cui et al. 2019, arXiv:1901.05555, and Cao et al. 2019, arXiv:1906.07413: long-tailed CIFAR. Rounding errors of
        the power are forgiven here, so that 50 images at an imbalance of 50 are one image; for the CIFAR sets this
        changes no count at whole imbalances up to 3000.

    >>> class_counts(10, largest=5000, imbalance=100)
    [5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50]
    >>> class_counts(4, largest=30, imbalance=10, profile="step")
    [30, 30, 3, 3]
    """
    _check(imbalance, profile)
    if profile == "step":
        shares = [1.0 if label < max(1, classes // 2) else 1 / imbalance for label in range(classes)]
    else:
        shares = [(1 / imbalance) ** (label / max(1, classes - 1)) for label in range(classes)]
    counts = [int(largest * share + 1e-9) for share in shares]
    if min(counts) < 1:
        raise BadInput(
            f"long_tail.imbalance is {imbalance:g}; the largest class has {largest} training images, so the smallest "
            f"would have none. Possible: 1 to {largest}"
        )
    return counts


def long_tailed(
    labels: np.ndarray,
    long_tail: LongTail,
    *,
    classes: int,
    seed: int,
    describe: Callable[[int], str] = lambda label: f"class {label}",
) -> np.ndarray:
    """The training images that a long-tailed set keeps: a larger imbalance keeps some of those of a smaller one.

    The largest class is as large as the smallest of those that the profile leaves whole: the first class under
    ``exp``, the first half under ``step``. In a balanced set this is the size of every class. Sets whose classes
    differ a little, as those of digits do, need no balancing first; the papers' sets are balanced.

    Args:
        labels: ``(n,)`` int64; -1 = unlabelled, which are left out.
        long_tail: which profile.
        classes: their number.
        seed: which images of a class stay; the choice varies with this seed and with the labels, with nothing else.
        describe: names a class in an error message.

    Returns:
        rows, sorted int64.

    Raises:
        BadInput: a class has fewer images than the profile asks for, or would have none.

    >>> len(long_tailed(np.arange(400) % 4, LongTail(imbalance=100), classes=4, seed=0))
    126
    """
    there = class_sizes(labels, classes=classes)
    whole = max(1, classes // 2) if long_tail.profile == "step" else 1
    smallest = min(range(whole), key=there.__getitem__)
    if not there[smallest]:
        raise BadInput(
            f"long_tail.profile {long_tail.profile} leaves {describe(smallest)} whole, which has no training image: "
            f"add images or remove the class"
        )
    wanted = class_counts(
        classes, largest=there[smallest], imbalance=long_tail.imbalance, profile=long_tail.profile
    )
    taken = []
    for label, (count, has) in enumerate(zip(wanted, there, strict=True)):
        if has < count:
            raise BadInput(
                f"long_tail.imbalance is {long_tail.imbalance:g}; {describe(label)} has {has} training images and the "
                f"profile asks for {count}: add images, remove the class, or set a larger imbalance"
            )
        taken.append(shuffled_rows(labels, label, seed=seed, purpose="long tail")[:count])
    return np.sort(np.concatenate(taken))


def class_sizes(labels: np.ndarray, *, classes: int) -> list[int]:
    """Images of each class; unlabelled ones count for none.

    >>> class_sizes(np.array([0, 2, 2, -1]), classes=3)
    [1, 0, 2]
    """
    return [int(count) for count in np.bincount(labels[labels != UNLABELLED], minlength=classes)]


def is_imbalanced(counts: Sequence[int]) -> bool:
    """Whether the largest class has at least three times the images of the smallest that has any.

    >>> is_imbalanced([30, 11, 10]), is_imbalanced([29, 11, 10])
    (True, False)
    """
    there = [count for count in counts if count]
    return bool(there) and max(there) >= IMBALANCED * min(there)


def group_of(count: int) -> str:
    """``many``, ``medium`` or ``few``: what a class with so many training images belongs to.

    References:
        Liu et al. 2019, arXiv:1904.05160: many-, medium- and few-shot classes; the limits as in the code of Kang et
        al. 2020, arXiv:1910.09217.

    >>> [group_of(count) for count in (101, 100, 20, 19, 0)]
    ['many', 'medium', 'medium', 'few', 'few']
    """
    return "many" if count > 100 else "medium" if count >= 20 else "few"


def note_on(counts: Sequence[int]) -> list[str]:
    """A sentence on the sizes of classes that differ much; none where they do not."""
    if not is_imbalanced(counts):
        return []
    least, most = min(count for count in counts if count), max(counts)
    return [
        f"Classes have {least} to {most} training images ({most / least:.3g} to 1): "
        f"see teaching.balance and training.sampling."
    ]


def _check(imbalance: float, profile: str) -> None:
    number = isinstance(imbalance, int | float | np.integer | np.floating) and not isinstance(imbalance, bool)
    if not number or not math.isfinite(imbalance) or imbalance < 1:
        raise BadInput(
            f"long_tail.imbalance is {imbalance!r}; it is how many images the largest class has for one of the "
            f"smallest, 1 or more, such as 100"
        )
    if profile not in get_args(Profile):
        raise BadInput(
            f"long_tail.profile is {profile!r}; it can be {listed(get_args(Profile))}."
            f"{suggestion(str(profile), get_args(Profile))}"
        )
