"""Decoupled knowledge distillation (DKD): a rival remedy for the gap, from one teacher."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from understudy.errors import BadInput
from understudy.losses.decoupled import decoupled_loss
from understudy.teaching.method import Method, Needs, Step

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(kw_only=True)
class Decoupled(Method):
    """``L = H(y, student) + ramp * DKD(teacher, student)``, see ``understudy.losses.decoupled.decoupled_loss``.

    Attributes:
        temperature: T.
        target_weight: alpha.
        others_weight: beta.
        warmup: epochs in which the ramp rises from 1 / warmup to 1; 0: it is 1 throughout. The official code has 20
            of 240 epochs.

    References:
        Zhao et al. 2022, arXiv:2203.08679. Defaults as in the official code for CIFAR-100.
    """

    name = "decoupled"

    temperature: float = 4.0
    target_weight: float = 1.0
    others_weight: float = 8.0
    warmup: int = 0

    def __post_init__(self) -> None:
        if not (self.temperature > 0 and math.isfinite(self.temperature)):
            raise BadInput(f"temperature is a positive number; got {self.temperature}.")
        for what in ("target_weight", "others_weight", "warmup"):
            value = getattr(self, what)
            if not (value >= 0 and math.isfinite(value)):
                raise BadInput(f"{what} is a number of 0 or more; got {value}.")

    def definition(self, *, teachers: int) -> dict[str, Any]:
        return {
            "name": self.name,
            "version": self.version,
            "temperature": self.temperature,
            "target_weight": self.target_weight,
            "others_weight": self.others_weight,
            "warmup": self.warmup,
        }

    def needs(self) -> Needs:
        return Needs(logits=True)

    def check(self, *, teachers: int) -> None:
        if teachers != 1:
            raise BadInput(f"decoupled distillation has one teacher; got {teachers}.")

    def loss(self, step: Step) -> dict[str, Tensor]:
        if step.batch.share is not None:
            raise BadInput(
                "decoupled distillation tells the label's class from the others, and mixup blends two: leave "
                "data.views.mixup out."
            )
        output = step.student(step.batch)
        hard = step.hard_loss(output, step.batch)
        soft = decoupled_loss(
            output,
            step.teacher_logits([0], step.batch)[0],
            step.batch.labels,
            temperature=self.temperature,
            target_weight=self.target_weight,
            others_weight=self.others_weight,
        ).mean()
        ramp = min(1.0, (step.epoch + 1) / self.warmup) if self.warmup else 1.0
        return {"total": hard + ramp * soft, "hard": hard, "soft": soft}
