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


class FrozenTeachers:
    """Answers of teachers on the very pixels that the student sees.

    Each teacher is put into eval mode (its normalisation keeps the statistics it was trained with), its parameters
    take no gradient, and nothing of it changes, buffers included.
    """

    def __init__(
        self,
        teachers: Sequence[Teacher],
        *,
        device: str,
        autocast: Callable[[], AbstractContextManager[object]],
    ) -> None:
        self.teachers = list(teachers)
        self.autocast = autocast
        for teacher in self.teachers:
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
            if teacher.preprocessing not in prepared:
                prepared[teacher.preprocessing] = teacher.preprocessing(batch.pixels)
            with self.autocast():
                answers.append(teacher.model(prepared[teacher.preprocessing]).float())
        return torch.stack(answers)
