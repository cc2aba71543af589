"""What is added up over an epoch, and when it is looked at."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from understudy.data.batches import Batch
from understudy.errors import StageFailed
from understudy.training.health import pulls, shares_of
from understudy.training.keeping import Position
from understudy.training.settings import Training


class Task(Protocol):
    """What a training asks of a task."""

    def hard_loss(self, outputs: Any, batch: Batch) -> Tensor: ...
    def metrics(self, outputs: Any, labels: Tensor) -> dict[str, float]: ...
    def measured(self, outputs: Any, labels: Tensor) -> Mapping[str, Tensor]: ...


class Tally:
    """Adds up loss parts and figures on training images, and sees to it that the loss is a number.

    On the CPU the position has every number at once. On a GPU a number that is read is waited for, with all work that
    was handed out before; so the sums stay there, in float64, until somebody says ``look``.

    Args:
        at: what is added to.
        training: device and rate.
        task: what the figures are.
    """

    def __init__(self, at: Position, training: Training, task: Task) -> None:
        self.at, self.training, self.task = at, training, task
        self.at_once = training.device == "cpu"
        self.there: dict[tuple[str, str], Tensor] = {}  # sums on the GPU, by field of the position and name
        self.since: list[
            tuple[int, Mapping[str, Tensor]]
        ] = []  # batches nobody looked at yet, their loss parts
        self.pulls: Mapping[str, Tensor] = {}

    def watch(self, parts: Mapping[str, Tensor], batch: Batch, output: Tensor) -> None:
        """Notes how the student does on its own training images, and once an epoch which part pulls how much.

        Args:
            parts: of the loss, before its backward pass.
            batch: that the student answered.
            output: its answer.
        """
        if self.at.batch == 0:
            self.pulls = pulls(parts, output)
            if self.at_once:
                self._share()
        if batch.share is not None:
            return
        labels, answers = batch.on_host().labels, output.detach()
        known = np.flatnonzero(labels >= 0)
        if len(known) < len(labels):
            labels = labels[known]
            answers = answers[torch.from_numpy(known).to(answers.device, non_blocking=True)]
        if len(labels):
            self._add("seen", self.task.measured(answers, torch.from_numpy(labels)), len(labels))
            self.at.labelled += len(labels)

    def note(self, parts: Mapping[str, Tensor], examples: int) -> None:
        """Adds the loss parts of a batch.

        Raises:
            StageFailed: its total is no finite number; on a GPU ``look`` finds it.
        """
        parts = {name: value.detach() for name, value in parts.items()}
        self.at.examples += examples
        self._add("sums", parts, examples)
        if not self.at_once:
            self.since.append((self.at.batch, parts))
        elif not math.isfinite(self.at.sums["total"]):
            raise StageFailed(self._not_finite(self.at.batch, parts))

    def look(self) -> None:
        """Brings the position up to date.

        Raises:
            StageFailed: the total of a batch since the last look is no finite number; the first such batch is named.
        """
        if self.there:
            values = torch.stack([*self.there.values()]).tolist()
            for (field, name), value in zip(self.there, values, strict=True):
                getattr(self.at, field)[name] = value
        self._share()
        since, self.since = self.since, []
        if not math.isfinite(self.at.sums.get("total", 0.0)):
            for batch, parts in since:
                if not math.isfinite(float(parts["total"])):
                    raise StageFailed(self._not_finite(batch, parts))

    def next_epoch(self) -> None:
        """Begins to count anew."""
        self.at.examples, self.at.sums = 0, {}
        self.at.seen, self.at.labelled, self.at.gradient = {}, 0, {}
        self.there, self.since, self.pulls = {}, [], {}

    def _add(self, field: str, values: Mapping[str, Tensor], count: int) -> None:
        """Adds ``values``, scalars, ``count`` times."""
        known: dict[str, float] = getattr(self.at, field)
        for name, value in values.items():
            if self.at_once:
                known[name] = known.get(name, 0.0) + float(value) * count
                continue
            if (field, name) not in self.there:  # goes on from what a checkpoint had
                self.there[field, name] = torch.full(
                    (), known.get(name, 0.0), dtype=torch.float64, device=self.training.device
                )
            self.there[field, name].add_(value.reshape(()), alpha=count)

    def _share(self) -> None:
        if self.pulls:
            self.at.gradient = shares_of(self.pulls)
            self.pulls = {}

    def _not_finite(self, batch: int, parts: Mapping[str, Tensor]) -> str:
        said = ", ".join(f"{name} {float(value):g}" for name, value in parts.items())
        return (
            f"the loss is not a finite number in epoch {self.at.epoch + 1}, batch {batch + 1} ({said}). Try a smaller "
            f"training.lr (now {self.training.lr:g}) or training.clip: 1.0; the last good checkpoint is kept."
        )
