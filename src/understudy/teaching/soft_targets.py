"""Distillation from one teacher (TAKD's step) or from all larger ones at once (DGKD), and stochastic teaching."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, Self

import torch

from understudy.errors import BadInput
from understudy.losses import dense_soft_target_loss
from understudy.randomness import numpy_stream
from understudy.teaching.method import Method, Needs, Step

if TYPE_CHECKING:
    from torch import Tensor

Mode = Literal["bernoulli_assistants", "bernoulli_all", "exact_k"]
MODES = ("bernoulli_assistants", "bernoulli_all", "exact_k")


@dataclass(frozen=True, kw_only=True)
class Stochastic:
    """Which teachers teach in a mini-batch: whole terms are dropped at random.

    Attributes:
        mode: ``bernoulli_assistants``: the first teacher always teaches, every other one with probability ``keep``,
            independently; ``bernoulli_all``: the first one too; ``exact_k``: exactly ``drop`` of all are left out,
            each choice equally likely.
        keep: probability that a teacher teaches; in (0, 1]; unused by ``exact_k``.
        drop: how many are left out in ``exact_k``.
        rescale: multiply the soft term by teachers / survivors. Off by default, as published.

    The sources disagree on the form. The equation of the paper, as it is quoted, keeps the teacher and draws a
    Bernoulli variable for each assistant with survival probability 0.75 (the default here); the official code draws a
    fixed number without replacement from the teacher and all assistants (``exact_k``; with three assistants and
    ``drop: 1`` each survives with probability 0.75 too).

    References:
        Son et al. 2021, arXiv:2009.08825, section 3.3 (stochastic DGKD) and its official code.
    """

    mode: Mode = "bernoulli_assistants"
    keep: float = 0.75
    drop: int = 1
    rescale: bool = False

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise BadInput(f"stochastic.mode {self.mode!r} is none of {', '.join(MODES)}.")
        if not 0 < self.keep <= 1:
            raise BadInput(f"stochastic.keep is a probability in (0, 1]; got {self.keep}.")
        if self.drop < 0:
            raise BadInput(f"stochastic.drop is 0 or more; got {self.drop}.")

    def definition(self) -> dict[str, Any]:
        """The settings that matter in this mode."""
        knob = {"drop": self.drop} if self.mode == "exact_k" else {"keep": self.keep}
        return {"mode": self.mode, **knob, "rescale": self.rescale}

    def can_drop(self, teachers: int) -> bool:
        """Whether any of that many teachers is ever left out."""
        if self.mode == "exact_k":
            return self.drop > 0
        return self.keep < 1 and (teachers > 1 or self.mode == "bernoulli_all")

    def survivors(self, teachers: int, *, seed: int, step: int) -> list[int]:
        """Positions of the teachers that teach in mini-batch ``step``, ascending.

        Drawn from (seed, step) alone: neither the order of the data nor the number of workers can change it.
        """
        stream = numpy_stream(seed, "stochastic teaching", step)
        if self.mode == "exact_k":
            dropped = set(stream.choice(teachers, size=min(self.drop, teachers), replace=False).tolist())
            return [position for position in range(teachers) if position not in dropped]
        kept = stream.random(teachers) < self.keep
        if self.mode == "bernoulli_assistants":
            kept[0] = True
        return [position for position in range(teachers) if kept[position]]


@dataclass(kw_only=True)
class SoftTargets(Method):
    """Hard labels and the softened answers of one or several frozen teachers.

    For trainers i = 1..n (the teacher and its assistants), with lambda = ``soft_weight`` and ``combine`` = ``sum``::

        L = sum_i [ (1 - lambda) * H(y, student) + lambda * w_i * T^2 * KL(teacher_i || student) ]

    With n = 1 this is knowledge distillation as TAKD uses it (Mirzadeh et al. 2020, arXiv:1902.03393, Eq. 3); with
    all larger networks as trainers it is DGKD (Son et al. 2021, arXiv:2009.08825, Eq. 7): the soft terms are summed
    and the hard term counts once for each trainer.

    Attributes:
        temperature: T > 0.
        soft_weight: lambda in [0, 1].
        combine: ``sum`` as in the paper, or ``mean``: the sum over trainers divided by their number n, dropped ones
            counted too, so that the size of the loss does not grow with n. The default is our choice: a sum over four
            trainers takes steps four times as large, and was seen to diverge at rates that suit one.
        hard_terms: ``per_teacher``: the hard term is one of the terms combined, once for each trainer (Eq. 7);
            ``once``: it is added once, outside of the sum or mean. The official code of DGKD does the latter.
        kl_reduction: ``batchmean``: KL summed over classes, averaged over the batch, as the papers write it;
            ``mean_over_classes``: also divided by the number of classes, as both official codes compute it. A
            ``soft_weight`` published with one form means something else in the other.
        teacher_weights: w_i, one for each teacher in order; None means 1 for all.
        stochastic: drop teachers at random, see ``Stochastic``; None means that all teach always.

    A step in which no teacher survives keeps its hard term unchanged; where there is none (``soft_weight`` 1) the
    step is skipped. Deviations: targets are computed in float32 whatever the precision of the networks.
    """

    name = "soft_targets"

    temperature: float = 4.0
    soft_weight: float = 0.5
    combine: Literal["sum", "mean"] = "mean"
    hard_terms: Literal["per_teacher", "once"] = "per_teacher"
    kl_reduction: Literal["batchmean", "mean_over_classes"] = "batchmean"
    teacher_weights: tuple[float, ...] | None = None
    stochastic: Stochastic | None = None
    teachers: int = field(default=0, init=False, compare=False)  # set for a stage
    taught: list[int] = field(default_factory=list, init=False, compare=False)  # batches that each taught in
    counted: int = field(
        default=-1, init=False, compare=False
    )  # last batch in them; peers ask m times for one

    def __post_init__(self) -> None:
        if not (self.temperature > 0 and math.isfinite(self.temperature)):
            raise BadInput(f"temperature is a positive number; got {self.temperature}.")
        if not 0 <= self.soft_weight <= 1:
            raise BadInput(f"soft_weight lies in [0, 1]; got {self.soft_weight}.")
        for what, value, possible in (
            ("combine", self.combine, ("sum", "mean")),
            ("hard_terms", self.hard_terms, ("per_teacher", "once")),
            ("kl_reduction", self.kl_reduction, ("batchmean", "mean_over_classes")),
        ):
            if value not in possible:
                raise BadInput(f"{what} {value!r} is none of {', '.join(possible)}.")
        weights = self.teacher_weights
        if weights is not None and not all(w >= 0 and math.isfinite(w) for w in weights):
            raise BadInput(f"teacher_weights are numbers of 0 or more; got {list(weights)}.")

    def definition(self, *, teachers: int) -> dict[str, Any]:
        # Settings under which the loss is the same in every step must be one key.
        several: dict[str, Any] = {}
        if teachers > 1:
            several = {"combine": self.combine}
            if self.combine == "sum":  # in a mean the hard term counts once either way
                several["hard_terms"] = self.hard_terms
        stochastic = self.stochastic if self.stochastic and self.stochastic.can_drop(teachers) else None
        weights = self.teacher_weights
        if weights is not None and all(weight == 1 for weight in weights):
            weights = None
        return {
            "name": self.name,
            "version": self.version,
            "temperature": self.temperature,
            "soft_weight": self.soft_weight,
            "kl_reduction": self.kl_reduction,
            **several,
            **({"teacher_weights": list(weights)} if weights else {}),
            **({"stochastic": stochastic.definition()} if stochastic else {}),
        }

    def needs(self) -> Needs:
        return Needs(logits=True)

    def check(self, *, teachers: int) -> None:
        if teachers < 1:
            raise BadInput("soft targets need at least one teacher.")
        if self.teacher_weights is not None and len(self.teacher_weights) != teachers:
            raise BadInput(
                f"teacher_weights has {len(self.teacher_weights)} numbers for {teachers} teachers."
            )
        if self.stochastic and self.stochastic.mode == "exact_k" and self.stochastic.drop >= teachers:
            raise BadInput(
                f"stochastic.drop {self.stochastic.drop} leaves no teacher of {teachers}; "
                f"possible are 0 to {teachers - 1} here."
            )

    def for_stage(self, *, teachers: int) -> Self:
        self.check(teachers=teachers)
        bound = replace(self)
        bound.teachers = teachers
        bound.taught = [0] * teachers
        return bound

    def loss(self, step: Step) -> dict[str, Tensor]:
        n = self.teachers
        if self.stochastic is None:
            teaching = list(range(n))
        else:
            teaching = self.stochastic.survivors(n, seed=step.seed, step=step.number)
        hard_factor = (1 - self.soft_weight) * (
            n if self.combine == "sum" and self.hard_terms == "per_teacher" else 1
        )
        soft_factor = self.soft_weight / (n if self.combine == "mean" else 1)
        if self.stochastic and self.stochastic.rescale and teaching:
            soft_factor *= n / len(teaching)
        teaching_at_all = bool(teaching) and soft_factor > 0
        if not teaching_at_all and hard_factor == 0:
            return {}
        output = step.student(step.batch)
        hard = step.hard_loss(output, step.batch)
        parts = {"hard": hard}
        total = hard_factor * hard
        if teaching_at_all:
            if step.number != self.counted:
                self.counted = step.number
                for position in teaching:
                    self.taught[position] += 1
            weights = torch.tensor(
                [1.0 if self.teacher_weights is None else self.teacher_weights[i] for i in teaching]
            ).to(output.device, non_blocking=True)
            soft = self.soft_terms(output, step.teacher_logits(teaching, step.batch), weights, step).mean()
            if self.kl_reduction == "mean_over_classes":
                soft = soft / output.shape[-1]
            parts["soft"] = soft
            total = total + soft_factor * soft
        return {"total": total, **parts}

    def soft_terms(self, output: Tensor, teachers: Tensor, weights: Tensor, step: Step) -> Tensor:
        """``sum_i w_i T^2 KL(teacher_i || student)`` for each example, ``(batch,)``.

        Args:
            output: the student's logits ``(batch, classes)``.
            teachers: of those that teach, ``(teaching, batch, classes)``.
            weights: w_i of those, ``(teaching,)``.
            step: of the training.
        """
        return dense_soft_target_loss(output, teachers, temperature=self.temperature, weights=weights)

    def metrics(self) -> dict[str, Any]:
        return {"taught": list(self.taught)}

    def state_dict(self) -> dict[str, Any]:
        return {"taught": list(self.taught)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.taught = list(state["taught"])
