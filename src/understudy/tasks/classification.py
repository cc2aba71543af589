"""Image classification: logits, cross-entropy, accuracy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor

from understudy.losses import hard_label_loss

if TYPE_CHECKING:
    from understudy.data.batches import Batch


@dataclass(frozen=True, kw_only=True)
class Classification:
    """One label an image.

    Attributes:
        label_smoothing: in [0, 1), of the hard term only.
    """

    label_smoothing: float = 0.0
    name = "classification"

    def definition(self) -> dict[str, Any]:
        """What of the task decides a result."""
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
        """Accuracy as a fraction.

        Args:
            outputs: logits ``(samples, classes)``.
            labels: ``(samples,)``.

        Returns:
            an empty dictionary where there are no samples.
        """
        if not len(labels):
            return {}
        return {"accuracy": (outputs.argmax(-1) == labels).double().mean().item()}
