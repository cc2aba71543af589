"""Where two models differ, sample by sample and class by class, from their kept outputs on the same samples.

The answer of a model is its highest logit, the first of equal ones, as in the accuracy of ``Classification``.
"""

from __future__ import annotations

import torch
from torch import Tensor

from understudy.errors import BadInput


def agreement(first_logits: Tensor, second_logits: Tensor) -> float:
    """Share of samples that both models give the same answer for, right or wrong.

    Args:
        first_logits: ``(samples, classes)``.
        second_logits: the same samples in the same order.

    Raises:
        BadInput: no samples, shapes that do not fit, or NaN.

    References:
        Stanton et al. 2021, arXiv:2106.05945: average top-1 agreement, one of its two measures of fidelity.

    >>> agreement(torch.eye(2), torch.tensor([[5.0, 0.0], [0.3, 0.1]]))
    0.5
    """
    _same_shape(first_logits, second_logits)
    if not len(first_logits):
        raise BadInput("agreement needs one or more samples; got none")
    return (_answers(first_logits) == _answers(second_logits)).double().mean().item()


def per_class_accuracy(logits: Tensor, labels: Tensor, *, classes: int) -> Tensor:
    """Accuracy of each class: the share of its samples that is right.

    Args:
        logits: ``(samples, classes)``.
        labels: ``(samples,)``, in 0..classes-1.
        classes: number of classes, which outputs without samples, ``(0, 0)``, do not tell.

    Returns:
        ``(classes,)`` float64, fractions; NaN for a class without samples.

    Raises:
        BadInput: shapes, classes or labels that do not fit, or NaN.
    """
    if len(logits) and logits.ndim == 2 and logits.shape[1] != classes:
        raise BadInput(
            f"the logits are for {logits.shape[-1]} classes, the data have {classes}: these outputs are not of these data"
        )
    right = _right(logits, labels)
    count = torch.bincount(labels, minlength=classes)
    return torch.bincount(labels, weights=right.double(), minlength=classes) / count


def worst_class(logits: Tensor, labels: Tensor, *, classes: int) -> tuple[int, float] | None:
    """The class with the lowest accuracy, and that accuracy; the first of equal ones.

    Args:
        logits: ``(samples, classes)``.
        labels: ``(samples,)``, in 0..classes-1.
        classes: number of classes.

    Returns:
        class and fraction; None without samples. Classes without samples are passed over. With few samples a class
        the lowest of many is low by chance alone.

    Raises:
        BadInput: as ``per_class_accuracy``.

    >>> worst_class(torch.eye(3), torch.tensor([0, 1, 1]), classes=3)
    (1, 0.5)
    """
    accuracy = per_class_accuracy(logits, labels, classes=classes)
    if not len(labels):
        return None
    worst = int(accuracy.nan_to_num(2.0).argmin())  # 2 is above every accuracy
    return worst, accuracy[worst].item()


def lost(teacher_logits: Tensor, student_logits: Tensor, labels: Tensor) -> Tensor:
    """Samples that the teacher gets right and the student wrong.

    Args:
        teacher_logits: ``(samples, classes)``.
        student_logits: the same samples in the same order.
        labels: ``(samples,)``, in 0..classes-1.

    Returns:
        ``(lost,)`` int64, positions of the samples, ascending.

    Raises:
        BadInput: shapes or labels that do not fit, or NaN.

    >>> lost(torch.eye(2), torch.tensor([[1.0, 0.0], [1.0, 0.0]]), torch.tensor([0, 1]))
    tensor([1])
    """
    _same_shape(teacher_logits, student_logits)
    return (_right(teacher_logits, labels) & ~_right(student_logits, labels)).nonzero().flatten()


def gained(teacher_logits: Tensor, student_logits: Tensor, labels: Tensor) -> Tensor:
    """Samples that the student gets right and the teacher wrong; arguments, result and errors as ``lost``."""
    return lost(student_logits, teacher_logits, labels)


def discordant(first_logits: Tensor, second_logits: Tensor, labels: Tensor) -> tuple[int, int]:
    """Numbers of samples that only the first model, and only the second, gets right, for McNemar's test.

    Args:
        first_logits: ``(samples, classes)``.
        second_logits: the same samples in the same order.
        labels: ``(samples,)``, in 0..classes-1.

    Raises:
        BadInput: shapes or labels that do not fit, or NaN.
    """
    return len(lost(first_logits, second_logits, labels)), len(gained(first_logits, second_logits, labels))


def error_overlap(upper_logits: Tensor, lower_logits: Tensor, labels: Tensor) -> float | None:
    """Share of the upper model's errors that the lower one makes as well: the "error avalanche" down a ladder.

    An error is a wrong answer on the same sample; the two wrong answers need not be the same class. Some overlap is
    there without any teaching, as hard samples are hard for all: hold it against that of a student trained alone.

    Args:
        upper_logits: ``(samples, classes)``, of the model higher on the ladder.
        lower_logits: the same samples in the same order.
        labels: ``(samples,)``, in 0..classes-1.

    Returns:
        a fraction; None where the upper model makes no errors.

    Raises:
        BadInput: shapes or labels that do not fit, or NaN.

    References:
        Son et al. 2021, arXiv:2009.08825, Fig. 4.

    >>> error_overlap(torch.eye(3), torch.eye(3), torch.tensor([0, 0, 0]))
    1.0
    """
    _same_shape(upper_logits, lower_logits)
    upper_wrong, lower_wrong = ~_right(upper_logits, labels), ~_right(lower_logits, labels)
    if not upper_wrong.any():
        return None
    return lower_wrong[upper_wrong].double().mean().item()


def _answers(logits: Tensor) -> Tensor:
    """``(samples,)`` int64. NaN is refused: argmax would take it for the highest."""
    if logits.isnan().any():
        row = int(logits.isnan().any(-1).nonzero()[0])
        raise BadInput(f"the logits of sample {row} hold NaN, which is no answer: leave this model out")
    return logits.argmax(-1) if len(logits) else torch.zeros(0, dtype=torch.int64, device=logits.device)


def _right(logits: Tensor, labels: Tensor) -> Tensor:
    """``(samples,)`` bool."""
    if logits.ndim != 2 or labels.shape != logits.shape[:1]:
        raise BadInput(
            f"a comparison needs logits (samples, classes) and labels (samples,); "
            f"got {tuple(logits.shape)} and {tuple(labels.shape)}"
        )
    classes = logits.shape[1]
    if len(labels) and (labels.min() < 0 or labels.max() >= classes):
        raise BadInput(
            f"labels for {classes} classes are in 0..{classes - 1}; got {int(labels.min())}..{int(labels.max())}. "
            f"Leave unlabelled samples out."
        )
    return _answers(logits) == labels


def _same_shape(first_logits: Tensor, second_logits: Tensor) -> None:
    if first_logits.ndim != 2 or first_logits.shape != second_logits.shape:
        raise BadInput(
            f"two models are compared by logits (samples, classes) of the same samples and classes; "
            f"got {tuple(first_logits.shape)} and {tuple(second_logits.shape)}"
        )
