"""The natural blocks of a network, by which a structure search can be weighted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import nn

from understudy.errors import BadInput, listed, suggestion

_CONTAINERS = ("features", "blocks", "stages", "layers")


def blocks_of(model: nn.Module) -> dict[str, tuple[str, ...]]:
    """Blocks by name, with the convolutions and linear layers of each, in the order in which they are listed.

    A block is a child of the network: ``stem``, ``stage1`` …, ``head`` of a ResNet. Where one child called
    ``features``, ``blocks``, ``stages`` or ``layers`` holds most of the network, its parts are blocks themselves:
    if it is a plain row of layers, the runs between its poolings, ``block1``, ``block2`` …; else each of its children,
    ``features.3`` or ``blocks.2``. Children without such layers are none. Layers outside any child are called
    ``other``.
    """
    found: dict[str, list[str]] = {}
    for name, module in model.named_modules():
        if isinstance(module, nn.modules.conv._ConvNd | nn.Linear):
            found.setdefault(_block(model, name), []).append(name)
    return {name: tuple(layers) for name, layers in found.items()}


def block_weights(model: nn.Module, weights: Mapping[str, float]) -> dict[str, float]:
    """The weight of each convolution and linear layer: that of its block, 1 where none is given.

    Raises:
        BadInput: the network has no such block.
    """
    check_blocks(model, weights)
    blocks = blocks_of(model)
    return {layer: float(weights.get(name, 1.0)) for name, layers in blocks.items() for layer in layers}


def check_blocks(model: nn.Module, weights: Iterable[str]) -> None:
    """Raises BadInput with the nearest name where ``weights`` names a block that the network does not have."""
    possible = list(blocks_of(model))
    for name in weights:
        if name not in possible:
            raise BadInput(
                f"the network has no block {name!r}.{suggestion(name, possible)} Possible: {listed(possible)}"
            )


def _block(model: nn.Module, layer: str) -> str:
    child, _, rest = layer.partition(".")
    if not rest:
        return child or "other"
    container = getattr(model, child)
    if child not in _CONTAINERS or not isinstance(container, nn.Sequential | nn.ModuleList):
        return child
    if any(True for part in container for _ in part.children()):
        return f"{child}.{rest.partition('.')[0]}"
    run = 1
    for name, part in container.named_children():
        if name == rest:
            break
        run += isinstance(part, nn.MaxPool2d | nn.AvgPool2d)
    return f"block{run}"
