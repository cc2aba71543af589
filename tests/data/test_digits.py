import hashlib

import numpy as np
import pytest
from sklearn.datasets import load_digits

from understudy.data import load
from understudy.errors import BadInput


def test_all_1797_images_are_there_once_scaled_to_255():
    digits = load(name="digits", validation=0)
    official = load_digits()
    train = digits.train.images.fetch(np.arange(len(digits.train)))
    test = digits.test.images.fetch(np.arange(len(digits.test)))
    assert len(train) + len(test) == 1797
    assert train.shape[1:] == (8, 8, 1)
    here = sorted(image.tobytes() for image in np.concatenate([train, test]))
    there = sorted(np.floor(i * 255 / 16 + 0.5).astype(np.uint8).tobytes() for i in official.images)
    assert here == there
    assert train.max() == 255
    assert digits.class_names == tuple("0123456789")


def test_the_test_split_never_changes():
    digits = load(name="digits")
    labels = hashlib.sha256(digits.test.labels.tobytes()).hexdigest()
    pixels = hashlib.sha256(digits.test.images.fetch(np.arange(len(digits.test))).tobytes()).hexdigest()
    assert (labels[:16], pixels[:16]) == (
        "ab06962e2f0bc083",
        "c754dadf5eaadc44",
    )  # kept on purpose: results must stay comparable
    for changed in (load(name="digits", split_seed=7), load(name="digits", train_images=100, validation=0)):
        np.testing.assert_array_equal(changed.test.labels, digits.test.labels)
        np.testing.assert_array_equal(
            changed.test.images.fetch(np.arange(901)), digits.test.images.fetch(np.arange(901))
        )


def test_about_half_of_every_digit_is_for_testing():
    digits = load(name="digits", validation=0)
    train, test = (np.bincount(split.labels, minlength=10) for split in (digits.train, digits.test))
    assert np.abs(train - test).max() <= 1


def test_validation_is_balanced_and_moves_with_the_split_seed():
    digits = load(name="digits")
    assert np.bincount(digits.validation.labels).tolist() == [8] * 10
    assert load(name="digits", split_seed=1).fingerprint != digits.fingerprint
    assert load(name="digits", split_seed=0).fingerprint == digits.fingerprint


def test_fewer_training_images_are_a_subset_and_leave_validation_alone():
    whole, some, few = (load(name="digits", train_images=count) for count in (None, 300, 100))

    def images(data):
        return {image.tobytes() for image in data.train.images.fetch(np.arange(len(data.train)))}

    assert len(few.train) == 100
    assert np.bincount(few.train.labels).tolist() == [10] * 10
    assert images(few) <= images(some) <= images(whole)
    for data in (some, few):
        np.testing.assert_array_equal(
            data.validation.images.fetch(np.arange(80)), whole.validation.images.fetch(np.arange(80))
        )


@pytest.mark.parametrize("count", [817, 9, 0])
def test_a_number_of_training_images_that_cannot_be_had_is_refused(count):
    with pytest.raises(BadInput, match=rf"train_images is {count}; it"):
        load(name="digits", train_images=count)
