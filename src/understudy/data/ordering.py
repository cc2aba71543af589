"""The order of a curriculum: easy samples first, and how much of the list each batch may be drawn from.

Pure functions of scores, labels and a seed. All choices of order use raw bits from PCG64, whose stream numpy keeps for
good.

References:
    Zhao et al. 2021, arXiv:2106.10885 (instance-level sequence learning): a snapshot of the student orders the samples
    of its next phase. How is not said in the abstract, the only part that was at hand: score, pacing, balance of classes
    and bands are this library's choice.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from understudy.data.dataset import UNLABELLED
from understudy.errors import BadInput, listed, suggestion
from understudy.randomness import numpy_stream

Pacing = Literal["exponential", "linear", "single_step", "sequence"]


def curriculum_order(scores: NDArray[np.floating], labels: NDArray[np.integer]) -> NDArray[np.int64]:
    """Positions of all samples, easiest first, with every class spread evenly over the list.

    Samples are ranked within their class: rank r of a class of n comes at ``(r + 0.5) / n``. So any prefix holds the
    easiest of each class, in the classes' proportions as near as whole samples allow. Classes at the same place follow
    one another by number; unlabelled samples are a class of their own, the last. Equal scores keep their positions'
    order.

    Args:
        scores: ``(n,)``, small is easy. Infinite ones are allowed.
        labels: ``(n,)`` class numbers, -1 = unlabelled.

    Returns:
        ``(n,)`` positions in ``scores``.

    Raises:
        BadInput: the shapes differ, or a score is no number.

    >>> curriculum_order(np.array([0.3, 0.1, 0.2, 0.9]), np.array([0, 0, 1, 1])).tolist()
    [1, 2, 0, 3]
    """
    if scores.ndim != 1 or labels.shape != scores.shape:
        raise BadInput(
            f"a curriculum was asked for with scores of shape {scores.shape} and labels of shape {labels.shape}: both are "
            "lists of one entry for each sample."
        )
    if missing := np.flatnonzero(np.isnan(scores)).tolist():
        raise BadInput(
            f"{len(missing)} of {len(scores)} samples have a score that is not a number, sample {missing[0]} first: "
            "they cannot be ordered. Look for NaN in the outputs that the scores are made of."
        )
    place = np.zeros(len(scores))
    for label in np.unique(labels).tolist():
        rows = np.flatnonzero(labels == label)
        rows = rows[np.argsort(scores[rows], kind="stable")]
        # equal fractions give equal numbers, as a quotient is rounded once
        place[rows] = (np.arange(len(rows)) + 0.5) / len(rows)
    turn = np.where(labels == UNLABELLED, np.iinfo(np.int64).max, labels.astype(np.int64))
    return np.lexsort((turn, place)).astype(np.int64, copy=False)


def available(
    progress: float, *, pacing: Pacing, start: float = 0.1, growth: float = 1.9, step: float = 0.05
) -> float:
    """The share of the sorted list that batches may be drawn from.

    * ``exponential``: ``min(1, start * growth**k)`` with ``k = floor(progress / step)``. With the defaults 10%, 19%,
      36.1%, 68.6%, and all from a fifth of the phase on.
    * ``linear``: from ``start`` in a straight line to 1, which it reaches when the exponential pacing does.
    * ``single_step``: ``start`` until the exponential pacing reaches 1, then 1.
    * ``sequence``: always 1; the order itself is the curriculum, see ``sequence_batches``.

    Args:
        progress: share of the phase's batches that are done, in [0, 1].
        pacing: one of these.
        start: in (0, 1].
        growth: factor of each step, above 1.
        step: length of a step as a share of the phase, in (0, 1].

    Raises:
        BadInput: an argument is outside its range.

    >>> [round(available(k * 0.05, pacing="exponential"), 4) for k in range(5)]
    [0.1, 0.19, 0.361, 0.6859, 1.0]
    """
    if pacing not in get_args(Pacing):
        raise BadInput(
            f"pacing is {pacing!r}: possible are {listed(get_args(Pacing))}."
            f"{suggestion(str(pacing), get_args(Pacing))}"
        )
    for name, value, fits, possible in (
        ("progress", progress, 0 <= progress <= 1, "0 to 1, the share of the phase that is done"),
        ("start", start, 0 < start <= 1, "above 0 to 1, such as 0.1 for a tenth of the samples"),
        ("growth", growth, 1 < growth < math.inf, "numbers above 1, such as 1.9"),
        ("step", step, 0 < step <= 1, "above 0 to 1, such as 0.05 for a twentieth of the phase"),
    ):
        if not fits:
            raise BadInput(f"{name} of the curriculum is {value}: possible are {possible}.")
    if pacing == "sequence":
        return 1.0
    steps = _steps_until_all(start, growth)
    done = _exact(progress) / _exact(step)
    if done >= steps:
        return 1.0
    if pacing == "exponential":
        return min(1.0, start * growth ** math.floor(done))
    if pacing == "linear":
        return min(1.0, start + (1 - start) * float(done / steps))
    return start


def prefix_length(samples: int, fraction: float) -> int:
    """How many of the sorted samples a share of the list is: the nearest whole number, at least one.

    >>> [prefix_length(50_000, available(k * 0.05, pacing="exponential")) for k in range(5)]
    [5000, 9500, 18050, 34295, 50000]
    """
    return min(samples, max(1, math.floor(samples * fraction + 0.5)))


def prefix_batches(
    order: NDArray[np.integer],
    fractions_per_batch: Sequence[float],
    batch_sizes: Sequence[int],
    *,
    seed: int,
    epoch: int,
) -> list[NDArray[np.int64]]:
    """Batches, each drawn from the part of the sorted list that is available to it.

    A pass goes through the available samples in a random order. What becomes available in the middle of a pass joins
    what is left of it. When nothing is left the next pass begins, perhaps in the middle of a batch. Within a pass no
    sample comes twice, nor within a batch, unless fewer samples are available than the batch has places. With everything
    available and as many places as samples, that is one ordinary epoch.

    Args:
        order: ``(n,)`` positions, easiest first.
        fractions_per_batch: the share of ``order`` available to each batch, in (0, 1], never falling, as from
            ``available``.
        batch_sizes: of each batch, 1 or more.
        seed: the stage's.
        epoch: counts passes over the training set, from 0; every epoch begins a new pass.

    Returns:
        one ``(batch,)`` array of entries of ``order`` for each batch; depends on the arguments only.

    Raises:
        BadInput: the lists differ in length, there is no sample, a share falls, or a share or size is outside its range.
    """
    if len(fractions_per_batch) != len(batch_sizes):
        raise BadInput(
            f"a curriculum was asked for with {len(fractions_per_batch)} shares and {len(batch_sizes)} batch sizes: "
            "there must be one of each for every batch."
        )
    _check(order, batch_sizes)
    stream = numpy_stream(seed, "curriculum prefix", epoch)
    left: NDArray[np.int64] = np.empty(len(order), dtype=np.int64)  # ranks of this pass, in left[:count]
    count = length = 0
    made = []
    for fraction, size in zip(fractions_per_batch, batch_sizes, strict=True):
        if not 0 < fraction <= 1:
            raise BadInput(f"a share of the curriculum is {fraction}: possible are above 0 to 1.")
        now = prefix_length(len(order), fraction)
        if now < length:
            raise BadInput(
                f"a share of the curriculum falls to {fraction}: within an epoch it may only grow, as a new phase has "
                "another order."
            )
        left[count : count + now - length] = np.arange(length, now)
        count += now - length
        length = now
        batch = _drawn(left, count, min(size, count), stream)
        count -= len(batch)
        while len(batch) < size:
            # the next pass; what this batch already has waits for a later one, where there is enough else
            waiting = batch if size <= length else batch[:0]
            fresh = np.setdiff1d(np.arange(length), waiting, assume_unique=True)
            left[: len(fresh)] = fresh
            more = _drawn(left, len(fresh), min(size - len(batch), len(fresh)), stream)
            count = len(fresh) - len(more)
            left[count : count + len(waiting)] = waiting
            count += len(waiting)
            batch = np.concatenate([batch, more])
        made.append(order[batch].astype(np.int64, copy=False))
    return made


def sequence_batches(
    order: NDArray[np.integer], batch_sizes: Sequence[int], *, band: int = 10, seed: int, epoch: int
) -> list[NDArray[np.int64]]:
    """The sorted list from its beginning to its end, shuffled only inside bands of some batches.

    Args:
        order: ``(n,)`` positions, easiest first.
        batch_sizes: of each batch, 1 or more, n in all, so that every sample comes once.
        band: batches in a band.
        seed: the stage's.
        epoch: counts passes over the training set, from 0.

    Returns:
        one ``(batch,)`` array of entries of ``order`` for each batch; depends on the arguments only.

    Raises:
        BadInput: the sizes do not add up to n, there is no sample, or a size or ``band`` is below 1.
    """
    _check(order, batch_sizes)
    if sum(batch_sizes) != len(order):
        raise BadInput(
            f"the batches have {sum(batch_sizes)} places for {len(order)} samples: in a sequence every sample comes once, "
            "so their sizes must add up to the number of samples."
        )
    if band < 1:
        raise BadInput(
            f"band is {band}: possible are whole numbers from 1 up, the batches that are shuffled together."
        )
    stream = numpy_stream(seed, "curriculum sequence", epoch)
    made: list[NDArray[np.int64]] = []
    begin = 0
    for first in range(0, len(batch_sizes), band):
        sizes = batch_sizes[first : first + band]
        inside = order[begin : begin + sum(sizes)].astype(np.int64)
        begin += len(inside)
        shuffled = inside[np.argsort(stream.bit_generator.random_raw(len(inside)), kind="stable")]
        made += np.split(shuffled, np.cumsum(sizes)[:-1])
    return made


def _check(order: NDArray[np.integer], batch_sizes: Sequence[int]) -> None:
    if order.ndim != 1 or not len(order):
        raise BadInput(f"a curriculum needs a list of at least one sample; got one of shape {order.shape}.")
    if wrong := [size for size in batch_sizes if size < 1]:
        raise BadInput(f"a batch of the curriculum has {wrong[0]} places: possible are 1 and more.")


def _exact(number: float) -> Fraction:
    # 0.15 / 0.05 is a little less than 3 in binary fractions
    return Fraction(repr(float(number)))


def _steps_until_all(start: float, growth: float) -> int:
    """The least k with ``start * growth**k >= 1``; rounding of logarithms is put right."""
    steps = math.ceil(math.log(1 / start) / math.log(growth))
    while steps > 0 and start * growth ** (steps - 1) >= 1:
        steps -= 1
    while start * growth**steps < 1:
        steps += 1
    return steps


def _drawn(
    pool: NDArray[np.int64], count: int, wanted: int, stream: np.random.Generator
) -> NDArray[np.int64]:
    """Takes ``wanted`` out of ``pool[:count]`` at random; what is left is ``pool[:count - wanted]``.

    The last steps of a Fisher-Yates shuffle, so that a list which grows with every batch costs no more than one that
    does not. Remainders of 64 bits favour none by more than count / 2**64.
    """
    bits = stream.bit_generator.random_raw(wanted).tolist() if wanted else []
    for last, number in zip(range(count - 1, count - wanted - 1, -1), bits, strict=True):
        chosen = number % (last + 1)
        pool[chosen], pool[last] = pool[last], pool[chosen]
    return pool[count - wanted : count].copy()
