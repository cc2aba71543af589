"""The handwritten digits that ship with scikit-learn: 1797 grey images of 8 by 8, no download."""

from __future__ import annotations

import numpy as np

from understudy.data.arrays import ArraySource
from understudy.data.splits import carve_test

_TEST_SEED = 1797  # never changes: every result on the digits is on the same test images


def digits_source() -> ArraySource:
    """896 training and 901 test images, ten classes.

    Grey levels 0 .. 16 become 0 .. 255 by ``255 * value / 16``, rounded half up. Images stay in the
    official order. scikit-learn gives one set; half of every digit's images, chosen once and for all, are
    the test split, whatever ``split_seed`` is.

    Source: Alpaydin & Kaynak 1998, "Optical Recognition of Handwritten Digits", UCI Machine Learning
    Repository (the test part of that set, as scikit-learn embeds it).
    """
    from sklearn.datasets import load_digits

    digits = load_digits()
    levels = digits.images.astype(np.int64)  # (1797, 8, 8), whole numbers 0 .. 16
    pixels = ((levels * 255 + 8) // 16).astype(np.uint8)[..., None]
    labels = digits.target.astype(np.int64)
    train, test = carve_test(labels, fraction=0.5, seed=_TEST_SEED)
    return ArraySource(
        name="digits",
        class_names=tuple(str(digit) for digit in range(10)),
        labels={"train": labels[train], "test": labels[test]},
        pixels={"train": pixels[train], "test": pixels[test]},
    )
