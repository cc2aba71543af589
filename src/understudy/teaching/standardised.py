"""Distillation of standardised logits: a rival remedy for the gap, from one teacher."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from understudy.errors import BadInput
from understudy.losses.standardised import standardised_soft_target_loss
from understudy.teaching.method import Method, Needs, Step

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(kw_only=True)
class Standardised(Method):
    """``L = hard_weight * H(y, student) + soft_weight * T^2 * KL`` of standardised logits.

    Attributes:
        temperature: the base temperature.
        hard_weight, soft_weight: of the two terms.

    References:
        Sun et al. 2024, arXiv:2403.01427. The defaults 0.1, 9 and temperature 2 are those that its official code gives
        for plain distillation on CIFAR-100.
    """

    name = "standardised"

    temperature: float = 2.0
    hard_weight: float = 0.1
    soft_weight: float = 9.0

    def __post_init__(self) -> None:
        if not (self.temperature > 0 and math.isfinite(self.temperature)):
            raise BadInput(f"temperature is a positive number; got {self.temperature}.")
        for what in ("hard_weight", "soft_weight"):
            value = getattr(self, what)
            if not (value >= 0 and math.isfinite(value)):
                raise BadInput(f"{what} is a number of 0 or more; got {value}.")

    def definition(self, *, teachers: int) -> dict[str, Any]:
        return {
            "name": self.name,
            "version": self.version,
            "temperature": self.temperature,
            "hard_weight": self.hard_weight,
            "soft_weight": self.soft_weight,
        }

    def needs(self) -> Needs:
        return Needs(logits=True)

    def check(self, *, teachers: int) -> None:
        if teachers != 1:
            raise BadInput(f"distillation of standardised logits has one teacher; got {teachers}.")

    def loss(self, step: Step) -> dict[str, Tensor]:
        output = step.student(step.batch)
        hard = step.hard_loss(output, step.batch)
        teacher = step.teacher_logits([0], step.batch)[0]
        soft = standardised_soft_target_loss(output, teacher, temperature=self.temperature).mean()
        return {"total": self.hard_weight * hard + self.soft_weight * soft, "hard": hard, "soft": soft}
