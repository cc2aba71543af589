"""Frozen teachers: eval mode, no gradient, each with its own preprocessing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from understudy.data.batches import Batch
from understudy.models.preprocessing import Preprocessing


@dataclass(frozen=True, kw_only=True)
class Teacher:
    """A trained network and how its images are prepared."""

    model: nn.Module
    preprocessing: Preprocessing


@dataclass(frozen=True, kw_only=True, eq=False)
class Lookup:
    """What a teacher that is not there said of each training image as it is: ``(samples, classes)`` float32."""

    answers: Tensor


class FrozenTeachers:
    """Answers of teachers on the very pixels that the student sees; of a ``Lookup``, on the image as it is.

    Each teacher is put into eval mode (its normalisation keeps the statistics it was trained with), its parameters
    take no gradient, and nothing of it changes, buffers included.
    """

    def __init__(
        self,
        teachers: Sequence[Teacher | Lookup],
        *,
        device: str,
        autocast: Callable[[], AbstractContextManager[object]],
    ) -> None:
        self.teachers = list(teachers)
        self.autocast = autocast
        for teacher in self.teachers:
            if isinstance(teacher, Lookup):
                continue
            teacher.model.to(device=device, memory_format=torch.channels_last).eval().requires_grad_(False)  # type: ignore[call-overload]

    def __len__(self) -> int:
        return len(self.teachers)

    @torch.no_grad()
    def logits(self, which: Sequence[int], batch: Batch) -> Tensor:
        """Logits ``(asked, batch, classes)`` float32 of the teachers at positions ``which``; others do not run."""
        prepared: dict[Preprocessing, Tensor] = {}
        answers = []
        for position in which:
            teacher = self.teachers[position]
            if isinstance(teacher, Lookup):
                answers.append(teacher.answers[batch.index.cpu()].to(batch.pixels.device))
                continue
            if teacher.preprocessing not in prepared:
                prepared[teacher.preprocessing] = teacher.preprocessing(batch.pixels)
            with self.autocast():
                answers.append(teacher.model(prepared[teacher.preprocessing]).float())
        return torch.stack(answers)
