"""Learning rates by step: pure functions of (step, steps)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from understudy.training.settings import Training

RISE = 0.3  # share of one_cycle's steps in which the rate rises
START = 25.0  # one_cycle begins at lr / START
END = 1e4  # and ends at lr / END


def factor_of(training: Training, *, step: int, steps_an_epoch: int) -> float:
    """What ``training.lr`` is multiplied with in ``step`` (0 .. epochs * steps_an_epoch - 1); see ``factor``."""
    return factor(
        training.schedule,
        step=step,
        steps=training.epochs * steps_an_epoch,
        warmup_steps=round(training.warmup * steps_an_epoch),
        milestones=training.milestones,
        gamma=training.gamma,
    )


def factor(
    schedule: str,
    *,
    step: int,
    steps: int,
    warmup_steps: int = 0,
    milestones: Sequence[float] = (),
    gamma: float = 0.1,
) -> float:
    """What the peak learning rate is multiplied with in ``step`` (0 .. steps - 1).

    Args:
        schedule: ``constant``, ``step``, ``cosine`` or ``one_cycle``.
        step: steps of the optimiser made so far.
        steps: steps of the whole training.
        warmup_steps: steps of linear rise, the first at 1/warmup_steps; the schedule then takes the steps left.
        milestones: for ``step``: fractions of all steps (warm-up included) after which the rate falls by ``gamma``.
        gamma: for ``step``.

    Raises:
        ValueError: an unknown schedule, or a step outside the training.

    References:
        Loshchilov & Hutter 2017, arXiv:1608.03983, Eq. 5 (cosine). Smith & Topin 2018, arXiv:1708.07120 (one cycle);
        share and first divisor are those that PyTorch's OneCycleLR has as defaults; the rise is linear here, and END
        divides the peak rate, where PyTorch's last divisor divides the first rate.

    >>> [round(factor("cosine", step=s, steps=4), 3) for s in range(4)]
    [1.0, 0.854, 0.5, 0.146]
    """
    if not 0 <= step < steps:
        raise ValueError(f"step {step} is outside a training of {steps} steps")
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    if schedule == "constant":
        return 1.0
    if schedule == "step":
        return gamma ** sum(step >= round(fraction * steps) for fraction in milestones)
    if schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * (step - warmup_steps) / max(1, steps - warmup_steps)))
    if schedule == "one_cycle":
        peak = RISE * steps
        if step < peak:
            return 1 / START + (1 - 1 / START) * step / peak
        done = (step - peak) / max(1.0, steps - 1 - peak)
        return 1 / END + (1 - 1 / END) * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
    raise ValueError(f"unknown schedule {schedule!r}: constant, step, cosine or one_cycle")
