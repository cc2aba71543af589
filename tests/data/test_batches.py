from __future__ import annotations

import multiprocessing
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from understudy.data import MemoryImages, Split
from understudy.data.batches import Batch, DeviceImages, batch_of, batches, epoch_order, plain_order
from understudy.data.views import PLAIN, View, ViewPolicy, apply_view, draw_mixing, mix
from understudy.errors import BadInput, Damaged

AUGMENTED = ViewPolicy(crop=2, flip=True, erase=0.3)
MIXED = ViewPolicy(crop=2, flip=True, mixup=0.5)


@dataclass(frozen=True)
class StreamedImages:
    """One file for each image, read when it is asked for; a missing one is damaged."""

    folder: Path
    count: int
    in_memory = False

    def __len__(self) -> int:
        return self.count

    def fetch(self, index: NDArray[np.int64]) -> NDArray[np.uint8]:
        files = [self.folder / f"{position}.npy" for position in index.tolist()]
        for file in files:
            if not file.exists():
                raise Damaged(f"{file.name} cannot be read")
        return np.stack([np.load(file) for file in files])


def pixels_of(samples: int) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (samples, 8, 7, 3), dtype=np.uint8)


def labels_of(samples: int) -> NDArray[np.int64]:
    return np.arange(samples, dtype=np.int64) % 10 - 1


def kept_split(samples: int = 40) -> Split:
    return Split(images=MemoryImages(pixels_of(samples)), labels=labels_of(samples))


@pytest.fixture
def streamed_split(tmp_path: Path) -> Split:
    for position, image in enumerate(pixels_of(40)):
        np.save(tmp_path / f"{position}.npy", image)
    return Split(images=StreamedImages(tmp_path, 40), labels=labels_of(40))


def view_of(policy: ViewPolicy, *, number: int = 0) -> View:
    return View(policy=policy, seed=0, number=number)


def same(one: Batch, other: Batch) -> bool:
    for name in ("index", "pixels", "labels", "partner_labels", "share"):
        mine, others = getattr(one, name), getattr(other, name)
        if (mine is None) != (others is None):
            return False
        if mine is not None and not (mine.dtype == others.dtype and torch.equal(mine, others)):
            return False
    return True


# ------------------------------------------------------------------------------------------------------ one batch
def test_a_plain_batch_holds_the_very_pixels_and_labels() -> None:
    split, index = kept_split(), np.array([5, 0, 39, 5])
    batch = batch_of(split, PLAIN, index)
    assert batch.index.tolist() == [5, 0, 39, 5]
    assert batch.labels.tolist() == [4, -1, 8, 4]
    assert batch.index.dtype == batch.labels.dtype == torch.int64
    assert batch.pixels.dtype == torch.uint8
    assert batch.pixels.shape == (4, 3, 8, 7)
    np.testing.assert_array_equal(batch.pixels.permute(0, 2, 3, 1).numpy(), pixels_of(40)[index])
    assert batch.partner_labels is None
    assert batch.share is None


@pytest.mark.parametrize("policy", [ViewPolicy(), ViewPolicy(flip=True), AUGMENTED, MIXED])
def test_pixels_lie_channels_last(policy: ViewPolicy) -> None:
    pixels = batch_of(kept_split(), view_of(policy), np.arange(6)).pixels
    assert pixels.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("policy", [ViewPolicy(), AUGMENTED, MIXED])
def test_writing_to_a_batch_does_not_reach_the_split_or_the_order(policy: ViewPolicy) -> None:
    split, index = kept_split(), np.arange(6)
    batch = batch_of(split, view_of(policy), index)
    for tensor in (batch.index, batch.pixels, batch.labels):
        tensor.zero_()
    np.testing.assert_array_equal(split.images.fetch(np.arange(40)), pixels_of(40))
    np.testing.assert_array_equal(split.labels, labels_of(40))
    np.testing.assert_array_equal(index, np.arange(6))


def test_read_only_images_are_copied() -> None:
    kept = pixels_of(4)
    kept.flags.writeable = False

    class ReadOnly(MemoryImages):
        def fetch(self, index: np.ndarray) -> np.ndarray:
            return kept

    split = Split(images=ReadOnly(kept), labels=labels_of(4))
    batch_of(split, PLAIN, np.arange(4)).pixels.zero_()
    np.testing.assert_array_equal(kept, pixels_of(4))


@settings(max_examples=30, deadline=None)
@given(
    index=st.lists(st.integers(0, 39), min_size=1, max_size=20),
    policy=st.sampled_from([ViewPolicy(), AUGMENTED, MIXED]),
    number=st.integers(0, 3),
)
def test_a_sample_is_the_same_alone_in_any_batch_and_in_any_order(
    index: list[int], policy: ViewPolicy, number: int
) -> None:
    split, view = kept_split(), view_of(policy, number=number)
    whole = batch_of(split, view, np.arange(40))
    parts = [
        batch_of(split, view, np.array(index)),
        *(batch_of(split, view, [position]) for position in index),
    ]
    for part in parts:
        at = part.index
        expected = Batch(
            index=whole.index[at],
            pixels=whole.pixels[at],
            labels=whole.labels[at],
            partner_labels=None if whole.partner_labels is None else whole.partner_labels[at],
            share=None if whole.share is None else whole.share[at],
        )
        assert same(part, expected)


def test_a_batch_says_what_main_memory_knows_of_it() -> None:
    split, index = kept_split(), np.array([5, 0, 39, 5])
    batch = batch_of(split, view_of(MIXED), index)
    by_hand = Batch(index=batch.index, pixels=batch.pixels, labels=batch.labels)
    for one in (batch, by_hand):
        said = one.on_host()
        assert said.index.tolist() == index.tolist()
        assert said.labels.tolist() == split.labels[index].tolist()
        assert said.index.dtype == said.labels.dtype == np.int64
    halved = replace(batch, index=batch.index[:2], pixels=batch.pixels[:2], labels=batch.labels[:2])
    assert halved.on_host().index.tolist() == index[:2].tolist()
    assert halved.on_host().labels.tolist() == split.labels[index[:2]].tolist()


def test_images_on_a_device_are_images_still() -> None:
    split, index = kept_split(), np.array([3, 3, 0])
    there = DeviceImages(split, "cpu")
    assert there.in_memory
    assert len(there) == 40
    np.testing.assert_array_equal(there.fetch(index), split.images.fetch(index))
    np.testing.assert_array_equal(there.pixels.numpy(), split.images.fetch(np.arange(40)))
    np.testing.assert_array_equal(there.labels.numpy(), split.labels)


def test_mixing_takes_the_partner_as_this_view_shows_it() -> None:
    split, view, index = kept_split(), view_of(MIXED, number=4), np.array([3, 30, 3])
    batch = batch_of(split, view, index)
    partners, share = draw_mixing(view, index, samples=40)
    unmixed = view_of(ViewPolicy(crop=2, flip=True), number=4)
    own, partner = batch_of(split, unmixed, index), batch_of(split, unmixed, partners)
    expected = mix(own.pixels.permute(0, 2, 3, 1), partner.pixels.permute(0, 2, 3, 1), share)
    assert torch.equal(batch.pixels.permute(0, 2, 3, 1), expected)
    assert batch.pixels.dtype == torch.float32
    assert 0 <= batch.pixels.min() <= batch.pixels.max() <= 255
    assert torch.equal(batch.labels, own.labels)
    assert batch.partner_labels is not None
    assert torch.equal(batch.partner_labels, partner.labels)
    assert batch.share is not None
    assert batch.share.tolist() == share.tolist()


def test_the_weights_of_a_sample_and_its_partner_sum_to_one() -> None:
    batch = batch_of(kept_split(), view_of(MIXED), np.arange(40))
    assert batch.share is not None
    assert ((batch.share >= 0) & (batch.share <= 1)).all()
    white = Split(images=MemoryImages(np.full((40, 4, 4, 1), 255, np.uint8)), labels=labels_of(40))
    mixed = batch_of(white, view_of(ViewPolicy(mixup=0.5)), np.arange(40))
    assert (mixed.pixels == 255).all()


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ([], "index of shape \\(0,\\)"),
        ([[1, 2]], "index of shape \\(1, 2\\)"),
        ([1.0], "type float64"),
        ([True], "type bool"),
        ([0, -1], "sample -1 was asked for from a split of 40 samples: possible are 0 to 39"),
        ([40], "sample 40 was asked for"),
    ],
)
def test_an_index_outside_the_split_is_refused(index: list[Any], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        batch_of(kept_split(), PLAIN, index)


def test_images_of_another_type_are_refused_with_the_name_of_their_source() -> None:
    class Floats(MemoryImages):
        def fetch(self, index: np.ndarray) -> np.ndarray:
            return super().fetch(index) / 255

    split = Split(images=Floats(pixels_of(4)), labels=labels_of(4))
    with pytest.raises(BadInput, match=r"Floats.fetch gave an array of shape .* float64 for 2 samples"):
        batch_of(split, PLAIN, [0, 1])


# --------------------------------------------------------------------------------------------------- many batches
@pytest.mark.parametrize("policy", [ViewPolicy(), AUGMENTED, MIXED])
def test_streaming_gives_the_same_bytes_as_memory(policy: ViewPolicy, streamed_split: Split) -> None:
    view, orders = view_of(policy), epoch_order(40, 16, seed=1, epoch=0)
    kept = list(batches(kept_split(), view, orders))
    streamed = list(batches(streamed_split, view, orders))
    assert len(kept) == len(streamed) == len(orders)
    assert all(same(one, other) for one, other in zip(kept, streamed, strict=True))
    assert [batch.index.tolist() for batch in kept] == [order.tolist() for order in orders]


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # on a machine with one core
def test_worker_processes_give_the_same_bytes_in_order_and_use_no_global_random_numbers(
    streamed_split: Split,
) -> None:
    view, orders = view_of(MIXED), epoch_order(40, 6, seed=1, epoch=0)
    torch_state, numpy_state, python_state = torch.get_rng_state(), np.random.get_state(), random.getstate()
    made = list(batches(streamed_split, view, orders, workers=2))
    assert torch.equal(torch_state, torch.get_rng_state())
    assert str(numpy_state) == str(np.random.get_state())
    assert python_state == random.getstate()
    expected = list(batches(kept_split(), view, orders))
    assert len(made) == len(expected)
    assert all(same(one, other) for one, other in zip(made, expected, strict=True))
    assert all(batch.pixels.is_contiguous(memory_format=torch.channels_last) for batch in made)


def test_what_a_worker_finds_damaged_is_raised_as_itself_after_the_batches_before_it(
    streamed_split: Split, tmp_path: Path
) -> None:
    (tmp_path / "25.npy").unlink()
    stream = batches(streamed_split, view_of(AUGMENTED), plain_order(40, 10), workers=1)
    assert [next(stream).index[0].item() for _ in range(2)] == [0, 10]
    with pytest.raises(Damaged) as caught:
        next(stream)
    assert str(caught.value) == "25.npy cannot be read"


def test_a_stream_that_is_left_early_leaves_no_processes(streamed_split: Split) -> None:
    stream = batches(streamed_split, PLAIN, plain_order(40, 10), workers=1)
    assert next(stream).index[0] == 0
    assert multiprocessing.active_children()
    del stream
    stopped_by = time.monotonic() + 10
    while multiprocessing.active_children() and time.monotonic() < stopped_by:
        time.sleep(0.05)
    assert not multiprocessing.active_children()


def test_images_in_memory_need_no_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("understudy.data.batches.DataLoader", None)
    made = list(batches(kept_split(), PLAIN, plain_order(40, 16), workers=4))
    assert [len(batch.index) for batch in made] == [16, 16, 8]


@pytest.mark.parametrize("workers", [-1, 1.5, True, "two"])
def test_a_wrong_number_of_workers_is_refused_at_once(workers: Any) -> None:
    with pytest.raises(BadInput, match=r"workers is .* whole number from 0 up"):
        batches(kept_split(), PLAIN, plain_order(40, 16), workers=workers)


def test_no_orders_make_no_batches(streamed_split: Split) -> None:
    assert list(batches(streamed_split, PLAIN, [], workers=2)) == []


def test_making_batches_uses_no_global_random_numbers() -> None:
    torch_state, numpy_state, python_state = torch.get_rng_state(), np.random.get_state(), random.getstate()
    list(batches(kept_split(), view_of(MIXED), epoch_order(40, 16, seed=0, epoch=0)))
    assert torch.equal(torch_state, torch.get_rng_state())
    assert str(numpy_state) == str(np.random.get_state())
    assert python_state == random.getstate()


def test_transforms_give_the_same_bytes_from_worker_processes(streamed_split: Split) -> None:
    pytest.importorskip("torchvision")
    strong = ({"name": "RandomResizedCrop", "size": [6, 6]}, {"name": "TrivialAugmentWide"})
    view = view_of(ViewPolicy(transforms=strong, flip=True, mixup=0.3))
    orders = epoch_order(40, 15, seed=0, epoch=0)
    made = list(batches(streamed_split, view, orders, workers=1))
    expected = list(batches(kept_split(), view, orders))
    assert all(same(one, other) for one, other in zip(made, expected, strict=True))


# --------------------------------------------------------------------------------------------------------- orders
sizes = {"n": st.integers(0, 300), "batch_size": st.integers(2, 64)}


@given(**sizes, seed=st.integers(0, 2**40), epoch=st.integers(0, 1000))
def test_an_epoch_holds_every_sample_once(n: int, batch_size: int, seed: int, epoch: int) -> None:
    order = epoch_order(n, batch_size, seed=seed, epoch=epoch)
    everyone = np.concatenate([np.empty(0, np.int64), *order])
    assert sorted(everyone.tolist()) == list(range(n))
    assert all(batch.dtype == np.int64 for batch in order)


@given(**sizes)
def test_the_plain_order_counts_up(n: int, batch_size: int) -> None:
    order = plain_order(n, batch_size)
    assert np.concatenate([np.empty(0, np.int64), *order]).tolist() == list(range(n))


@given(**sizes)
def test_no_batch_has_one_sample_unless_there_is_only_one(n: int, batch_size: int) -> None:
    for order in (epoch_order(n, batch_size, seed=0, epoch=0), plain_order(n, batch_size)):
        lengths = [len(batch) for batch in order]
        assert all(length == batch_size for length in lengths[:-1])
        if n == 1:
            assert lengths == [1]
        elif n:
            assert 2 <= lengths[-1] <= batch_size + 1


def orders_differ(one: list[NDArray[np.int64]], other: list[NDArray[np.int64]]) -> bool:
    return not np.array_equal(np.concatenate(one), np.concatenate(other))


def test_seeds_and_epochs_have_orders_of_their_own() -> None:
    assert orders_differ(epoch_order(50, 8, seed=0, epoch=0), epoch_order(50, 8, seed=0, epoch=1))
    assert orders_differ(epoch_order(50, 8, seed=0, epoch=0), epoch_order(50, 8, seed=1, epoch=0))
    assert not orders_differ(epoch_order(50, 8, seed=2, epoch=3), epoch_order(50, 8, seed=2, epoch=3))


def test_the_batch_size_cuts_the_same_permutation_elsewhere() -> None:
    assert not orders_differ(epoch_order(50, 8, seed=0, epoch=0), epoch_order(50, 13, seed=0, epoch=0))


def first_places() -> Iterator[int]:
    for epoch in range(2000):
        yield int(epoch_order(10, 5, seed=0, epoch=epoch)[0][0])


def test_every_sample_comes_first_equally_often() -> None:
    counts = np.bincount(list(first_places()), minlength=10)
    assert abs(counts - 200).max() < 4.5 * np.sqrt(200)


@pytest.mark.parametrize("batch_size", [1, 0, -3, 2.5, True])
def test_a_batch_size_below_two_is_refused(batch_size: Any) -> None:
    for make in (plain_order, lambda n, size: epoch_order(n, size, seed=0, epoch=0)):
        with pytest.raises(BadInput, match=r"batch_size is .*whole number from 2 up"):
            make(10, batch_size)


def test_a_negative_number_of_samples_is_refused() -> None:
    with pytest.raises(BadInput, match="there cannot be -1 samples"):
        plain_order(-1, 4)


def test_a_view_of_a_split_equals_the_view_of_its_images() -> None:
    index = np.arange(10)
    images = apply_view(view_of(AUGMENTED), index, torch.from_numpy(pixels_of(40)[index]))
    batch = batch_of(kept_split(), view_of(AUGMENTED), index)
    assert torch.equal(batch.pixels.permute(0, 2, 3, 1), images)
