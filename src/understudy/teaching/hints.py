"""Hints: the student begins by telling the teacher's features (FitNets), the rival of sparse codes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch

from understudy.losses.hints import Regressor, hint_loss
from understudy.teaching.method import Beginning, Method, Needs, Step
from understudy.teaching.sparse_codes import begun, check_some, check_teachers, needs_of

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(kw_only=True)
class Hints(Method):
    """The student's features, through a 1x1 convolution of their own, become the teacher's: ``L = sum mean (r(f) - x)^2``.

    No labels of the task; the convolutions are thrown away, and the stage that follows begins with the weights.

    Attributes:
        pairs: layers ``(student's, teacher's)``, of one feature-map size.

    References:
        Romero et al. 2015, arXiv:1412.6550, Eq. 3, with several layers at a time, as the authors of SRM compare with it.
    """

    name = "hints"

    pairs: tuple[tuple[str, str], ...]
    regressors: list[Regressor] = field(default_factory=list, init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        check_some(self.name, self.pairs)

    def definition(self, *, teachers: int) -> dict[str, Any]:
        return {"name": self.name, "version": self.version, "pairs": [list(pair) for pair in self.pairs]}

    def needs(self) -> Needs:
        return needs_of(self.pairs)

    def check(self, *, teachers: int) -> None:
        check_teachers(self.name, teachers)

    def for_stage(self, *, teachers: int) -> Hints:
        self.check(teachers=teachers)
        return replace(self)

    def begin(self, beginning: Beginning) -> None:
        for student, teacher in begun(self.pairs, beginning):
            self.regressors.append(Regressor(student[0], teacher[0]))

    def modules(self) -> Mapping[str, nn.Module]:
        return {f"regressor{i}": regressor for i, regressor in enumerate(self.regressors)}

    def artefacts(self) -> Mapping[str, Tensor]:
        return {}  # the regressors are thrown away

    def loss(self, step: Step) -> dict[str, Tensor]:
        output, student = step.student_features(step.batch)
        del output
        teacher = step.teacher_features(0, step.batch)
        terms = [
            hint_loss(regressor(student[own]), teacher[other]).mean()
            for (own, other), regressor in zip(self.pairs, self.regressors, strict=True)
        ]
        total = torch.stack(terms).sum()
        return {"total": total, "hints": total}
