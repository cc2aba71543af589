"""Cross-entropy with the labels: the hard term of every objective."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

UNLABELLED = -1


def hard_label_loss(
    student_logits: Tensor,
    labels: Tensor,
    *,
    label_smoothing: float = 0.0,
    partner_labels: Tensor | None = None,
    share: Tensor | None = None,
) -> Tensor:
    """Cross-entropy H(y, softmax(z)) at temperature 1.

    Args:
        student_logits: ``(batch, classes)``, before softmax. Receives the gradient.
        labels: ``(batch,)`` class numbers; -1 marks an example without a label, whose loss is 0.
        label_smoothing: in [0, 1); this share of the target is spread evenly over all classes.
        partner_labels: ``(batch,)`` labels of the images mixed in (mixup), or None.
        share: ``(batch,)`` weight of ``labels``; ``partner_labels`` weigh ``1 - share``. Given with ``partner_labels``.

    Returns:
        ``(batch,)`` in nats, computed in float32 or better. With mixup: ``share * H(labels) + (1 - share) * H(partner_labels)``; an example of
        which either label is missing has loss 0.

    Raises:
        ValueError: the shapes do not fit, ``label_smoothing`` is outside [0, 1), or only one of ``partner_labels``
            and ``share`` is given.

    References:
        Mirzadeh et al. 2020, arXiv:1902.03393, the term L_SL. Zhang et al. 2018, arXiv:1710.09412 (mixup).

    >>> hard_label_loss(torch.zeros(2, 4), torch.tensor([1, -1]))
    tensor([1.3863, 0.0000])
    """
    if student_logits.ndim != 2 or labels.shape != student_logits.shape[:1]:
        raise ValueError(
            f"student_logits are (batch, classes) and labels (batch,); got {tuple(student_logits.shape)} and {tuple(labels.shape)}"
        )
    if not 0 <= label_smoothing < 1:
        raise ValueError(f"label_smoothing lies in [0, 1); got {label_smoothing}")
    if (partner_labels is None) != (share is None):
        raise ValueError("partner_labels and share are given together")
    for name, tensor in (("partner_labels", partner_labels), ("share", share)):
        # a share of another shape would broadcast to (batch, batch) unnoticed
        if tensor is not None and tensor.shape != labels.shape:
            raise ValueError(
                f"{name} is (batch,) like labels {tuple(labels.shape)}; got {tuple(tensor.shape)}"
            )

    logits = student_logits.to(torch.promote_types(student_logits.dtype, torch.float32))

    def one(targets: Tensor) -> Tensor:
        return F.cross_entropy(
            logits,
            targets,
            reduction="none",
            label_smoothing=label_smoothing,
            ignore_index=UNLABELLED,
        )

    if partner_labels is None or share is None:
        return one(labels)
    both = (labels != UNLABELLED) & (partner_labels != UNLABELLED)
    mixed = share * one(labels) + (1 - share) * one(partner_labels)
    return torch.where(both, mixed, torch.zeros_like(mixed))
