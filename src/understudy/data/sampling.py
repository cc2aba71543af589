"""Which samples an epoch shows and how often: every sample once, or rare classes more often."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from understudy.data.batches import epoch_order, plain_order
from understudy.data.dataset import UNLABELLED
from understudy.errors import BadInput, listed, suggestion
from understudy.randomness import numpy_stream

Sampling = Literal["instance", "balanced", "square_root"]


def sampled_order(
    labels: NDArray[np.int64], batch_size: int, *, seed: int, epoch: int, sampling: Sampling
) -> list[NDArray[np.int64]]:
    """Positions of the samples of an epoch, shuffled and cut into batches: as many and as large as ``epoch_order``'s.

    - ``instance``: every sample once; ``epoch_order`` itself.
    - ``balanced``: every class equally often, up to one sample.
    - ``square_root``: every class in proportion to the square root of its number of samples, up to one sample.

    A class is walked through in one fresh permutation after the other, from epoch to epoch: a sample comes again only
    after all of its class came. A sample that comes twice in an epoch shows the same view twice, since a view depends
    on epoch and sample only; no view is drawn anew for it. Unlabelled samples come as often as under ``instance``
    whatever the sampling: each once.

    Args:
        labels: ``(n,)``, -1 = unlabelled.
        batch_size: 2 or more.
        seed: of the training.
        epoch: from 0.
        sampling: one of the three.

    Raises:
        BadInput: ``sampling`` is none of them, or ``batch_size`` is below 2.

    References:
        Kang et al. 2020, arXiv:1910.09217, section 3, Eq. 1 with q = 1, 0 and 1/2.
        There samples are drawn with replacement, so that a class is seen equally often in expectation only.

    >>> labels = np.array([0] * 6 + [1] * 2)
    >>> batches = sampled_order(labels, 4, seed=0, epoch=0, sampling="balanced")
    >>> np.bincount(labels[np.concatenate(batches)]).tolist()
    [4, 4]
    """
    if sampling not in get_args(Sampling):
        raise BadInput(
            f"sampling is {sampling!r}; it can be {listed(get_args(Sampling))}."
            f"{suggestion(str(sampling), get_args(Sampling))}"
        )
    if sampling == "instance":
        return epoch_order(len(labels), batch_size, seed=seed, epoch=epoch)
    cuts = plain_order(len(labels), batch_size)
    classes, counts = np.unique(labels, return_counts=True)
    members = np.split(np.argsort(labels, kind="stable"), np.cumsum(counts)[:-1])
    shares = _shares(classes, counts, sampling)
    walked = [
        _walked(rows, share, seed=seed, epoch=epoch, label=label)
        for rows, share, label in zip(members, shares.tolist(), classes.tolist(), strict=False)
    ]
    order = np.concatenate(walked) if walked else np.zeros(0, dtype=np.int64)
    order = order[numpy_stream(seed, "sampled order", epoch).permutation(len(order))]
    return [order[cut] for cut in cuts]


def _shares(classes: NDArray[np.int64], counts: NDArray[np.int64], sampling: Sampling) -> NDArray[np.int64]:
    """How many samples of each class an epoch has, the same in every epoch; the largest remainders are rounded up."""
    shares = counts.copy()
    labelled = classes != UNLABELLED
    if not labelled.any():
        return shares
    weights = np.ones(int(labelled.sum())) if sampling == "balanced" else np.sqrt(counts[labelled])
    total = int(counts[labelled].sum())
    exact = total * weights / weights.sum()
    whole = np.floor(exact).astype(np.int64)
    most = np.argsort(whole - exact, kind="stable")
    whole[most[: total - int(whole.sum())]] += 1
    shares[labelled] = whole
    return shares


def _walked(rows: NDArray[np.int64], share: int, *, seed: int, epoch: int, label: int) -> NDArray[np.int64]:
    """The next ``share`` of ``rows`` after those of the epochs before."""
    start = epoch * share
    turns = range(start // len(rows), -(-(start + share) // len(rows)))
    walk = [numpy_stream(seed, "sampling", label, turn).permutation(len(rows)) for turn in turns]
    before = turns.start * len(rows)
    walked: NDArray[np.int64] = rows[np.concatenate(walk)[start - before : start - before + share]]
    return walked
