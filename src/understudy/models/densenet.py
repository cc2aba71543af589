"""Densely connected networks for small images: every layer reads what all before it in its block gave."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn

from understudy.errors import BadInput, listed
from understudy.models.allcnn import draw_by_inputs
from understudy.models.limits import check_halvings, check_shapes, check_width, scaled
from understudy.models.names import DENSENET, DENSENET_BC_DEPTHS, DENSENET_BC_GROWTHS

WIRING = (
    "stem; block1, transition1, block2 and so on in the order listed, each with its parts in order; norm, relu, pool, "
    "flatten, head. A transition is norm, relu, conv, pool after one another. A layer L of a block maps x to the "
    "channels of conv2(relu2(norm2(conv1(relu1(norm1(x)))))) followed by those of x, its layers being L.norm1 and so on"
)

_BOTTLENECK = 4  # a layer narrows to this times the growth before its 3x3 convolution
_BLOCKS: dict[int, tuple[int, ...]] = {121: (6, 12, 24, 16)}  # layers in each block


class DenseLayer(nn.Module):
    """Batch norm and ReLU before a 1x1 and before a 3x3 convolution; what comes out is put before what went in."""

    def __init__(self, inputs: int, growth: int, *, bias: bool) -> None:
        super().__init__()
        inner = _BOTTLENECK * growth
        self.norm1 = nn.BatchNorm2d(inputs)
        self.relu1 = nn.ReLU()
        self.conv1 = nn.Conv2d(inputs, inner, 1, bias=bias)
        self.norm2 = nn.BatchNorm2d(inner)
        self.relu2 = nn.ReLU()
        self.conv2 = nn.Conv2d(inner, growth, 3, padding=1, bias=bias)

    def forward(self, features: Tensor) -> Tensor:
        """``(batch, inputs, height, width)`` to ``(batch, growth + inputs, height, width)``."""
        new = self.conv2(self.relu2(self.norm2(self.conv1(self.relu1(self.norm1(features))))))
        return torch.cat([new, features], 1)


class DenseNet(nn.Module):
    """A 3x3 stem, dense blocks with a transition between two of them, batch norm, ReLU, global pooling, a linear head.

    A transition halves the channels (rounded down) with a 1x1 convolution, and height and width with 2x2 average
    pooling. The stem has stride 1 and is not pooled: this is the form for small images. There is no dropout.

    Args:
        blocks: layers in each dense block.
        growth: channels that one layer adds.
        stem: channels of the stem.
        bias: whether convolutions have one; they start as 0.
        image: height and width in pixels; each needs 2 to the power of the number of transitions.
        width: multiplies ``growth`` and ``stem``, ``max(1, round(channels * width))``; all else follows from these.
        name: what an error calls the network.

    Raises:
        BadInput: the image is too small for the poolings.

    References:
        Huang et al. 2017, arXiv:1608.06993, sections 3 and 4 (DenseNet-BC). Weights start as N(0, 2 / inputs of one
        output), He et al. 2015, arXiv:1502.01852, Eq. 10. In which order channels are concatenated only renames them.
    """

    def __init__(
        self,
        blocks: tuple[int, ...],
        *,
        growth: int,
        stem: int,
        bias: bool,
        classes: int,
        channels: int = 3,
        image: tuple[int, int] = (32, 32),
        width: float = 1.0,
        name: str = "this DenseNet",
    ) -> None:
        super().__init__()
        check_shapes(classes=classes, channels=channels, size=image)
        check_width(width)
        check_halvings(name, len(blocks) - 1, image, choose="a resnet, which takes any size")
        growth, inputs = scaled(growth, width), scaled(stem, width)
        self.stem = nn.Conv2d(channels, inputs, 3, padding=1, bias=bias)
        for number, layers in enumerate(blocks, start=1):
            self.add_module(f"block{number}", _block(layers, inputs, growth, bias=bias))
            inputs += layers * growth
            if number < len(blocks):
                self.add_module(f"transition{number}", _transition(inputs, max(1, inputs // 2), bias=bias))
                inputs = max(1, inputs // 2)
        self.norm = nn.BatchNorm2d(inputs)
        self.relu = nn.ReLU()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.head = nn.Linear(inputs, classes)
        draw_by_inputs(self)

    def forward(self, images: Tensor) -> Tensor:
        """``(batch, channels, height, width)`` to logits ``(batch, classes)``."""
        passed = images
        for part in self.children():
            passed = part(passed)
        return passed


def densenet(
    depth: int, *, classes: int, channels: int = 3, image: tuple[int, int] = (32, 32), width: float = 1.0
) -> DenseNet:
    """The teacher of sparse representation matching: four blocks, growth 32, convolutions with bias.

    With 3 channels and 100 classes it has 7,058,788 parameters. Deviation: the paper's code draws biases from N(0, 1);
    here they start as 0.

    Args:
        depth: 121, with 6, 12, 24 and 16 layers in its blocks.
        image: height and width in pixels, each at least 8.

    Raises:
        BadInput: no such depth, or the image is too small.

    References:
        Huang et al. 2017, arXiv:1608.06993, table 1; with a stem for 32x32 as in the code of Tran et al. 2021,
        arXiv:2103.17012.
    """
    if depth not in _BLOCKS:
        raise BadInput(f"there is no densenet-{depth}. Possible: {listed(f'densenet-{n}' for n in DENSENET)}")
    return DenseNet(
        _BLOCKS[depth],
        growth=32,
        stem=64,
        bias=True,
        classes=classes,
        channels=channels,
        image=image,
        width=width,
        name=f"densenet-{depth}",
    )


def densenet_bc(
    depth: int,
    growth: int,
    *,
    classes: int,
    channels: int = 3,
    image: tuple[int, int] = (32, 32),
    width: float = 1.0,
) -> DenseNet:
    """Three blocks of ``(depth - 4) / 6`` layers, a stem of twice the growth, convolutions without bias.

    ``densenet_bc-40-12`` is what online distillation papers call DenseNet-40-12; with 3 channels and 100 classes it has
    188,092 parameters.

    Args:
        depth: 40 or 100.
        growth: 12.
        image: height and width in pixels, each at least 4.

    Raises:
        BadInput: no such network, or the image is too small.

    References:
        Huang et al. 2017, arXiv:1608.06993, section 4 (DenseNet-BC).
    """
    name = f"densenet_bc-{depth}-{growth}"
    if depth not in DENSENET_BC_DEPTHS or growth not in DENSENET_BC_GROWTHS:
        possible = [f"densenet_bc-{d}-{g}" for d in DENSENET_BC_DEPTHS for g in DENSENET_BC_GROWTHS]
        raise BadInput(f"there is no {name}. Possible: {listed(possible)}")
    return DenseNet(
        ((depth - 4) // 6,) * 3,
        growth=growth,
        stem=2 * growth,
        bias=False,
        classes=classes,
        channels=channels,
        image=image,
        width=width,
        name=name,
    )


def _block(layers: int, inputs: int, growth: int, *, bias: bool) -> nn.Sequential:
    return nn.Sequential(*(DenseLayer(inputs + place * growth, growth, bias=bias) for place in range(layers)))


def _transition(inputs: int, outputs: int, *, bias: bool) -> nn.Sequential:
    return nn.Sequential(
        OrderedDict(
            norm=nn.BatchNorm2d(inputs),
            relu=nn.ReLU(),
            conv=nn.Conv2d(inputs, outputs, 1, bias=bias),
            pool=nn.AvgPool2d(2),
        )
    )
