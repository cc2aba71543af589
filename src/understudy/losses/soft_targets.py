"""Soft targets: the Kullback-Leibler divergence from teachers' softened answers to the student's."""

from __future__ import annotations

import math

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

    The divergence is linear in the target, so with p_i of teacher i, q of the student and weights w_i it equals ::

        sum_i w_i * KL(p_i || q) = sum_c [ sum_i w_i * p_i * log p_i - (sum_i w_i * p_i) * log q ]

    The first term does not depend on the student, and in the second the teachers are one merged target: only that
    takes part in the backward pass, however many teachers there are.

    Args:
        student_logits: ``(batch, classes)``, before softmax. Receives the gradient.
        teacher_logits: ``(teachers, batch, classes)``, before softmax. Treated as constant. A class at minus infinity
            has probability 0 and adds nothing.
        temperature: divides all logits.
        weights: ``(teachers,)``, the factor of each teacher's term. Treated as constant.

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
    now = student.detach()
    with torch.no_grad():
        teachers = F.log_softmax(teacher_logits.to(number_format) / temperature, dim=-1)
        teachers.clamp_(min=torch.finfo(number_format).min)  # 0 * log 0 is no number
        # 2**(log p / log 2): on x86 torch computes exp2 four times as fast as exp. The division rounds no more than
        # log_softmax did.
        targets = (teachers / math.log(2)).exp2_()
        targets.mul_((temperature**2 * weights.to(number_format)).view(-1, 1, 1))
        target = targets.sum(0)
        # The difference before any sum: exactly zero where a teacher and the student agree.
        divergence = teachers.sub_(now).mul_(targets).sum(-1).sum(0)
    # What is added is zero and has the gradient of -target * log q. The value of the identity's two terms would be
    # worse: where all agree they are two large numbers whose difference is not quite zero.
    # No matrix product and no vecdot, which autocast would round to half precision.
    return divergence + (target * (now - student)).sum(-1)
