"""How sure a model is, and how right that is: calibration error, its diagram, and the entropy of soft targets."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from understudy.errors import BadInput

ROWS = 8192
"""Rows softened at a time, so that a thousand classes in float64 do not fill the memory."""


@dataclass(frozen=True, kw_only=True)
class Reliability:
    """A reliability diagram: samples sorted into bins of equal width by their confidence.

    Bin m of M, counted from 0, holds confidences in (m / M, (m + 1) / M].

    Attributes:
        count: ``(bins,)`` int64, samples in the bin.
        confidence: ``(bins,)`` float64, their mean highest probability; NaN in an empty bin.
        accuracy: ``(bins,)`` float64, the share of them that is right; NaN in an empty bin.
    """

    count: Tensor
    confidence: Tensor
    accuracy: Tensor


def reliability(logits: Tensor, labels: Tensor, *, bins: int = 15) -> Reliability:
    """Count, mean confidence and accuracy of each confidence bin.

    Args:
        logits: ``(samples, classes)``, before softmax; taken as they are, at temperature 1.
        labels: ``(samples,)``, in 0..classes-1.
        bins: of equal width over 0 to 1. No confidence is below 1 / classes, so the first ones are often empty.

    Raises:
        BadInput: no samples, shapes or labels that do not fit, logits without softmax (NaN), less than one bin.

    References:
        Guo et al. 2017, arXiv:1706.04599, section 2: the sums above Eq. 3; bins closed on the right, as there.
    """
    if bins < 1:
        raise BadInput(f"calibration needs one bin or more; got bins {bins}. 15 is usual.")
    if logits.ndim != 2 or labels.shape != logits.shape[:1]:
        raise BadInput(
            f"calibration needs logits (samples, classes) and labels (samples,); "
            f"got {tuple(logits.shape)} and {tuple(labels.shape)}"
        )
    samples, classes = logits.shape
    if not samples or not classes:
        raise BadInput(f"calibration needs one or more samples; got logits {tuple(logits.shape)}")
    if labels.min() < 0 or labels.max() >= classes:
        raise BadInput(
            f"labels for {classes} classes are in 0..{classes - 1}; got {int(labels.min())}..{int(labels.max())}. "
            f"Leave unlabelled samples out."
        )
    logits = logits.detach()
    confidence = torch.cat([rows.double().softmax(-1).amax(-1) for rows in torch.split(logits, ROWS)])
    if confidence.isnan().any():
        row = int(confidence.isnan().nonzero()[0])
        raise BadInput(
            f"the logits of sample {row} have no softmax (NaN or infinite); calibration needs finite ones"
        )
    right = (logits.argmax(-1) == labels).double()
    edges = torch.arange(1, bins, dtype=torch.float64, device=logits.device) / bins
    place = torch.bucketize(confidence, edges)  # the number of edges below the confidence
    count = torch.bincount(place, minlength=bins)
    return Reliability(
        count=count,
        confidence=torch.bincount(place, weights=confidence, minlength=bins) / count,
        accuracy=torch.bincount(place, weights=right, minlength=bins) / count,
    )


def expected_calibration_error(logits: Tensor, labels: Tensor, *, bins: int = 15) -> float:
    """Mean gap between confidence and accuracy over the confidence bins, weighted by their samples.

    Args:
        logits: ``(samples, classes)``, before softmax; taken as they are, at temperature 1.
        labels: ``(samples,)``, in 0..classes-1.
        bins: of equal width over 0 to 1. Errors from another number of bins do not compare.

    Returns:
        a fraction: sum over bins of count / samples * |accuracy - confidence|. It is biased upwards where bins hold
        few samples.

    Raises:
        BadInput: as ``reliability``.

    References:
        Guo et al. 2017, arXiv:1706.04599, Eq. 3; 15 bins as in its Table 1.

    >>> logits = torch.tensor([[0.0, 0.0]] * 4)  # sure by one half, always says class 0
    >>> expected_calibration_error(logits, torch.tensor([0, 1, 1, 1]))
    0.25
    """
    diagram = reliability(logits, labels, bins=bins)
    gap = (
        (diagram.accuracy - diagram.confidence).abs().nan_to_num(0.0)
    )  # NaN in empty bins, which weigh nothing
    return float((diagram.count * gap).sum() / len(labels))


def entropy_of_targets(logits: Tensor, temperature: float) -> Tensor:
    """Entropy of a teacher's softened answer: how much a soft target says beside its highest class.

    Near 0 the targets are hard labels; near log(classes) they tell the classes no longer apart.

    Args:
        logits: ``(samples, classes)``, before softmax.
        temperature: divides the logits.

    Returns:
        ``(samples,)`` float64, in nats: -sum_c p_c log p_c with p = softmax(logits / temperature).

    Raises:
        BadInput: logits of another shape, or a temperature that is not positive.

    References:
        Shannon 1948, "A mathematical theory of communication", section 6.
        Hinton, Vinyals & Dean 2015, arXiv:1503.02531, Eq. 1: the softened probabilities.

    >>> entropy_of_targets(torch.zeros(1, 2), temperature=4.0)  # log(2)
    tensor([0.6931], dtype=torch.float64)
    """
    if logits.ndim != 2:
        raise BadInput(f"entropy needs logits (samples, classes); got {tuple(logits.shape)}")
    if not temperature > 0:
        raise BadInput(f"temperature is positive; got {temperature}")
    softened = [(rows.double() / temperature).softmax(-1) for rows in torch.split(logits.detach(), ROWS)]
    # entr is 0 at a probability of 0, where p * log(p) is NaN
    return torch.cat([torch.special.entr(probabilities).sum(-1) for probabilities in softened])
