"""Is a training well? Warnings in plain words, from what was logged; nothing here changes a result."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

SMALL_SHARE = 0.01  # of the gradient: a term below it hardly teaches
LARGE_GAP = 0.25  # between training and validation accuracy, as fractions
STILL = 1e-6  # relative movement of a loss over all epochs that counts as none
MANY_SKIPPED = 0.1  # share of batches that taught nothing


def chance(classes: int, samples: int) -> float:
    """The accuracy that guessing reaches on ``samples`` images but once in about a thousand: 1/classes + 3 deviations.

    >>> round(chance(10, 1000), 3)
    0.128
    """
    guess = 1 / classes
    return guess + 3 * math.sqrt(guess * (1 - guess) / max(1, samples))


def tells(classes: int, samples: int) -> bool:
    """Whether so many images can tell a network from guessing: a middling one would be above chance."""
    return chance(classes, samples) < (1 + 1 / classes) / 2


def teacher_warnings(name: str, validation: Mapping[str, float], *, classes: int, samples: int) -> list[str]:
    """Said before teaching starts, of one teacher.

    Args:
        name: of the teacher.
        validation: its metrics on the validation split; empty: nothing can be said.
        classes: of the data.
        samples: of the validation split.
    """
    accuracy = validation.get("accuracy")
    if accuracy is None or not tells(classes, samples) or accuracy > chance(classes, samples):
        return []
    return [
        f"its teacher {name} is no better than guessing: {100 * accuracy:.1f} % of {samples} validation images right, "
        f"of {classes} classes. Are the weights, the order of the classes and the normalisation the right ones?"
    ]


def gradient_shares(parts: Mapping[str, Tensor], output: Tensor) -> dict[str, float]:
    """How much each part of the loss pulls at the student's output: its share of the summed gradient norms.

    The gradient of ``total`` at the output is a weighted sum of those of the parts. The weights, which a method keeps
    to itself, are found by least squares; a part's pull is its weight times the norm of its gradient.

    Args:
        parts: named scalars of one step, ``total`` among them.
        output: of the student, ``(batch, ...)``, that the parts were computed from.

    Returns:
        a fraction for each part but ``total``, together 1; empty where nothing pulls or the gradients are not finite.
    """
    return shares_of(pulls(parts, output))


def pulls(parts: Mapping[str, Tensor], output: Tensor) -> dict[str, Tensor]:
    """The gradient of each part at ``output``, ``total`` last: ``(numbers,)`` float64 on its device, so that no GPU is
    waited for; empty where nothing pulls."""
    names = [name for name in parts if name != "total" and parts[name].requires_grad]
    if not names or not output.requires_grad or not parts["total"].requires_grad:
        return {}
    found = {}
    for name in [*names, "total"]:
        (gradient,) = torch.autograd.grad(parts[name], output, retain_graph=True, allow_unused=True)
        found[name] = (torch.zeros_like(output) if gradient is None else gradient).detach().flatten().double()
    return found


def shares_of(gradients: Mapping[str, Tensor]) -> dict[str, float]:
    """See ``gradient_shares``, from what ``pulls`` gave."""
    if not gradients:
        return {}
    *names, _ = gradients
    *rows, whole = (row.cpu() for row in gradients.values())
    columns = torch.stack(rows, dim=1)
    norms = columns.norm(dim=0)
    if not bool(torch.isfinite(columns).all()) or not bool((norms > 0).any()):
        return {}
    weights = torch.linalg.lstsq(
        columns / norms.clamp(min=1e-300), whole.unsqueeze(1), driver="gelsd"
    ).solution
    sizes = weights.squeeze(1).abs()
    total = float(sizes.sum())
    return {name: float(size) / total for name, size in zip(names, sizes, strict=True)} if total > 0 else {}


def mean_shares(log: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Each part's share of the gradient, averaged over the epochs that have one: single batches are noisy."""
    shares = [line["gradient"] for line in log if line.get("gradient")]
    names = {name: None for share in shares for name in share}
    return {name: sum(share.get(name, 0.0) for share in shares) / len(shares) for name in names}


def training_warnings(
    log: Sequence[Mapping[str, Any]], *, classes: int, samples: int, batches: int, answers: bool = True
) -> list[str]:
    """Said after a training, from the lines of its ``metrics.jsonl``.

    Args:
        log: one mapping an epoch with ``loss`` (parts by name), ``validation`` and ``train`` (``accuracy`` as
            fractions), ``gradient`` (share of each part) and ``skipped`` (batches so far), as far as they are there.
        classes: of the data.
        samples: of the validation split.
        batches: of the whole training.
        answers: whether it learns to answer the task, and not only something that another training begins with.
    """
    if not log:
        return []
    last = log[-1]
    said = []
    losses = [line["loss"] for line in log if line.get("loss")]
    for part in {name: None for loss in losses for name in loss if name != "total"}:
        values = [loss[part] for loss in losses if part in loss]
        if all(value == 0 for value in values):
            said.append(f"the {part} term was exactly 0 in every epoch: it taught nothing.")
    totals = [loss["total"] for loss in losses if "total" in loss]
    if len(totals) > 1 and max(totals) - min(totals) <= STILL * max(map(abs, totals)):
        said.append(f"the loss did not move from {totals[0]:g} in {len(totals)} epochs: nothing was learned.")
    accuracy = last.get("validation", {}).get("accuracy")
    if answers and accuracy is not None and tells(classes, samples) and accuracy <= chance(classes, samples):
        said.append(
            f"it is no better than guessing: {100 * accuracy:.1f} % of {samples} validation images right, "
            f"of {classes} classes. Try a smaller training.lr, or more epochs."
        )
    seen = last.get("train", {}).get("accuracy")
    if accuracy is not None and seen is not None and seen - accuracy > LARGE_GAP:
        said.append(
            f"it knows its training images much better than others ({100 * seen:.1f} % against {100 * accuracy:.1f} %): "
            f"more images, augmentation or weight_decay would help more than more epochs."
        )
    for part, share in mean_shares(log).items():
        if share < SMALL_SHARE:
            said.append(f"the {part} term has {100 * share:.2g} % of the gradient: it hardly teaches.")
    if last.get("skipped", 0) > MANY_SKIPPED * max(1, batches):
        said.append(
            f"{last['skipped']} of {batches} batches taught nothing, because every teacher was dropped."
        )
    return said
