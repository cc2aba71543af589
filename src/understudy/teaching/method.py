"""The protocol between the training loop and a way to teach.

The loop knows no method; a method knows no optimiser, store or configuration. To add one, subclass ``Method``
in a file of its own, answer ``definition`` and ``loss``, and whatever else it needs; everything else has a default.
"""

from __future__ import annotations

import abc
import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from torch import Tensor, nn

    from understudy.data.batches import Batch


@dataclass(frozen=True, kw_only=True)
class Needs:
    """What a method asks the loop for.

    Attributes:
        logits: the teachers' logits on the batch.
        copies: how many independently augmented copies of each batch it looks at (1: the usual).
        plain: the batch without augmentation too.
    """

    logits: bool = False
    copies: int = 1
    plain: bool = False


@dataclass(frozen=True, kw_only=True)
class Step:
    """One batch as the loop hands it to a method.

    Attributes:
        number: counts the batches of the whole stage, from 0; it does not depend on workers or on a resume.
        epoch: counts passes over the training set, from 0.
        seed: the stage's seed, for the method's own random streams (see ``understudy.randomness``).
        batches: one ``understudy.data.batches.Batch`` for each copy asked for; ``batches[0]`` is the usual one.
        plain: the batch without augmentation, where asked for.
        student: runs the student on a batch, in the stage's precision; returns its output.
        hard_loss: the task's loss against the labels, averaged over the labelled examples; a scalar.
        teacher_logits: for positions in the stage's list of teachers, their logits on a batch
            ``(asked, batch, classes)``, float32, without gradient, less their mean over the classes and rounded as
            they are kept (see ``understudy.Signals``). The usual batch is read where that is kept; other copies and
            the plain batch are answered at once. Teachers that are not asked are not run.
    """

    number: int
    epoch: int
    seed: int
    batches: Sequence[Batch]
    student: Callable[[Batch], Any]
    hard_loss: Callable[[Any, Batch], Tensor]
    teacher_logits: Callable[[Sequence[int], Batch], Tensor]
    plain: Batch | None = None

    @property
    def batch(self) -> Batch:
        """The usual batch: the first copy."""
        return self.batches[0]


class Method(abc.ABC):
    """A way to teach. Only ``definition`` and ``loss`` must be written.

    Class attributes:
        name: as it stands in definitions and reports.
        version: raise it whenever the same settings would give other results; results of other versions are then
            never taken for this one's.
    """

    name: ClassVar[str]
    version: ClassVar[int] = 1

    @abc.abstractmethod
    def definition(self, *, teachers: int) -> dict[str, Any]:
        """The settings that decide the result with this many teachers, as plain JSON values; part of the key."""

    def needs(self) -> Needs:
        """What the loop must provide in each step."""
        return Needs()

    def check(self, *, teachers: int) -> None:
        """Raises ``understudy.errors.BadInput`` where the settings do not fit that many teachers."""

    def for_stage(self, *, teachers: int) -> Method:
        """A fresh method, with nothing remembered, for one stage with that many teachers.

        Raises:
            BadInput: see ``check``.
        """
        self.check(teachers=teachers)
        return copy.deepcopy(self)

    def modules(self) -> Mapping[str, nn.Module]:
        """What is trained beside the student: in the optimiser, in clipping, in checkpoints and artefacts."""
        return {}

    def no_decay(self, model: nn.Module) -> Iterable[str]:
        """Names of the student's parameters that weight decay must leave alone."""
        return ()

    @abc.abstractmethod
    def loss(self, step: Step) -> dict[str, Tensor]:
        """The named parts of the loss for one step; ``total`` is what is minimised, the others are logged.

        An empty dictionary means that this step teaches nothing: it is skipped and counted.
        """

    def penalty(self, model: nn.Module) -> Tensor | None:
        """A term on the student's weights (a structure penalty, say), added to ``total`` once a step."""
        return None

    def after_step(self, model: nn.Module, step: Step) -> None:
        """Called after the optimiser moved the weights (an EMA of the method's own, say)."""

    def on_epoch(self, epoch: int) -> None:
        """Called before the first batch of each epoch, also after a resume in the middle of one."""

    def metrics(self) -> dict[str, Any]:
        """Figures since the stage began, for the log: plain JSON values."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """What the method remembers beside its modules: tensors and plain JSON values; kept in checkpoints."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes back what ``state_dict`` gave."""
