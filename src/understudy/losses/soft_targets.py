"""Soft targets: the Kullback-Leibler divergence from teachers' softened answers to the student's."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def soft_target_loss(student_logits: Tensor, teacher_logits: Tensor, *, temperature: float) -> Tensor:
    """KL(teacher || student) over classes at ``temperature``, times temperature squared.

    Args:
        student_logits: ``(batch, classes)``, before softmax. Receives the gradient.
        teacher_logits: ``(batch, classes)``, before softmax. Treated as constant.
        temperature: divides both sets of logits; 1.0 leaves the probabilities as they are.

    Returns:
        ``(batch,)`` in nats, summed over classes. (``torch.nn.functional.kl_div`` with its default reduction also
        divides by the number of classes; weights published with such code mean something else.)

    Raises:
        ValueError: the shapes differ, or ``temperature`` is not positive.

    References:
        Hinton, Vinyals & Dean 2015, arXiv:1503.02531, section 2: Eq. 1 and the remark on 1/T**2 gradients.
        Mirzadeh et al. 2020, arXiv:1902.03393, Eq. 2.

    >>> same = torch.tensor([[2.0, 0.0, -1.0]])
    >>> soft_target_loss(same, same, temperature=4.0)
    tensor([0.])
    """
    if student_logits.shape != teacher_logits.shape or student_logits.ndim != 2:
        raise ValueError(
            f"student and teacher logits are both (batch, classes); "
            f"got {tuple(student_logits.shape)} and {tuple(teacher_logits.shape)}"
        )
    weight = torch.ones(1, dtype=torch.float32, device=student_logits.device)
    return dense_soft_target_loss(
        student_logits, teacher_logits.unsqueeze(0), temperature=temperature, weights=weight
    )


def dense_soft_target_loss(
    student_logits: Tensor, teacher_logits: Tensor, *, temperature: float, weights: Tensor
) -> Tensor:
    """Weighted sum of the soft-target losses of several teachers.

    Args:
        student_logits: ``(batch, classes)``, before softmax. Receives the gradient.
        teacher_logits: ``(teachers, batch, classes)``, before softmax. Treated as constant.
        temperature: divides all logits.
        weights: ``(teachers,)``, the factor of each teacher's term.

    Returns:
        ``(batch,)`` in nats: the sum over teachers i of ``weights[i] * T**2 * KL(teacher_i || student)``, computed
        in float32 or better whatever the networks' number format, autocast included.

    Raises:
        ValueError: the shapes do not fit, there is no teacher, or ``temperature`` is not positive.

    References:
        Son et al. 2021, arXiv:2009.08825, the sum of KD terms in Eq. 7.
    """
    if (
        teacher_logits.ndim != 3
        or teacher_logits.shape[1:] != student_logits.shape
        or not len(teacher_logits)
    ):
        raise ValueError(
            f"student_logits are (batch, classes) and teacher_logits (teachers, batch, classes); "
            f"got {tuple(student_logits.shape)} and {tuple(teacher_logits.shape)}"
        )
    if weights.shape != teacher_logits.shape[:1]:
        raise ValueError(f"one weight for each of {len(teacher_logits)} teachers; got {tuple(weights.shape)}")
    if not temperature > 0:
        raise ValueError(f"temperature is positive; got {temperature}")
    number_format = torch.promote_types(student_logits.dtype, torch.float32)
    student = F.log_softmax(student_logits.to(number_format) / temperature, dim=-1)
    teachers = F.log_softmax(teacher_logits.detach().to(number_format) / temperature, dim=-1)
    # log_target keeps the term of a class whose probability underflows finite
    divergence = F.kl_div(student.expand_as(teachers), teachers, reduction="none", log_target=True).sum(-1)
    # not as a matrix product, which autocast would round to bfloat16
    return temperature**2 * (weights.to(divergence.dtype).unsqueeze(1) * divergence).sum(0)
