"""Balanced distillation: a teacher's answers weighed by class, for training sets with few examples of some classes.

With class weights w and a teacher's softened answer p, the student learns from ``w_c * p_c``, either scaled to a
distribution again, p~, or as it is::

    p~_c = w_c * p_c / sum_j w_j * p_j
    T**2 * KL(p~ || q)                            the official form
    -T**2 * sum_c w_c * p_c * log q_c             the un-normalised form

Since ``log p_c = z_c / T`` but for a constant, p~ is the soft target of the logits ``z + T * log w``. For the student,
the second form is the first times ``sum_c w_c * p_c``, example by example, but for a constant.

The softer the teacher, the more a rare class gains by its weight: with counts 5000 and 50 it may outweigh the
teacher's first choice. The weights fall on the classes of the answer, not on the examples.

References:
    Zhang et al. 2021, arXiv:2104.10510 (balanced knowledge distillation, BKD), and the authors' code, which has the
    first form with ``effective_number_weights`` at beta 0.9999.
"""

from __future__ import annotations

import torch
from torch import Tensor

from understudy.losses.hard_labels import UNLABELLED, hard_label_loss


def effective_numbers(counts: Tensor, beta: float) -> Tensor:
    """``(1 - beta**n) / (1 - beta)`` of each class: n examples that overlap count as so many.

    Args:
        counts: ``(classes,)`` n, the training examples of each class. A class without any counts as one with a single
            example (our choice: the formula would divide by 0).
        beta: in [0, 1); 0 makes every class count 1, towards 1 it counts all its examples.

    Returns:
        ``(classes,)`` float64, 1 or more.

    Raises:
        ValueError: ``counts`` is no list of numbers from 0 up, or ``beta`` lies outside [0, 1).

    References:
        Cui et al. 2019, arXiv:1901.05555 (class-balanced loss by the effective number of samples).

    >>> effective_numbers(torch.tensor([1, 2, 3]), 0.5)
    tensor([1.0000, 1.5000, 1.7500], dtype=torch.float64)
    """
    if counts.ndim != 1 or not len(counts) or not bool((counts >= 0).all()):
        raise ValueError(f"counts are (classes,) numbers from 0 up; got {counts.tolist()}")
    if not 0 <= beta < 1:
        raise ValueError(f"beta lies in [0, 1); got {beta}")
    examples = counts.to(torch.float64).clamp(min=1)
    base = torch.tensor(beta, dtype=torch.float64, device=counts.device)
    # the digits that 1 - beta**n would lose are kept
    return -torch.expm1(examples * base.log()) / (1 - beta)


def effective_number_weights(counts: Tensor, beta: float) -> Tensor:
    """One divided by the effective number of each class, scaled to mean 1.

    Args:
        counts: ``(classes,)``, as in ``effective_numbers``; a class without examples weighs as one with a single one.
        beta: in [0, 1); 0 makes all weights 1.

    Returns:
        ``(classes,)`` float64, positive.

    Raises:
        ValueError: as in ``effective_numbers``.

    References:
        Zhang et al. 2021, arXiv:2104.10510, official code.

    >>> effective_number_weights(torch.tensor([5000, 500, 50]), 0.9999)
    tensor([0.0341, 0.2752, 2.6907], dtype=torch.float64)
    """
    weights = 1 / effective_numbers(counts, beta)
    return weights / weights.mean()


def balanced_logits(teacher_logits: Tensor, weights: Tensor, temperature: float) -> Tensor:
    """``z + T * log w``, of which p~ is the soft target at temperature T.

    So ``soft_target_loss(student_logits, balanced_logits(...), temperature=T)`` is the official form.

    Args:
        teacher_logits: ``(..., classes)``, before softmax.
        weights: ``(classes,)``, positive; their scale does not matter. Their sign is not looked at, which would mean to
            wait for a GPU: 0 excludes the class, and with a negative one the result is no number.
        temperature: T, that of the loss which they are for.

    Returns:
        ``(..., classes)`` in float32 or better.

    Raises:
        ValueError: the shapes do not fit, or ``temperature`` is not positive.
    """
    number_format = _checked(teacher_logits, weights, temperature)
    shift = temperature * weights.to(torch.float64).log()
    return teacher_logits.to(number_format) + shift.to(number_format)


def unnormalised_factor(teacher_logits: Tensor, weights: Tensor, temperature: float) -> Tensor:
    """``sum_c w_c * p_c``, the factor of each example that turns the official form into the un-normalised one.

    Args:
        teacher_logits: ``(..., classes)``, before softmax, without weights. Treated as constant.
        weights: ``(classes,)``, positive; here their scale does matter.
        temperature: T.

    Returns:
        ``(...,)`` in float32 or better.

    Raises:
        ValueError: as in ``balanced_logits``.
    """
    number_format = _checked(teacher_logits, weights, temperature)
    answers = (teacher_logits.detach().to(number_format) / temperature).softmax(-1)
    return (answers * weights.to(number_format)).sum(-1)


def weighted_cross_entropy(student_logits: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    """Cross-entropy at temperature 1, each example weighed by the class of its label.

    The values are scaled so that their mean over the labelled examples is the weighted mean ``sum w * CE / sum w``,
    as torch's own: the scale depends on the batch, so a value does depend on the labels of the other examples.

    Args:
        student_logits: ``(batch, classes)``, before softmax. Receives the gradient.
        labels: ``(batch,)`` class numbers; -1 marks an example without a label, whose loss is 0.
        weights: ``(classes,)``, positive; their scale does not matter.

    Returns:
        ``(batch,)`` in nats, in float32 or better.

    Raises:
        ValueError: the shapes do not fit.

    >>> logits, labels = torch.zeros(2, 2), torch.tensor([0, 1])
    >>> weighted_cross_entropy(logits, labels, torch.tensor([1.0, 3.0]))
    tensor([0.3466, 1.0397])
    """
    number_format = _checked(student_logits, weights, 1.0)
    each = hard_label_loss(student_logits, labels)
    labelled = labels != UNLABELLED
    weight = torch.where(labelled, weights.to(torch.float64)[labels.clamp(min=0)], 0.0)
    mean = weight.sum() / labelled.sum().clamp(min=1)
    scale = torch.where(labelled, weight / mean, 0.0)
    return each * scale.to(number_format)


def _checked(logits: Tensor, weights: Tensor, temperature: float) -> torch.dtype:
    """The number format to compute in."""
    if weights.ndim != 1 or logits.shape[-1:] != weights.shape:
        raise ValueError(
            f"logits are (..., classes) and weights (classes,); got {tuple(logits.shape)} and {tuple(weights.shape)}"
        )
    if not temperature > 0:
        raise ValueError(f"temperature is positive; got {temperature}")
    return torch.promote_types(logits.dtype, torch.float32)
