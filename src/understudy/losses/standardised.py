"""Soft targets of standardised logits: the student need not match the teacher's scale."""

from __future__ import annotations

from torch import Tensor

from understudy.losses.soft_targets import soft_target_loss

EPSILON = 1e-7  # added to the deviation, as in the official code


def standardised(logits: Tensor) -> Tensor:
    """Each row less its mean, divided by its sample deviation over the classes.

    Args:
        logits: ``(batch, classes)``, two classes or more.

    Returns:
        ``(batch, classes)``; a row of equal logits becomes zeros.
    """
    rows = logits.float()
    return (rows - rows.mean(-1, keepdim=True)) / (rows.std(-1, keepdim=True) + EPSILON)


def standardised_soft_target_loss(
    student_logits: Tensor, teacher_logits: Tensor, *, temperature: float
) -> Tensor:
    """``T**2 * KL(teacher || student)`` of logits that are standardised row by row before they are softened.

    Args:
        student_logits: ``(batch, classes)``, before softmax. Receives the gradient.
        teacher_logits: ``(batch, classes)``, before softmax. Treated as constant.
        temperature: the paper's base temperature; every row's own is this times its deviation.

    Returns:
        ``(batch,)`` in nats. Zero wherever student logits are a rising linear function of the teacher's.

    Raises:
        ValueError: the shapes differ, or ``temperature`` is not positive.

    References:
        Sun et al. 2024, arXiv:2403.01427, Eq. 9 and Algorithm 1 (Z-score of the logits).
    """
    return soft_target_loss(
        standardised(student_logits), standardised(teacher_logits), temperature=temperature
    )
