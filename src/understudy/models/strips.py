"""Networks whose filters are strips: 1xN convolutions, which need no buffer of image lines."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, Literal

from understudy.errors import BadInput

if TYPE_CHECKING:
    from torch import nn

Part = Literal["all", "late"]
PARTS = ("all", "late")
WIDEST = 99


def stripped(model: nn.Module, n: int, *, part: Part = "all") -> nn.Module:
    """A copy of a network in which k x k convolutions are 1 x n: each row of the image is filtered by itself.

    Replaced is every two-dimensional convolution whose filter is taller than one row. The new one has padding
    ``(0, n // 2)``, so that it gives as many rows and columns as a k x k one with the usual padding of ``k // 2``;
    stride (in both directions), groups, bias and padding mode stay, as does dilation along the row. Its initial
    weights are torch.nn's own, drawn anew from torch's global generator. All else stays as it is.

    Where every filter is a strip, stride only leaves rows out, and rows meet in pooling alone: in a network without
    pooling inside, such as the residual ones for small images, at the very end. Max pooling of 2x2, the stem of
    large-image networks and squeeze-and-excitation do mix rows.

    Args:
        n: length of the strips in pixels, odd, 3 or more.
        part: ``all``, or ``late``: the first half of these convolutions in module order, rounded down, stays k x k.

    Raises:
        BadInput: another ``n`` or ``part``, no convolution to replace, or one that is not torch.nn's plain one.

    References:
        Son et al. 2020, arXiv:2003.03944 (1 x N "on-the-fly" filters). Which layers are replaced and how they are
        padded is our reading: the abstract is all that we know of it.

    >>> from torch import nn
    >>> stripped(nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.ReLU()), 3)[0]
    Conv2d(3, 8, kernel_size=(1, 3), stride=(2, 2), padding=(0, 1))
    """
    check_strip(n)
    if part not in PARTS:
        raise BadInput(f"strip_part {part!r} is none of {', '.join(PARTS)}.")
    result = copy.deepcopy(model)
    tall = [(name, layer) for name, layer in result.named_modules() if _is_tall(layer)]
    if not tall:
        raise BadInput(
            f"strip: {type(model).__name__} has no convolution whose filter is taller than one row. "
            "Choose a network with 3x3 convolutions, or leave strip out"
        )
    chosen = tall[len(tall) // 2 if part == "late" else 0 :]
    strips = {layer: _strip_like(name, layer, n) for name, layer in chosen}
    for name, layer in list(result.named_modules(remove_duplicate=False)):
        if layer in strips:
            result.set_submodule(name, strips[layer])
    return result


def check_strip(n: int) -> None:
    """Raises BadInput unless ``n`` is an odd whole number from 3 to 99."""
    if isinstance(n, bool) or not isinstance(n, int) or not 3 <= n <= WIDEST or n % 2 == 0:
        raise BadInput(
            f"strip is the length of 1xN filters, an odd whole number from 3 to {WIDEST}; got {n!r}. Try 3"
        )


def _is_tall(layer: nn.Module) -> bool:
    from torch import nn

    return isinstance(layer, nn.Conv2d | nn.ConvTranspose2d) and layer.kernel_size[0] > 1


def _strip_like(name: str, layer: Any, n: int) -> nn.Conv2d:
    from torch import nn

    if type(layer) is not nn.Conv2d:
        raise BadInput(
            f"strip: the layer {name} is a {type(layer).__name__}, and only torch's own Conv2d can be replaced. "
            "Choose another network"
        )
    strip = nn.Conv2d(
        layer.in_channels,
        layer.out_channels,
        (1, n),
        stride=(layer.stride[0], layer.stride[1]),
        padding=(0, n // 2 * layer.dilation[1]),
        dilation=(1, layer.dilation[1]),
        groups=layer.groups,
        bias=layer.bias is not None,
        padding_mode=layer.padding_mode,
        device=layer.weight.device,
        dtype=layer.weight.dtype,
    )
    return strip.train(layer.training).requires_grad_(layer.weight.requires_grad)
