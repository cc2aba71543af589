"""The loss around a trained network, along random directions as large as its filters (Li et al. 2018).

Weights are moved, the loss is looked at, and the weights are put back bit for bit. What is seen is a picture, not a
measure: two dimensions out of thousands, on some images, for one set of weights.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from understudy.data.batches import batch_of
from understudy.data.dataset import Split
from understudy.data.views import PLAIN
from understudy.errors import BadInput
from understudy.models.preprocessing import Preprocessing
from understudy.randomness import numpy_stream
from understudy.training.evaluate import evaluating

MOST_POINTS = 201  # along each direction: 40,401 places

Direction = Mapping[str, Tensor]
Images = Sequence[tuple[Tensor, Tensor]]
_NORMALISATION = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm)


def moving(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that directions move: weights of two dimensions or more, but none of a normalisation."""
    fixed = {
        id(parameter)
        for module in model.modules()
        if isinstance(module, _NORMALISATION)
        for parameter in module.parameters(recurse=False)
    }
    return {
        name: parameter
        for name, parameter in model.named_parameters()
        if parameter.ndim > 1 and parameter.is_floating_point() and id(parameter) not in fixed
    }


def filter_direction(model: nn.Module, *, seed: int, number: int = 0) -> dict[str, Tensor]:
    """A random direction in the space of the weights, each filter of it as long as the network's own.

    Args:
        model: the trained network. A filter is what makes one output channel of a convolution, or one output of a
            linear layer.
        seed: networks of one form have the same direction, but for the lengths of its filters.
        number: which of several directions of that seed.

    Returns:
        a float32 tensor on the CPU for each parameter by name, of its shape; zeros for biases and for everything of a
        normalisation, whose scale the filters do not have.

    References:
        Li, Xu, Taylor, Studer & Goldstein 2018, arXiv:1712.09913, section 4: d[i, j] / |d[i, j]| * |theta[i, j]|.
        Random numbers are ours; a filter of zeros has a direction of zeros, as in the official code.
    """
    stream = numpy_stream(seed, "landscape direction", number)
    weights = moving(model)
    found: dict[str, Tensor] = {}
    for name, parameter in model.named_parameters():
        if name not in weights:
            found[name] = torch.zeros(parameter.shape)
            continue
        drawn = torch.from_numpy(stream.standard_normal(tuple(parameter.shape), dtype=np.float32))
        axes = tuple(range(1, parameter.ndim))
        own = parameter.detach().float().cpu().square().sum(axes, keepdim=True).sqrt()
        found[name] = drawn * (own / drawn.square().sum(axes, keepdim=True).sqrt())
    return found


def walked(
    model: nn.Module,
    directions: Sequence[Direction],
    places: Sequence[Sequence[float]],
    loss: Callable[[], float],
) -> list[float]:
    """The loss at places around a network, whose weights are afterwards as they were, also where the loss raises.

    Args:
        model: whose parameters are moved, in place.
        directions: tensors by the names of parameters; one that is missing does not move.
        places: for each place, how far to go along each direction; all zeros: the weights as they are, to the bit.
        loss: of the model as it then is.

    Returns:
        the loss at each place.
    """
    parameters = dict(model.named_parameters())
    kept: dict[str, Tensor] = {}
    steps: dict[str, list[Tensor]] = {}
    for name, parameter in parameters.items():
        along = [direction[name].to(parameter) if name in direction else None for direction in directions]
        if any(step is not None and bool(step.any()) for step in along):
            kept[name] = parameter.detach().clone()
            steps[name] = [torch.zeros_like(parameter) if step is None else step for step in along]
    found = []
    try:
        for place in places:
            with torch.no_grad():
                for name, own in kept.items():
                    parameters[name].copy_(own)
                    for far, step in zip(place, steps[name], strict=True):
                        if far:
                            parameters[name].add_(step, alpha=far)
            found.append(loss())
    finally:
        with torch.no_grad():
            for name, own in kept.items():
                parameters[name].copy_(own)
    return found


def grid(points: int, *, span: float) -> list[float]:
    """How far to go: ``points`` numbers from ``-span`` to ``span``, equally far apart, with 0 in the middle.

    Raises:
        BadInput: an even number of points, fewer than 3 or more than ``MOST_POINTS``, or a span that is not above 0.

    >>> grid(5, span=1.0)
    [-1.0, -0.5, 0.0, 0.5, 1.0]
    """
    if not 3 <= points <= MOST_POINTS or points % 2 == 0:
        raise BadInput(
            f"points is {points}; it is an odd number from 3 to {MOST_POINTS}, so that the network itself stands in the "
            f"middle; the time it takes grows with its square."
        )
    if not 0 < span <= 100:
        raise BadInput(
            f"span is {span:g}; it is above 0 and at most 100, and 1 goes as far as the weights are large."
        )
    half = points // 2
    return [span * (number - half) / half for number in range(points)]


def some_images(
    split: Split, preprocessing: Preprocessing, *, most: int, seed: int
) -> list[tuple[Tensor, Tensor]]:
    """Labelled images of a split without augmentation as a network takes them, in batches of 256 at most.

    Args:
        split: where they are from; the split of the training images, never that of the test.
        preprocessing: of the network.
        most: how many at most, drawn without repeats.
        seed: of that choice: the same images for every network.

    Returns:
        pairs of images ``(batch, channels, height, width)`` and labels ``(batch,)``.

    Raises:
        BadInput: no image is labelled.
    """
    rows = np.flatnonzero(np.asarray(split.labels) >= 0)
    if not len(rows):
        raise BadInput("no training image has a label, and the loss is of labels.")
    stream = numpy_stream(seed, "landscape images")
    rows = np.sort(stream.permutation(rows)[:most])
    found = []
    for part in np.array_split(rows, -(-len(rows) // 256)):
        batch = batch_of(split, PLAIN, part)
        found.append((preprocessing(batch.pixels), batch.labels))
    return found


def mean_loss(model: nn.Module, images: Images) -> float:
    """Cross-entropy on the labels in nats, over all images; in eval mode, in the number format of the weights.

    Args:
        model: images ``(batch, channels, height, width)`` to logits ``(batch, classes)``; in the same mode afterwards.
            Normalisation has the statistics of the training: they do not follow the weights that are moved.
        images: see ``some_images``; where the model is.
    """
    total, count = 0.0, 0
    with evaluating(model), torch.no_grad():
        for batch, labels in images:
            total += F.cross_entropy(model(batch).float(), labels, reduction="sum").item()
            count += len(labels)
    return total / count


def landscape(model: nn.Module, images: Images, *, steps: Sequence[float], seed: int) -> list[list[float]]:
    """The loss on a grid of two directions around a network, which is afterwards as it was.

    Args:
        model: trained. images: where the model is.
        steps: along both directions, see ``grid``.
        seed: of the directions.

    Returns:
        a row for each step of the second direction, in it a loss for each step of the first. The middle row is the
        loss along the first direction alone.
    """
    directions = [filter_direction(model, seed=seed, number=number) for number in range(2)]
    places = [(first, second) for second in steps for first in steps]
    found = walked(model, directions, places, lambda: mean_loss(model, images))
    return [found[begin : begin + len(steps)] for begin in range(0, len(found), len(steps))]
