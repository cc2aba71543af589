"""What a method teaches in one batch, and the optimiser's steps: the part of the loop that a GPU is never waited for in."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from understudy.data.batches import Batch
from understudy.teaching.method import Method, Step
from understudy.training.settings import Training
from understudy.training.student import Student
from understudy.training.tally import Tally
from understudy.training.teachers import FrozenTeachers


class Lesson:
    """Teaches one batch after the other.

    Args:
        model: the student's network.
        method: the way to teach.
        student: runs the network.
        teachers: frozen, in the method's order.
        optimizer: of everything that is trained.
        average: of the weights, or None.
        tally: adds up what is logged; it knows task and position.
        training: of the student.
        seed: of the method's streams.
    """

    def __init__(
        self,
        model: nn.Module,
        method: Method,
        *,
        student: Student,
        teachers: FrozenTeachers,
        optimizer: torch.optim.Optimizer,
        average: MovingAverage | None,
        tally: Tally,
        training: Training,
        seed: int,
    ) -> None:
        self.model, self.method, self.student, self.teachers = model, method, student, teachers
        self.optimizer, self.average, self.tally = optimizer, average, tally
        self.training, self.seed, self.at = training, seed, tally.at
        self.trained = [parameter for group in optimizer.param_groups for parameter in group["params"]]

    def batch(self, copies: Sequence[Batch], plain: Batch | None, *, share: float) -> Step:
        """Teaches one batch: its gradient, times ``share``, is added to what is there.

        Args:
            copies: the batch, as often as the method asks for it.
            plain: without augmentation, where the method asks for that.
            share: of this batch in the optimiser's step.

        Raises:
            StageFailed: the loss is no finite number; on a GPU the tally finds it when it looks.
        """
        step = Step(
            number=self.at.number,
            epoch=self.at.epoch,
            seed=self.seed,
            batches=copies,
            plain=plain,
            student=self.student,
            hard_loss=self.tally.task.hard_loss,
            teacher_logits=self.teachers.logits,
            student_features=self.student.with_features,
            teacher_features=self.teachers.features,
            run=self.student.run,
            answered=self.student.answered,
        )
        self.student.answers.clear()
        parts = self.method.loss(step)
        if not parts:
            self.at.skipped += 1
            return step
        if self.student.answers:
            self.tally.watch(parts, *self.student.answers[0])
        penalty = self.method.penalty(self.model)
        if penalty is not None:
            parts = {**parts, "total": parts["total"] + penalty, "penalty": penalty}
        (parts["total"] * share).backward()  # type: ignore[no-untyped-call]
        self.tally.note(parts, len(copies[0].labels))
        return step

    def move(self, step: Step, *, rate: float) -> None:
        """Moves the weights by the gradients that are there, if there are any.

        Args:
            step: the last one.
            rate: factor of the learning rate.
        """
        if not any(parameter.grad is not None for parameter in self.trained):
            return
        for group in self.optimizer.param_groups:
            group["lr"] = self.training.lr * rate
        if self.training.clip is not None:
            torch.nn.utils.clip_grad_norm_(self.trained, self.training.clip)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.average is not None:
            self.average.update_parameters(self.model)
        self.method.after_step(self.model, step)


class MovingAverage(AveragedModel):
    """The exponential moving average of a network's weights and buffers, as torch computes it.

    Torch carries its count of steps to the GPU in each of them, and waits; nothing here asks for it there.

    Args:
        model: whose average begins where the first step ends.
        decay: in (0, 1).
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        super().__init__(model, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)  # type: ignore[no-untyped-call]

    @torch.no_grad()
    def update_parameters(self, model: nn.Module) -> None:
        """Follows the network by one step."""
        by_type: dict[torch.dtype, tuple[list[Tensor], list[Tensor]]] = {}
        own = chain(self.module.parameters(), self.module.buffers())
        for average, now in zip(own, chain(model.parameters(), model.buffers()), strict=True):
            if self.n_averaged == 0:
                average.copy_(now)
            else:
                averages, news = by_type.setdefault(average.dtype, ([], []))
                averages.append(average)
                news.append(now)
        for averages, news in by_type.values():
            self.multi_avg_fn(averages, news, self.n_averaged)  # type: ignore[misc]
        self.n_averaged += 1
