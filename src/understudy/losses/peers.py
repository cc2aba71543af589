"""Peers: students that teach one another, by way of their ensemble and of their temporal means.

m peers have logits z_j on their own views of the same images, an ensemble head on all their features has logits z_e,
and the mean teacher of peer k, its exponential moving average, has logits z^t_k. One training step minimises ::

    CE(z_e, y) + sum_j [ CE(z_j, y) + w * KL_T(z_e, z_j) + w * 1/(m-1) * sum_(k != j) KL_T(z^t_k, z_j) ]

where ``KL_T(a, b) = T**2 * KL(softmax(a / T) || softmax(b / T))`` has no gradient through a, and w ramps up.
A peer is not taught by its own mean. The two divergences are here; the hard terms are those of any network.

References:
    Wu & Gong 2021, arXiv:2006.04147 (peer collaborative learning, PCL). No code of the authors is known; the sum over
    peers and the mean over teachers are those of a public re-implementation.
"""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
from torch import Tensor

from understudy.losses.soft_targets import dense_soft_target_loss, soft_target_loss

Divisor = Literal["length", "weight"]


def ensemble_to_peers_loss(peers_logits: Tensor, ensemble_logits: Tensor, *, temperature: float) -> Tensor:
    """``sum_j KL_T(z_e, z_j)``.

    Args:
        peers_logits: ``(peers, batch, classes)``. Receives the gradient.
        ensemble_logits: ``(batch, classes)``. Treated as constant.
        temperature: divides all logits.

    Returns:
        ``(batch,)`` in nats. Zero where all peers agree with the ensemble.

    Raises:
        ValueError: the shapes do not fit, or ``temperature`` is not positive.
    """
    peers, batch, classes = _sizes(peers_logits)
    if ensemble_logits.shape != (batch, classes):
        raise ValueError(
            f"peers_logits are (peers, batch, classes) and ensemble_logits (batch, classes); "
            f"got {tuple(peers_logits.shape)} and {tuple(ensemble_logits.shape)}"
        )
    each = soft_target_loss(
        peers_logits.flatten(0, 1), ensemble_logits.repeat(peers, 1), temperature=temperature
    )
    return each.view(peers, batch).sum(0)


def mean_teachers_to_peers_loss(
    peers_logits: Tensor, mean_teachers_logits: Tensor, *, temperature: float
) -> Tensor:
    """``sum_j 1/(m-1) sum_(k != j) KL_T(z^t_k, z_j)``: every peer learns from the means of all others.

    Args:
        peers_logits: ``(peers, batch, classes)``, two peers or more. Receives the gradient.
        mean_teachers_logits: ``(peers, batch, classes)``, in the order of the peers. Treated as constant.
        temperature: divides all logits.

    Returns:
        ``(batch,)`` in nats. Zero where every peer agrees with the means of all others.

    Raises:
        ValueError: the shapes differ, there are fewer than two peers, or ``temperature`` is not positive.
    """
    peers, batch, _ = _sizes(peers_logits)
    if mean_teachers_logits.shape != peers_logits.shape:
        raise ValueError(
            f"peers' and mean teachers' logits are both (peers, batch, classes); "
            f"got {tuple(peers_logits.shape)} and {tuple(mean_teachers_logits.shape)}"
        )
    if peers < 2:
        raise ValueError(f"a peer learns from the means of the others, so there are two or more; got {peers}")
    # teacher r of peer j is the mean of peer j + r, so a peer meets all but its own
    others = torch.stack([mean_teachers_logits.roll(-r, 0).flatten(0, 1) for r in range(1, peers)])
    weights = torch.full((peers - 1,), 1 / (peers - 1), device=peers_logits.device)
    each = dense_soft_target_loss(
        peers_logits.flatten(0, 1), others, temperature=temperature, weights=weights
    )
    return each.view(peers, batch).sum(0)


def ramp(epoch: float, *, length: float, weight: float = 1.0, divisor: Divisor = "length") -> float:
    """``weight * exp(-5 * (1 - epoch / length)**2)`` until ``length``, then ``weight``.

    Args:
        epoch: from 0.
        length: in epochs, 80 of 300 in public code; 0 means no ramp.
        weight: where the ramp leads.
        divisor: what the epoch is divided by. ``"weight"`` is the slip of the public re-implementation: up to and with
            the epoch ``length``, ``weight * exp(-5 * (1 - epoch / weight)**2)``, which with weight 1 is 1 in epoch 1 and
            next to nothing from epoch 3 on; then it jumps to ``weight``.

    Raises:
        ValueError: ``epoch`` or ``length`` is negative, or ``divisor`` is none of the two.

    >>> [round(ramp(epoch, length=80), 5) for epoch in (0, 40, 80)]
    [0.00674, 0.2865, 1.0]
    >>> [round(ramp(epoch, length=80, divisor="weight"), 5) for epoch in (0, 1, 2, 40, 80, 81)]
    [0.00674, 1.0, 0.00674, 0.0, 0.0, 1.0]
    """
    if divisor not in get_args(Divisor):
        raise ValueError(f"divisor is one of {', '.join(get_args(Divisor))}; got {divisor!r}")
    for name, value in (("epoch", epoch), ("length", length)):
        if not value >= 0:
            raise ValueError(f"{name} is 0 or more; got {value}")
    by_weight = divisor == "weight" and length > 0
    if not weight or (epoch > length if by_weight else epoch >= length):
        return weight
    return weight * math.exp(-5 * (1 - epoch / (weight if by_weight else length)) ** 2)


def ema_factor(step: int, *, most: float = 0.999) -> float:
    """``min(1 - 1/g, most)``: how much of a temporal mean stays when it takes in the weights after step g.

    With that factor the mean is the plain average of all steps until 1 - 1/g reaches ``most``.

    Args:
        step: g, from 1, where the mean becomes a copy.
        most: in [0, 1].

    Raises:
        ValueError: ``step`` is below 1, or ``most`` lies outside [0, 1].

    >>> ema_factor(1), ema_factor(4), ema_factor(10**6)
    (0.0, 0.75, 0.999)
    """
    if step < 1:
        raise ValueError(f"step counts from 1; got {step}")
    if not 0 <= most <= 1:
        raise ValueError(f"most lies in [0, 1]; got {most}")
    return min(1 - 1 / step, most)


def _sizes(peers_logits: Tensor) -> tuple[int, int, int]:
    if peers_logits.ndim != 3 or not len(peers_logits):
        raise ValueError(
            f"peers_logits are (peers, batch, classes) of one peer or more; got {tuple(peers_logits.shape)}"
        )
    peers, batch, classes = peers_logits.shape
    return peers, batch, classes
