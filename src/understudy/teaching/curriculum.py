"""Instance-level sequence learning: the student itself, as it was early on, says in which order samples come."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from understudy.data.ordering import available, curriculum_order, prefix_batches, sequence_batches
from understudy.errors import BadInput, listed
from understudy.losses import soft_target_loss
from understudy.randomness import numpy_stream
from understudy.teaching.around import Around
from understudy.teaching.method import Beginning, Method, Needs, Survey

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

SCORES = ("gap", "loss", "confidence", "teacher", "random")
OF_TEACHERS = ("gap", "teacher")
OF_LABELS = ("loss", "confidence", "teacher")
DIRECTIONS = ("easy_first", "hard_first")
PACINGS = ("exponential", "linear", "single_step", "sequence")


@dataclass(kw_only=True)
class Curriculum(Around):
    """Another way to teach, on samples that come in an order: easy ones first.

    Training has phases. In the first, samples come as usual. At each boundary the student as it is then (the snapshot)
    answers all training images without augmentation; each sample gets a score, and the samples of each class are
    ranked by it and interleaved, so that every beginning of the order has all classes in their proportions. In the
    phase that follows, batches are drawn from a beginning of that order, which grows. The last part is as usual again.
    The number of steps is that of a training without: while only a part of the samples is available, they come more
    often. A sample that comes twice in an epoch is seen in the same view twice, which is why kept signals serve it.

    Attributes:
        method: how the student is taught.
        score: what makes a sample difficult. ``gap``: ``T^2 KL(teacher || snapshot)``, the mean over several teachers;
            ``loss``: the snapshot's cross-entropy with the label; ``confidence``: 1 less its probability of the label;
            ``teacher``: the cross-entropy of the mean of the teachers' logits with the label; ``random``.
        direction: ``easy_first``, or ``hard_first`` as a control.
        pacing: how the available part grows over a phase, see ``understudy.data.ordering.available``; ``sequence``: each
            epoch walks through the whole order, shuffled only within bands of ten batches.
        start: the part that is available first. growth, step: so many times larger at each such share of the phase,
            if ``exponential``; the others have all samples when that has. ``sequence`` looks at none of them.
        boundaries: where phases begin, as shares of the epochs; rounded to whole epochs, at least one.
        uniform: share of the epochs, at the end, in which samples come as usual.
        temperature: T of the gap.

    A sample without a label has the mean score where the score needs one.

    References:
        Zhao et al. 2021, arXiv:2106.10885. Known of it is the abstract: a snapshot of the student from an early epoch
        makes the curriculum of its next phase. Score, direction, interleaving, pacing and phases are our reconstruction.
    """

    name = "curriculum"

    method: Method
    score: Literal["gap", "loss", "confidence", "teacher", "random"] = "gap"
    direction: Literal["easy_first", "hard_first"] = "easy_first"
    pacing: Literal["exponential", "linear", "single_step", "sequence"] = "exponential"
    start: float = 0.1
    growth: float = 1.9
    step: float = 0.05
    boundaries: tuple[float, ...] = (0.1, 0.3, 0.6)
    uniform: float = 0.2
    temperature: float = 4.0
    teachers: int = field(default=0, init=False, compare=False)
    orders: list[Tensor] = field(default_factory=list, init=False, compare=False, repr=False)
    scores: list[Tensor] = field(default_factory=list, init=False, compare=False, repr=False)
    snapshots: list[str] = field(default_factory=list, init=False, compare=False, repr=False)
    labels: NDArray[np.int64] = field(
        default_factory=lambda: np.zeros(0, np.int64), init=False, compare=False, repr=False
    )
    epochs: int = field(default=0, init=False, compare=False, repr=False)
    seed: int = field(default=0, init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        for what, value, possible in (
            ("score", self.score, SCORES),
            ("direction", self.direction, DIRECTIONS),
            ("pacing", self.pacing, PACINGS),
        ):
            if value not in possible:
                raise BadInput(f"curriculum.{what} {value!r} is none of {', '.join(possible)}.")
        if not 0 < self.start <= 1:
            raise BadInput(f"curriculum.start is a share of the samples in (0, 1]; got {self.start}.")
        if not (self.growth > 1 and math.isfinite(self.growth)):
            raise BadInput(f"curriculum.growth is above 1; got {self.growth}.")
        if not 0 < self.step <= 1:
            raise BadInput(f"curriculum.step is a share of a phase in (0, 1]; got {self.step}.")
        if not (self.temperature > 0 and math.isfinite(self.temperature)):
            raise BadInput(f"curriculum.temperature is a positive number; got {self.temperature}.")
        if not 0 <= self.uniform < 1:
            raise BadInput(f"curriculum.uniform is a share of the epochs in [0, 1); got {self.uniform}.")
        ends = (0.0, *self.boundaries, 1 - self.uniform)
        if not self.boundaries or any(later <= earlier for earlier, later in pairwise(ends)):
            raise BadInput(
                f"curriculum.boundaries are shares of the epochs that rise, above 0 and below 1 - uniform = "
                f"{1 - self.uniform:g}; got {listed(f'{one:g}' for one in self.boundaries)}."
            )

    def definition(self, *, teachers: int) -> dict[str, Any]:
        # when all samples are there depends on growth and step, whatever the way to it
        paced = {"start": self.start, "growth": self.growth, "step": self.step}
        return {
            "name": self.name,
            "version": self.version,
            "method": self.method.definition(teachers=teachers),
            "score": self.score,
            **({"direction": self.direction} if self.score != "random" else {}),
            "pacing": self.pacing,
            **(paced if self.pacing != "sequence" else {}),
            "boundaries": list(self.boundaries),
            "uniform": self.uniform,
            **({"temperature": self.temperature} if self.score == "gap" else {}),
        }

    def needs(self) -> Needs:
        inner = self.method.needs()
        return replace(inner, logits=inner.logits or self.score in OF_TEACHERS)

    def check(self, *, teachers: int) -> None:
        self.method.check(teachers=teachers)
        if self.score in OF_TEACHERS and not teachers:
            raise BadInput(
                f"curriculum.score {self.score} needs a teacher, and the stage has none. Without one: loss, confidence "
                f"or random."
            )

    def for_stage(self, *, teachers: int) -> Curriculum:
        self.check(teachers=teachers)
        bound = replace(self, method=self.method.for_stage(teachers=teachers))
        bound.teachers = teachers
        return bound

    def begin(self, beginning: Beginning) -> None:
        super().begin(beginning)
        self.labels, self.epochs, self.seed = beginning.labels, beginning.epochs, beginning.seed
        if self.score in OF_LABELS and not (self.labels >= 0).any():
            raise BadInput(
                f"curriculum.score {self.score} needs labels, and no training image has one. Without them: gap or random."
            )

    def phases(self, epochs: int | None = None) -> list[int]:
        """The epochs at which phases begin, and last the one from which samples come as usual again. A phase for which
        so few epochs (of the stage, unless said) leave no room is left out."""
        epochs = self.epochs if epochs is None else epochs
        end = epochs - round(self.uniform * epochs)
        begins = sorted({max(1, round(share * epochs)) for share in self.boundaries})
        return [*(epoch for epoch in begins if epoch < end), end]

    def on_epoch(self, epoch: int, survey: Survey) -> None:
        super().on_epoch(epoch, survey)
        *begins, _ = self.phases()
        if epoch not in begins or len(self.orders) > begins.index(epoch):
            return
        scores = self._scores(survey, epoch)
        turned = self.direction == "hard_first" and self.score != "random"
        order = curriculum_order(-scores if turned else scores, self.labels)
        self.orders.append(torch.from_numpy(order.astype(np.int32)))
        self.scores.append(torch.from_numpy(scores.astype(np.float32)))
        self.snapshots.append(survey.fingerprint())

    def order(self, epoch: int, usual: list[NDArray[np.int64]]) -> list[NDArray[np.int64]]:
        usual = super().order(epoch, usual)
        *begins, end = self.phases()
        phase = sum(begin <= epoch for begin in begins) - 1
        if phase < 0 or epoch >= end:
            return usual
        order, sizes = self.orders[phase].numpy().astype(np.int64), [len(batch) for batch in usual]
        if self.pacing == "sequence":
            return sequence_batches(order, sizes, seed=self.seed, epoch=epoch)
        first, last = [*begins, end][phase : phase + 2]
        batches = len(usual)
        progress = [((epoch - first) * batches + i) / ((last - first) * batches) for i in range(batches)]
        parts = [
            available(one, pacing=self.pacing, start=self.start, growth=self.growth, step=self.step)
            for one in progress
        ]
        return prefix_batches(order, parts, sizes, seed=self.seed, epoch=epoch)

    def _scores(self, survey: Survey, epoch: int) -> NDArray[np.float64]:
        if self.score == "random":
            return numpy_stream(self.seed, "curriculum", epoch).random(len(self.labels))
        everyone = list(range(self.teachers))
        if self.score == "gap":
            student = survey.student()
            gaps = [
                soft_target_loss(student, one, temperature=self.temperature)
                for one in survey.teachers(everyone)
            ]
            return torch.stack(gaps).mean(0).double().numpy()
        answers = survey.teachers(everyone).mean(0) if self.score == "teacher" else survey.student()
        known = torch.from_numpy(self.labels >= 0)
        right = torch.from_numpy(self.labels.clip(min=0).copy())
        said = torch.log_softmax(answers.double(), dim=1).gather(1, right[:, None])[:, 0]
        scores = 1 - said.exp() if self.score == "confidence" else -said
        scores[~known] = scores[known].mean()
        return scores.numpy()

    def artefacts(self) -> Mapping[str, Tensor]:
        """Beside the inner method's, for each phase the order (positions in the training split) and the scores."""
        own = {f"order{i}": order for i, order in enumerate(self.orders)}
        own |= {f"scores{i}": scores for i, scores in enumerate(self.scores)}
        return {**super().artefacts(), **{f"curriculum.{name}": value for name, value in own.items()}}

    def metrics(self) -> dict[str, Any]:
        if not self.snapshots:
            return super().metrics()
        said = [
            {
                "snapshot": snapshot,
                "scores": {"mean": float(s.mean()), "lowest": float(s.min()), "highest": float(s.max())},
            }
            for snapshot, s in zip(self.snapshots, self.scores, strict=True)
        ]
        return {**super().metrics(), "curriculum": said}

    def state_dict(self) -> dict[str, Any]:
        return {
            "method": super().state_dict(),
            "orders": list(self.orders),
            "scores": list(self.scores),
            "snapshots": list(self.snapshots),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state["method"])
        self.orders, self.scores = list(state["orders"]), list(state["scores"])
        self.snapshots = list(state["snapshots"])
