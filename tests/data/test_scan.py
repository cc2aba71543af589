import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from understudy.data.scan import fingerprint, mean_and_std, scan_pixels

images = npst.arrays(
    np.uint8, st.tuples(st.integers(1, 6), st.integers(1, 4), st.integers(1, 4), st.sampled_from([1, 3]))
)


def of(pixels: np.ndarray, labels: np.ndarray | None = None, **changes: int) -> str:
    labels = np.arange(len(pixels)) if labels is None else labels
    shape = {"height": pixels.shape[1], "width": pixels.shape[2], "channels": pixels.shape[3], "classes": 9}
    return fingerprint(
        [("train", labels, scan_pixels(pixels, np.arange(len(pixels))))], **{**shape, **changes}
    )


@settings(max_examples=60, deadline=None)
@given(images)
def test_mean_and_deviation_are_those_of_numpy(pixels):
    mean, std = mean_and_std(scan_pixels(pixels, np.arange(len(pixels))))
    scaled = pixels.astype(np.float64) / 255
    np.testing.assert_allclose(mean, scaled.mean(axis=(0, 1, 2)), rtol=1e-12)
    expected = scaled.std(axis=(0, 1, 2))
    constant = pixels.min(axis=(0, 1, 2)) == pixels.max(axis=(0, 1, 2))
    np.testing.assert_allclose(std, np.where(constant, 1 / 255, expected), rtol=1e-9)


@settings(max_examples=40, deadline=None)
@given(images, st.randoms())
def test_the_order_of_images_does_not_change_a_bit_of_mean_and_deviation(pixels, random):
    order = list(range(len(pixels)))
    random.shuffle(order)
    assert mean_and_std(scan_pixels(pixels, np.arange(len(pixels)))) == mean_and_std(
        scan_pixels(pixels, np.array(order))
    )


def test_a_channel_that_never_varies_is_divided_by_one_grey_level():
    mean, std = mean_and_std(scan_pixels(np.full((3, 2, 2, 1), 255, dtype=np.uint8), np.arange(3)))
    assert mean == (1.0,)
    assert std == (1 / 255,)


def test_more_images_than_a_block_are_all_measured():
    pixels = np.random.default_rng(0).integers(0, 256, (1500, 2, 2, 3), dtype=np.uint8)
    rows = np.arange(1499, -1, -1)
    whole = scan_pixels(pixels, rows)
    np.testing.assert_array_equal(whole.sums, pixels[rows].sum(axis=(1, 2), dtype=np.int64))
    np.testing.assert_array_equal(whole.select(np.array([7])).digests, scan_pixels(pixels, rows[7:8]).digests)


@settings(max_examples=40, deadline=None)
@given(images, st.data())
def test_any_changed_pixel_changes_the_fingerprint(pixels, data):
    before = of(pixels)
    changed = pixels.copy()
    place = tuple(data.draw(st.integers(0, side - 1)) for side in pixels.shape)
    changed[place] ^= 1
    assert of(pixels.copy()) == before
    assert of(changed) != before


@pytest.mark.parametrize("change", [{"height": 4}, {"width": 4}, {"channels": 1}, {"classes": 10}])
def test_the_shape_is_part_of_the_fingerprint(change):
    pixels = np.zeros((2, 5, 5, 3), dtype=np.uint8)
    assert of(pixels, **change) != of(pixels)


def test_labels_order_and_split_are_part_of_the_fingerprint():
    pixels = np.arange(4 * 3, dtype=np.uint8).reshape(4, 1, 1, 3)
    labels = np.array([0, 0, 1, 1])
    shape = {"height": 1, "width": 1, "channels": 3, "classes": 2}
    scan = scan_pixels(pixels, np.arange(4))
    seen = {
        of(pixels, labels),
        of(pixels, 1 - labels),
        of(pixels[[1, 0, 2, 3]], labels),
        fingerprint([("test", labels, scan)], **shape),
        fingerprint(
            [
                ("train", labels[:2], scan.select(np.arange(2))),
                ("test", labels[2:], scan.select(np.arange(2, 4))),
            ],
            **shape,
        ),
        fingerprint(
            [
                ("train", labels[:3], scan.select(np.arange(3))),
                ("test", labels[3:], scan.select(np.arange(3, 4))),
            ],
            **shape,
        ),
    }
    assert len(seen) == 6
