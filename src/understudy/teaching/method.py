"""The protocol between the training loop and a way to teach.

The loop knows no method; a method knows no optimiser, store or configuration. To add one, subclass ``Method``
in a file of its own, answer ``definition`` and ``loss``, and whatever else it needs; everything else has a default.
"""

from __future__ import annotations

import abc
import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor, nn

    from understudy.data.batches import Batch


@dataclass(frozen=True, kw_only=True)
class Needs:
    """What a method asks the loop for.

    Attributes:
        logits: the teachers' logits on the batch.
        copies: how many independently augmented copies of each batch it looks at (1: the usual).
        plain: the batch without augmentation too.
        features: names of the student's layers whose outputs it looks at.
        teacher_features: for each teacher, in order, names of its layers whose outputs it looks at.
    """

    logits: bool = False
    copies: int = 1
    plain: bool = False
    features: tuple[str, ...] = ()
    teacher_features: tuple[tuple[str, ...], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Beginning:
    """What a method learns of its stage before the first step.

    Attributes:
        model: the student with the weights that it begins with.
        labels: ``(samples,)`` int64 of the training split; -1 is an unlabelled sample.
        classes: how many there are.
        epochs: of the stage.
        seed: of the stage, as in every step.
        shapes: of each layer that ``Needs.features`` names, its output's shape without the batch.
        teacher_shapes: likewise for each teacher and ``Needs.teacher_features``.
        handed: for each teacher what its own method handed on, see ``Method.artefacts``; None where a training is only
            timed, before there is anything.
    """

    model: nn.Module
    labels: NDArray[np.int64]
    classes: int
    epochs: int
    seed: int
    shapes: Mapping[str, tuple[int, ...]]
    teacher_shapes: Sequence[Mapping[str, tuple[int, ...]]]
    handed: Sequence[Mapping[str, Tensor]] | None


@dataclass(frozen=True, kw_only=True)
class Survey:
    """Answers to all of the training split without augmentation, in its order, computed when they are asked for.

    Attributes:
        fingerprint: of the student's weights as they are now, 16 hexadecimal digits.
        student: its logits ``(samples, classes)`` float32 on the CPU, in eval mode.
        teachers: for positions in the stage's list of teachers, ``(asked, samples, classes)`` float32 on the CPU, less
            their mean over the classes and rounded as all that teachers say. Computed once a process.
    """

    fingerprint: Callable[[], str]
    student: Callable[[], Tensor]
    teachers: Callable[[Sequence[int]], Tensor]


def _not_here(*_: Any) -> NoReturn:
    raise RuntimeError("whoever made this step did not provide what the method asks for")


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
        student_features: runs the student on a batch; its output, and what the layers that ``Needs.features`` names gave.
        teacher_features: what the layers that ``Needs.teacher_features`` names gave in the teacher at a position, on a
            batch; float32, without gradient, always computed at once.
        run: calls a function with a batch's images ``(batch, channels, height, width)`` as the student takes them, in
            the stage's precision. For methods that run parts of the student, or networks of their own.
        answered: notes logits ``(batch, classes)`` of a batch as the student's answer, by which the training is looked
            on. ``student`` does so by itself; whoever calls ``run`` instead should.
    """

    number: int
    epoch: int
    seed: int
    batches: Sequence[Batch]
    student: Callable[[Batch], Any]
    hard_loss: Callable[[Any, Batch], Tensor]
    teacher_logits: Callable[[Sequence[int], Batch], Tensor]
    plain: Batch | None = None
    student_features: Callable[[Batch], tuple[Tensor, Mapping[str, Tensor]]] = _not_here
    teacher_features: Callable[[int, Batch], Mapping[str, Tensor]] = _not_here
    run: Callable[[Callable[[Tensor], Any], Batch], Any] = _not_here
    answered: Callable[[Batch, Tensor], None] = _not_here

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

    @property
    def trains_student(self) -> bool:
        """False where only the method's own modules are trained, on a student that stays as it is, in eval mode."""
        return True

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

    def begin(self, beginning: Beginning) -> None:
        """Called once before the first step, also before a resume: the time to make modules. What is drawn from torch's
        global generator here is the same each time.

        Raises:
            BadInput: the settings do not fit the network or the data.
        """

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

    def on_epoch(self, epoch: int, survey: Survey) -> None:
        """Called before the first batch of each epoch, also after a resume in the middle of one."""

    def order(self, epoch: int, usual: list[NDArray[np.int64]]) -> list[NDArray[np.int64]]:
        """Which samples each batch of an epoch has; as many batches as ``usual``, and the same whenever it is asked."""
        return usual

    def delivered(self, model: nn.Module) -> nn.Module:
        """The network whose weights are the stage's result: the student, or one of the method's own of the same form."""
        return model

    def artefacts(self) -> Mapping[str, Tensor]:
        """Tensors that are kept with the stage's result, and handed to stages that learn from it: all of ``modules``
        unless said otherwise."""
        return {
            f"{name}.{key}": tensor
            for name, module in self.modules().items()
            for key, tensor in module.state_dict().items()
        }

    def metrics(self) -> dict[str, Any]:
        """Figures since the stage began, for the log: plain JSON values."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """What the method remembers beside its modules: tensors and plain JSON values; kept in checkpoints."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes back what ``state_dict`` gave."""
