"""Balanced distillation for long-tailed data: what teachers say is weighed towards rare classes."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from understudy.errors import BadInput
from understudy.losses import dense_soft_target_loss, soft_target_loss
from understudy.losses.balanced import (
    balanced_logits,
    effective_number_weights,
    unnormalised_factor,
    weighted_cross_entropy,
)
from understudy.teaching.labels import Labels
from understudy.teaching.method import Beginning, Method, Step
from understudy.teaching.soft_targets import SoftTargets

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from understudy.data.batches import Batch

FORMS = ("renormalised", "unnormalised")


@dataclass(kw_only=True)
class _ByRarity(Method):
    """A way to teach that knows how rare each class is, and from which epoch on that counts."""

    beta: float = 0.9999
    defer: float = 0.0
    class_weights: Tensor | None = field(default=None, init=False, compare=False, repr=False)
    first_epoch: int = field(default=0, init=False, compare=False, repr=False)

    @property
    def weighs(self) -> bool:
        """Whether classes count differently in any epoch."""
        return self.beta != 0 and self.defer != 1

    def begin(self, beginning: Beginning) -> None:
        self.class_weights = weights_of(beginning.labels, beginning.classes, self.beta)
        self.first_epoch = round(self.defer * beginning.epochs)

    def weights_in(self, epoch: int) -> Tensor | None:
        """Weight of each class ``(classes,)`` with mean 1; None where all count the same in ``epoch``."""
        if epoch < self.first_epoch or self.beta == 0:
            return None
        assert self.class_weights is not None, "the method has not begun"
        return self.class_weights


@dataclass(kw_only=True)
class _SoftByRarity(_ByRarity, SoftTargets):
    """Soft targets that do."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_beta(self.beta)
        check_defer(self.defer)

    def definition(self, *, teachers: int) -> dict[str, Any]:
        known = super().definition(teachers=teachers)
        if not self.weighs:
            return {**known, "name": SoftTargets.name}
        return {**known, "beta": self.beta, "defer": self.defer}


@dataclass(kw_only=True)
class BalancedTargets(_SoftByRarity):
    """Soft targets in which each class counts by how rarely it is seen (BKD); the hard term stays as it is.

    For class counts n_c of the training split and teacher probabilities p at temperature T::

        w_c  = (1 - beta) / (1 - beta^n_c)                      effective-number weight
        p~_c = w_c p_c / sum_j w_j p_j                          still a distribution, for each example
        soft = T^2 * KL(p~ || student)

    All else (several teachers, stochastic teaching, temperature, weights) is as in ``SoftTargets``. With
    ``soft_weight`` 0.5 the loss is half of the published CE + alpha * soft at alpha = 1; in general
    ``soft_weight = alpha / (1 + alpha)``, and the rate of SGD then is (1 + alpha) times the published one, its weight
    decay the published one over (1 + alpha).

    Attributes:
        beta: in [0, 1). At 0 all weights are equal, and these are plain soft targets.
        defer: share of the epochs, from the beginning, in which all weights are equal (deferred re-weighting): 0.8 is
            what the official code does on CIFAR-10, 0 on CIFAR-100.
        form: ``renormalised``: as above and as the official code; ``unnormalised``: the weighted cross-entropy
            ``-T^2 sum_c w_c p_c log q_c`` less what does not depend on the student, which is the other form times
            ``sum_j w_j p_j`` for each example (w rescaled to mean 1).

    A class without training images has the weight of one with a single image. Where the teacher is unsure the weights
    are strong: a class 100 times as rare takes about 100 times its part of the target.

    References:
        Zhang et al. 2021, arXiv:2104.10510, and its official code; effective numbers: Cui et al. 2019, arXiv:1901.05555.
    """

    name = "balanced_targets"

    form: Literal["renormalised", "unnormalised"] = "renormalised"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.form not in FORMS:
            raise BadInput(f"balance.form {self.form!r} is none of {', '.join(FORMS)}.")

    def definition(self, *, teachers: int) -> dict[str, Any]:
        known = super().definition(teachers=teachers)
        return {**known, "form": self.form} if "beta" in known else known

    def soft_terms(self, output: Tensor, teachers: Tensor, weights: Tensor, step: Step) -> Tensor:
        class_weights = self.weights_in(step.epoch)
        if class_weights is None:
            return super().soft_terms(output, teachers, weights, step)
        rare = class_weights.to(output.device, non_blocking=True)
        targets = balanced_logits(teachers, rare, self.temperature)
        if self.form == "unnormalised":
            factors = unnormalised_factor(teachers, rare, self.temperature)
            each = [
                weight * factor * soft_target_loss(output, target, temperature=self.temperature)
                for weight, factor, target in zip(weights, factors, targets, strict=True)
            ]
            return torch.stack(each).sum(0)
        return dense_soft_target_loss(output, targets, temperature=self.temperature, weights=weights)


@dataclass(kw_only=True)
class BalancedHardTerm(_SoftByRarity):
    """Soft targets as they are, and a hard term in which each label weighs as its class is rare.

    That is what the official code of BKD computes where it is asked for plain distillation, with which it compares: it
    hands its class weights to the cross-entropy, too. So it is another baseline than plain distillation.

    Attributes:
        beta: as in ``BalancedTargets``.
        defer: likewise; the official code follows one schedule for both.

    References:
        As ``BalancedTargets``; the weighted mean is that of ``BalancedLabels``.
    """

    name = "soft_targets_balanced_labels"

    def loss(self, step: Step) -> dict[str, Tensor]:
        class_weights = self.weights_in(step.epoch)
        if class_weights is None:
            return super().loss(step)

        def hard_loss(output: Tensor, batch: Batch) -> Tensor:
            hard = _balanced_hard_loss(output, batch, class_weights)
            return 0.0 * output.sum() if hard is None else hard

        return super().loss(replace(step, hard_loss=hard_loss))


@dataclass(kw_only=True)
class BalancedLabels(_ByRarity):
    """The labels alone, each weighed by how rare its class is: class-balanced cross-entropy.

    Attributes:
        beta: as in ``BalancedTargets``.
        defer: likewise, so that what is compared has one schedule.

    References:
        Cui et al. 2019, arXiv:1901.05555, with softmax cross-entropy; the mean over a batch is weighed, as
        ``torch.nn.functional.cross_entropy(weight=...)`` does.
    """

    name = "balanced_labels"

    def __post_init__(self) -> None:
        check_beta(self.beta)
        check_defer(self.defer)

    def definition(self, *, teachers: int) -> dict[str, Any]:
        if not self.weighs:
            return Labels().definition(teachers=teachers)
        deferred = {"defer": self.defer} if self.defer else {}
        return {"name": self.name, "version": self.version, "beta": self.beta, **deferred}

    def loss(self, step: Step) -> dict[str, Tensor]:
        class_weights = self.weights_in(step.epoch)
        if class_weights is None:
            return Labels().loss(step)
        hard = _balanced_hard_loss(step.student(step.batch), step.batch, class_weights)
        return {} if hard is None else {"total": hard, "hard": hard}


def _balanced_hard_loss(output: Tensor, batch: Batch, class_weights: Tensor) -> Tensor | None:
    """Class-balanced cross-entropy, a scalar; None where no sample of the batch has a label.

    Raises:
        BadInput: the batch is mixed.
    """
    if batch.share is not None:
        raise BadInput("class-balanced labels do not go with mixup: leave data.views.mixup out.")
    known = torch.from_numpy(np.flatnonzero(batch.on_host().labels >= 0))
    if not len(known):
        return None
    known = known.to(output.device, non_blocking=True)
    rare = class_weights.to(output.device, non_blocking=True)
    return weighted_cross_entropy(output[known], batch.labels[known], rare).mean()


def check_defer(defer: float) -> None:
    """Whether ``defer`` is a share of the epochs."""
    if not 0 <= defer <= 1:
        raise BadInput(f"balance.defer is a share of the epochs in [0, 1]; got {defer}.")


def check_beta(beta: float) -> None:
    """Whether ``beta`` is one of effective numbers."""
    if not 0 <= beta < 1:
        raise BadInput(f"balance.beta lies in [0, 1); got {beta}. 0.9999 is usual, 0 is no re-weighting.")


def weights_of(labels: NDArray[np.int64], classes: int, beta: float) -> Tensor:
    """Effective-number weights ``(classes,)`` float32 with mean 1, of the labelled samples."""
    counts = np.bincount(labels[labels >= 0], minlength=classes)
    return effective_number_weights(torch.from_numpy(counts), beta).float()
