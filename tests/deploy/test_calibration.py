from __future__ import annotations

import numpy as np
import torch

from understudy.data.dataset import MemoryImages, Split
from understudy.deploy.calibration import CalibrationImages, SplitImages, first_images
from understudy.models.preprocessing import Preprocessing

PREPROCESSING = Preprocessing(mean=(0.5,), std=(0.25,))


def split(count: int) -> Split:
    pixels = np.arange(count * 4, dtype=np.uint8).reshape(count, 2, 2, 1)
    return Split(images=MemoryImages(pixels), labels=np.arange(count, dtype=np.int64) % 3)


def test_images_of_a_split_are_prepared_and_may_be_read_again() -> None:
    whole = split(150 // 4)
    shown = SplitImages(whole, PREPROCESSING)
    first, again = np.concatenate(list(shown)), np.concatenate(list(shown))
    np.testing.assert_array_equal(first, again)
    pixels = torch.from_numpy(whole.images.fetch(np.arange(len(whole)))).permute(0, 3, 1, 2)
    np.testing.assert_array_equal(first, PREPROCESSING(pixels).numpy())
    np.testing.assert_array_equal(shown.labels, whole.labels)
    raw = np.concatenate(list(SplitImages(whole, PREPROCESSING, inside=True)))
    np.testing.assert_array_equal(raw, pixels.numpy().astype(np.float32))


def test_some_images_of_a_split_are_spread_over_it() -> None:
    shown = SplitImages(split(37), PREPROCESSING, most=5, inside=True)
    assert [int(image[0, 0, 0]) // 4 for batch in shown for image in batch] == [0, 9, 18, 27, 36]
    assert len(shown.labels) == 5
    assert sum(len(batch) for batch in SplitImages(split(3), PREPROCESSING, most=5)) == 3
    assert list(SplitImages(split(0), PREPROCESSING, most=5)) == []


def test_calibration_images_come_one_by_one_where_the_file_takes_one() -> None:
    some = [np.zeros((3, 1, 2, 2)), np.ones((1, 2, 2))]
    reader = CalibrationImages(some, name="x", shape=[1, 1, 2, 2])
    found = []
    while (given := reader.get_next()) is not None:
        found.append(given["x"])
    assert [batch.shape for batch in found] == [(1, 1, 2, 2)] * 4
    assert {batch.dtype.name for batch in found} == {"float32"}
    assert reader.count == 4


def test_the_first_images_are_cut_from_batches() -> None:
    batches = [np.zeros((4, 1)), np.ones((4, 1)), np.ones((4, 1))]
    assert [len(batch) for batch in first_images(batches, 6)] == [4, 2]
    assert first_images(iter(batches), 0) == []
    assert sum(map(len, first_images(batches, 99))) == 12
