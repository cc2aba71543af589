import numpy as np
import pytest

from understudy.data.dataset import MemoryImages, Split


def pixels(count: int = 5) -> np.ndarray:
    return np.arange(count * 2 * 3 * 3, dtype=np.uint8).reshape(count, 2, 3, 3)


def test_images_come_back_at_the_positions_asked_for():
    images = MemoryImages(pixels(), rows=np.array([4, 0, 2]))
    fetched = images.fetch(np.array([2, 0, 0]))
    np.testing.assert_array_equal(fetched, pixels()[[2, 4, 4]])
    assert len(images) == 3
    assert fetched.flags.c_contiguous
    assert fetched.dtype == np.uint8


def test_what_is_fetched_belongs_to_the_caller():
    images = MemoryImages(pixels())
    images.fetch(np.array([1]))[:] = 0
    np.testing.assert_array_equal(images.fetch(np.array([1])), pixels()[[1]])
    with pytest.raises(ValueError, match="read-only"):
        images.pixels[0] = 0


def test_fetching_nothing_gives_an_empty_block_of_the_right_shape():
    assert MemoryImages(pixels()).fetch(np.zeros(0, dtype=np.int64)).shape == (0, 2, 3, 3)


@pytest.mark.parametrize("index", [[-1], [5], [0, 9], [0.5], [[0]]])
def test_a_position_outside_is_refused(index):
    with pytest.raises(IndexError):
        MemoryImages(pixels()).fetch(np.array(index))


def test_pixels_of_another_type_or_shape_are_refused():
    with pytest.raises(ValueError, match="uint8"):
        MemoryImages(np.zeros((2, 2, 2, 3)))
    with pytest.raises(ValueError, match="uint8"):
        MemoryImages(np.zeros((2, 2, 2), dtype=np.uint8))


def test_a_split_needs_one_whole_label_for_each_image():
    images = MemoryImages(pixels())
    assert len(Split(images=images, labels=np.arange(5))) == 5
    for labels in (np.arange(4), np.arange(5.0), np.zeros((5, 1), dtype=np.int64)):
        with pytest.raises(ValueError, match="labels must be int64"):
            Split(images=images, labels=labels)


def test_labels_of_a_split_cannot_be_changed():
    split = Split(images=MemoryImages(pixels()), labels=np.arange(5))
    with pytest.raises(ValueError, match="read-only"):
        split.labels[0] = 3
