"""Batches of a split under a view: one function makes them, whoever asks and wherever the images are kept."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as LoaderDataset

from understudy import processes
from understudy.data.views import View, apply_view, draw_mixing, mix
from understudy.errors import BadInput, UnderstudyError
from understudy.randomness import numpy_stream

if TYPE_CHECKING:
    from understudy.data.dataset import Images, Split

_Any = TypeVar("_Any")
_COPIED = 1 << 13  # images that are copied to a device at once


@dataclass(frozen=True, kw_only=True, eq=False)
class OnHost:
    """What main memory holds of a batch, wherever its tensors are.

    Attributes:
        index: ``(batch,)`` int64, as in the batch.
        labels: ``(batch,)`` int64, likewise.
    """

    index: NDArray[np.int64]
    labels: NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Batch:
    """Some samples of a split in one view.

    Args:
        index: ``(batch,)`` int64, positions in the split.
        pixels: ``(batch, channels, height, width)`` in channels_last memory; uint8, or float32 in 0 .. 255 where
            the view mixes.
        labels: ``(batch,)`` int64; -1 is an unlabelled sample.
        partner_labels: ``(batch,)`` int64 where the view mixes, -1 for an unlabelled partner; otherwise None.
        share: ``(batch,)`` float32 where the view mixes: the weight of ``labels``, while ``partner_labels`` weigh
            ``1 - share``; otherwise None.
        view: as which it shows them; whoever pairs a batch with something kept asks here.
    """

    index: Tensor
    pixels: Tensor
    labels: Tensor
    partner_labels: Tensor | None = None
    share: Tensor | None = None
    view: View | None = None
    # not an argument, so that ``replace``, which may change the tensors, does not take it along
    _known: OnHost | None = field(default=None, init=False, repr=False)

    def knowing(self, known: OnHost) -> Batch:
        """This batch, which from now on need not ask its tensors what ``on_host`` has."""
        object.__setattr__(self, "_known", known)
        return self

    def on_host(self) -> OnHost:
        """Index and labels in main memory. A batch of a split knows them; else its tensors are asked, which waits for
        a GPU."""
        if self._known is not None:
            return self._known
        return OnHost(index=self.index.cpu().numpy(), labels=self.labels.cpu().numpy())


class DeviceImages:
    """The images and labels of a split, copied once to a device, on which its batches are made.

    Args:
        split: in memory, not empty.
        device: as torch calls it.

    Attributes:
        pixels: ``(n, height, width, channels)`` uint8. labels: ``(n,)`` int64.
    """

    in_memory = True

    def __init__(self, split: Split, device: str) -> None:
        self.images: Images = split.images
        shape = self.images.fetch(np.arange(1)).shape[1:]
        self.pixels = torch.empty((len(split), *shape), dtype=torch.uint8, device=device)
        for start in range(0, len(split), _COPIED):
            part = np.arange(start, min(start + _COPIED, len(split)))
            self.pixels[start : start + len(part)].copy_(torch.from_numpy(self.images.fetch(part)))
        self.labels = torch.tensor(split.labels).to(device)

    def __len__(self) -> int:
        return len(self.images)

    def fetch(self, index: NDArray[np.int64]) -> NDArray[np.uint8]:
        """See ``understudy.data.dataset.Images``: from main memory, where they are still."""
        return self.images.fetch(index)

    def rows(self, index: NDArray[np.int64]) -> Tensor:
        """``index`` on the device."""
        # a copy that is not waited for: what lies in pageable memory is taken before the call returns
        return torch.from_numpy(index).to(self.pixels.device, non_blocking=True)


def batch_of(split: Split, view: View, index: ArrayLike) -> Batch:
    """The samples at ``index`` as ``view`` shows them: depends on its arguments only, sample by sample.

    Args:
        split: images and labels; where its images are ``DeviceImages`` the batch is made on their device.
        view: what is done to the pixels.
        index: ``(batch,)`` positions in the split, in any order, repeats allowed.

    Raises:
        BadInput: ``index`` is empty, not of whole numbers or outside the split; or as in
            ``understudy.data.views.apply_view``.
    """
    positions = _positions(index, len(split))
    known = OnHost(index=positions, labels=split.labels[positions])
    if not view.policy.mixup:
        images = apply_view(view, positions, _fetched(split, positions))
        return Batch(
            index=_index(split, positions),
            pixels=images.permute(0, 3, 1, 2),
            labels=_labels(split, positions),
            view=view,
        ).knowing(known)
    partners, share = draw_mixing(view, positions, samples=len(split))
    # a partner appears as it does in this same view, so that a view's pixels are defined once
    everyone = np.concatenate([positions, partners])
    images = apply_view(view, everyone, _fetched(split, everyone))
    mixed = mix(images[: len(positions)], images[len(positions) :], share)
    return Batch(
        index=_index(split, positions),
        pixels=mixed.permute(0, 3, 1, 2),
        labels=_labels(split, positions),
        partner_labels=_labels(split, partners),
        share=torch.from_numpy(share).to(mixed.device, non_blocking=True),
        view=view,
    ).knowing(known)


def _positions(index: ArrayLike, samples: int) -> NDArray[np.int64]:
    given = np.asarray(index)
    if given.ndim != 1 or not given.size or given.dtype.kind not in "iu":
        raise BadInput(
            f"a batch was asked for by an index of shape {given.shape} and type {given.dtype}: "
            "it must be a list of at least one whole number."
        )
    # negative numbers would silently count from the end
    for extreme in (given.min(), given.max()):
        if not 0 <= extreme < samples:
            raise BadInput(
                f"sample {extreme} was asked for from a split of {samples} samples: possible are 0 to {samples - 1}."
            )
    return np.array(given, dtype=np.int64)


def _index(split: Split, index: NDArray[np.int64]) -> Tensor:
    return split.images.rows(index) if isinstance(split.images, DeviceImages) else torch.from_numpy(index)


def _fetched(split: Split, index: NDArray[np.int64]) -> Tensor:
    if isinstance(split.images, DeviceImages):
        return split.images.pixels.index_select(0, split.images.rows(index))
    images = np.ascontiguousarray(split.images.fetch(index))
    if images.dtype != np.uint8 or images.ndim != 4 or len(images) != len(index):
        raise BadInput(
            f"{type(split.images).__name__}.fetch gave an array of shape {images.shape} and type {images.dtype} for "
            f"{len(index)} samples: it must give ({len(index)}, height, width, channels) uint8."
        )
    # torch cannot mark a tensor read-only, and a write must not reach what the split keeps
    return torch.from_numpy(images if images.flags.writeable else images.copy())


def _labels(split: Split, index: NDArray[np.int64]) -> Tensor:
    if isinstance(split.images, DeviceImages):
        return split.images.labels.index_select(0, split.images.rows(index))
    return torch.from_numpy(split.labels[index].astype(np.int64, copy=False))


def batches(
    split: Split, view: View, orders: Sequence[NDArray[np.int64]], *, workers: int = 0
) -> Iterator[Batch]:
    """The batches that ``orders`` lists, one after the other; the same bytes for every number of workers.

    Args:
        split: images and labels.
        view: what is done to the pixels.
        orders: one ``(batch,)`` array of positions for each batch, as from ``epoch_order``.
        workers: processes that fetch and make whole batches ahead of time; 0 makes them here. Images in memory
            are always made here: fetching and augmenting them takes a few microseconds each, less than sending
            them from another process. Workers are started by each call, so one call should cover a whole pass; the
            first call takes some seconds more.

    Raises:
        BadInput: ``workers`` is not a whole number from 0 up. What goes wrong in a worker, such as a damaged file,
            is raised here as it would be without workers.
    """
    if isinstance(workers, bool) or not isinstance(workers, int) or workers < 0:
        raise BadInput(
            f"workers is {workers!r}: it must be a whole number from 0 up (0: no extra processes)."
        )
    if workers == 0 or split.images.in_memory or not len(orders):
        return (batch_of(split, view, index) for index in orders)
    return _from_workers(split, view, orders, min(workers, len(orders)))


class _WholeBatches(LoaderDataset["Batch | UnderstudyError"]):
    """What a worker is sent: entry i is batch i."""

    def __init__(self, split: Split, view: View, orders: Sequence[NDArray[np.int64]]) -> None:
        self.split, self.view, self.orders = split, view, orders

    def __len__(self) -> int:
        return len(self.orders)

    def __getitem__(self, position: int) -> Batch | UnderstudyError:
        try:
            return batch_of(self.split, self.view, self.orders[position])
        except UnderstudyError as error:
            # raised in a worker it would come back with the worker's traceback inside its one line
            return error


def _as_it_is(made: _Any) -> _Any:
    return made


def _from_workers(
    split: Split, view: View, orders: Sequence[NDArray[np.int64]], workers: int
) -> Iterator[Batch]:
    loader = DataLoader(
        _WholeBatches(split, view, orders),
        batch_size=None,
        shuffle=False,
        collate_fn=_as_it_is,
        num_workers=workers,
        prefetch_factor=2,
        multiprocessing_context=processes.context(),
        # torch's own watch is for the process that they were forked from
        worker_init_fn=processes.end_with_parent,
        # The workers' base seed is drawn from this. Without it torch's global generator would be advanced; the
        # seeds themselves play no part in a view.
        generator=torch.Generator(),
    )
    for made in loader:
        if isinstance(made, UnderstudyError):
            raise made
        yield made


def epoch_order(n: int, batch_size: int, *, seed: int, epoch: int) -> list[NDArray[np.int64]]:
    """A permutation of 0 .. n - 1, drawn from (seed, epoch) and cut into batches.

    Every sample comes once. A last batch of a single sample is joined to the batch before it: batch statistics
    need two, and a batch of one takes other paths through the kernels than any other size.

    Raises:
        BadInput: ``batch_size`` is below 2, or ``n`` is negative.

    >>> [len(batch) for batch in epoch_order(9, 4, seed=0, epoch=0)]
    [4, 5]
    """
    _check_sizes(n, batch_size)
    return _cut(numpy_stream(seed, "order", epoch).permutation(n).astype(np.int64, copy=False), batch_size)


def plain_order(n: int, batch_size: int) -> list[NDArray[np.int64]]:
    """0 .. n - 1 in order, cut into batches by the rule of ``epoch_order``.

    Raises:
        BadInput: ``batch_size`` is below 2, or ``n`` is negative.

    >>> [batch.tolist() for batch in plain_order(5, 2)]
    [[0, 1], [2, 3, 4]]
    """
    _check_sizes(n, batch_size)
    return _cut(np.arange(n, dtype=np.int64), batch_size)


def _check_sizes(n: int, batch_size: int) -> None:
    if isinstance(batch_size, bool) or not isinstance(batch_size, (int, np.integer)) or batch_size < 2:
        raise BadInput(
            f"batch_size is {batch_size!r}: it must be a whole number from 2 up, because a batch of one has no batch "
            "statistics and other rounding."
        )
    if n < 0:
        raise BadInput(f"there cannot be {n} samples: n must be 0 or more.")


def _cut(order: NDArray[np.int64], batch_size: int) -> list[NDArray[np.int64]]:
    starts = list(range(0, len(order), batch_size))
    if len(starts) > 1 and len(order) - starts[-1] == 1:
        starts.pop()
    stops = [*starts[1:], len(order)]
    return [order[start:stop] for start, stop in zip(starts, stops, strict=False)]  # no samples: no starts
