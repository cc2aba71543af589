"""Image classification: logits, cross-entropy, accuracy."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from understudy.data.long_tail import GROUPS, group_of, is_imbalanced
from understudy.losses import hard_label_loss

if TYPE_CHECKING:
    from understudy.data.batches import Batch


@dataclass(frozen=True, kw_only=True)
class Classification:
    """One label an image.

    Attributes:
        label_smoothing: in [0, 1), of the hard term only.
        train_counts: training images of each class, where metrics should be given by how often a class is seen.
    """

    label_smoothing: float = 0.0
    train_counts: tuple[int, ...] | None = None
    name = "classification"

    def definition(self) -> dict[str, Any]:
        """What of the task decides a result; training images are in the data's fingerprint."""
        return {"name": self.name, "label_smoothing": self.label_smoothing}

    def hard_loss(self, logits: Tensor, batch: Batch) -> Tensor:
        """Cross-entropy averaged over the labelled examples of the batch; 0 where none is labelled.

        Args:
            logits: ``(batch, classes)``.
            batch: with labels ``(batch,)``, -1 for unlabelled.
        """
        each = hard_label_loss(
            logits,
            batch.labels,
            label_smoothing=self.label_smoothing,
            partner_labels=batch.partner_labels,
            share=batch.share,
        )
        labelled = batch.labels >= 0
        if batch.partner_labels is not None:
            labelled = labelled & (batch.partner_labels >= 0)
        return each.sum() / labelled.sum().clamp(min=1)

    def metrics(self, outputs: Tensor, labels: Tensor) -> dict[str, float]:
        """Accuracy as a fraction; by how often a class is seen where the training classes are imbalanced.

        ``many``, ``medium`` and ``few`` are of the samples of classes with more than 100, 20 to 100 and fewer than 20
        training images, each only where it has samples; ``balanced`` is the mean of the accuracies of the classes.

        Args:
            outputs: logits ``(samples, classes)``.
            labels: ``(samples,)``.

        Returns:
            an empty dictionary where there are no samples.
        """
        return {name: value.item() for name, value in self.measured(outputs, labels.cpu()).items()}

    def measured(self, outputs: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """As ``metrics``, in float64 scalars beside the outputs: nobody waits for a GPU until one is read.

        Args:
            outputs: logits ``(samples, classes)``, on any device.
            labels: ``(samples,)``, in main memory: they say which figures there are.
        """
        if not len(labels):
            return {}
        right = (outputs.argmax(-1) == _beside(outputs, labels)).double()
        found = {"accuracy": right.mean()}
        if self.train_counts is None or not is_imbalanced(self.train_counts):
            return found
        of_class = torch.bincount(labels)
        right_of_class = right.new_zeros(len(of_class)).index_add_(0, _beside(right, labels), right)
        there = _beside(right, of_class.nonzero().flatten())
        per_class = right_of_class[there] / _beside(right, of_class)[there]
        return {**found, **dict(self._by_group(right, labels)), "balanced": per_class.mean()}

    def _by_group(self, right: Tensor, labels: Tensor) -> Iterator[tuple[str, Tensor]]:
        groups = [group_of(count) for count in self.train_counts or ()]
        for name in GROUPS:
            members = torch.tensor([group == name for group in groups])[labels].nonzero().flatten()
            if len(members):
                yield name, right[_beside(right, members)].mean()


def _beside(other: Tensor, values: Tensor) -> Tensor:
    """``values``, from main memory, on the device of ``other``."""
    return values.to(other.device, non_blocking=True)
