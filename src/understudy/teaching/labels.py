"""No teacher: the student learns from the labels alone (the control ``scratch``)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from understudy.teaching.method import Method, Step

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(kw_only=True)
class Labels(Method):
    """Cross-entropy with the labels; where the term L_SL of Mirzadeh et al. 2020 stands alone."""

    name = "labels"

    def definition(self, *, teachers: int) -> dict[str, Any]:
        return {"name": self.name, "version": self.version}

    def loss(self, step: Step) -> dict[str, Tensor]:
        hard = step.hard_loss(step.student(step.batch), step.batch)
        return {"total": hard, "hard": hard}
