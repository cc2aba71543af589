"""Decoupled distillation: the target class and the other classes weighed apart."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from understudy.losses.hard_labels import UNLABELLED


def decoupled_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor,
    *,
    temperature: float,
    target_weight: float = 1.0,
    others_weight: float = 8.0,
) -> Tensor:
    """``T**2 * (alpha * KL(b_teacher || b_student) + beta * KL(q_teacher || q_student))``.

    b is the pair (probability of the label, probability of all other classes), q the distribution over the other
    classes alone, both at ``temperature``. Plain distillation is the same sum with alpha 1 and beta 1 - p, where p is
    the teacher's probability of the label: a confident teacher's knowledge of the other classes counts little there.

    Args:
        student_logits: ``(batch, classes)``, before softmax. Receives the gradient.
        teacher_logits: ``(batch, classes)``, before softmax. Treated as constant.
        labels: ``(batch,)`` class numbers; -1 marks an example without a label, whose loss is 0.
        temperature: divides both sets of logits.
        target_weight: alpha.
        others_weight: beta.

    Returns:
        ``(batch,)`` in nats.

    Raises:
        ValueError: the shapes do not fit, there are fewer than two classes, or ``temperature`` is not positive.

    References:
        Zhao et al. 2022, arXiv:2203.08679, Eq. 7 (TCKD and NCKD). The defaults alpha 1, beta 8 are those of its
        official code for CIFAR-100.

    >>> same = torch.tensor([[2.0, 0.0, -1.0]])
    >>> decoupled_loss(same, same, torch.tensor([0]), temperature=4.0)
    tensor([0.])
    """
    if (
        student_logits.shape != teacher_logits.shape
        or student_logits.ndim != 2
        or student_logits.shape[1] < 2
    ):
        raise ValueError(
            f"student and teacher logits are both (batch, classes), of two classes or more; "
            f"got {tuple(student_logits.shape)} and {tuple(teacher_logits.shape)}"
        )
    if labels.shape != student_logits.shape[:1]:
        raise ValueError(f"labels are (batch,); got {tuple(labels.shape)} for {len(student_logits)} examples")
    if not temperature > 0:
        raise ValueError(f"temperature is positive; got {temperature}")
    labelled = labels != UNLABELLED
    targets = labels.clamp(min=0).unsqueeze(1)
    student_pair, student_others = _apart(student_logits.float() / temperature, targets)
    teacher_pair, teacher_others = _apart(teacher_logits.detach().float() / temperature, targets)
    target = F.kl_div(student_pair, teacher_pair, reduction="none", log_target=True).sum(-1)
    others = F.kl_div(student_others, teacher_others, reduction="none", log_target=True).sum(-1)
    loss = temperature**2 * (target_weight * target + others_weight * others)
    return torch.where(labelled, loss, torch.zeros_like(loss))


def _apart(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Log-probabilities ``(batch, 2)`` of (target, others) and ``(batch, classes - 1)`` among the others."""
    target = logits.gather(1, targets)
    rest = torch.arange(logits.shape[1] - 1, device=logits.device)
    others = logits.gather(1, rest + (rest >= targets))  # all classes but the target, in order
    pair = torch.cat([target, others.logsumexp(1, keepdim=True)], dim=1)
    return F.log_softmax(pair, dim=1), F.log_softmax(others, dim=1)
