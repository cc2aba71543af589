"""Residual networks for small images: three stages of 16, 32 and 64 channels."""

from __future__ import annotations

import math
from collections import OrderedDict

from torch import Tensor, nn

from understudy.errors import BadInput, listed
from understudy.models.limits import check_shapes, check_width, scaled
from understudy.models.names import RESNET

WIRING = (
    "stem.conv, stem.norm, stem.relu; then every block of stage1, stage2, stage3 in order; pool, flatten, head. "
    "A block B maps x to relu2(norm2(conv2(relu1(norm1(conv1(x))))) + shortcut(x)), its layers being B.conv1 and so "
    "on; shortcut is B.shortcut.conv then B.shortcut.norm where they are listed, and x itself where they are not"
)


def stem(channels: int, outputs: int) -> nn.Sequential:
    """A 3x3 convolution, batch norm and ReLU at the images' own size."""
    return nn.Sequential(
        OrderedDict(
            conv=nn.Conv2d(channels, outputs, 3, padding=1, bias=False),
            norm=nn.BatchNorm2d(outputs),
            relu=nn.ReLU(),
        )
    )


def shortcut(inputs: int, outputs: int, *, stride: int) -> nn.Sequential:
    """What is added to a block's output: its input, or a 1x1 convolution with batch norm where the shape changes."""
    if stride == 1 and inputs == outputs:
        return nn.Sequential()
    return nn.Sequential(
        OrderedDict(
            conv=nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False),
            norm=nn.BatchNorm2d(outputs),
        )
    )


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut, ReLU after the sum."""

    def __init__(self, inputs: int, outputs: int, *, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.shortcut = shortcut(inputs, outputs, stride=stride)
        self.relu2 = nn.ReLU()

    def forward(self, features: Tensor) -> Tensor:
        """``(batch, inputs, height, width)`` to ``(batch, outputs, height / stride, width / stride)``, rounded up."""
        residual: Tensor = self.norm2(self.conv2(self.relu1(self.norm1(self.conv1(features)))))
        out: Tensor = self.relu2(residual + self.shortcut(features))
        return out


class ResNet(nn.Module):
    """``6n + 2`` layers: a 3x3 stem, three stages of ``n`` basic blocks, global average pooling, one linear layer.

    Where height and width are halved the shortcut is a 1x1 convolution of stride 2 with batch norm (option B). Any
    image size works; at 32x32 the global pooling is the 8x8 pooling of the papers.

    Args:
        depth: 8, 14, 20, 26, 32, 44, 56 or 110.
        width: multiplies 16, 32 and 64, ``max(1, round(channels * width))``.

    References:
        He et al. 2016, arXiv:1512.03385, section 4.2; option B and the depths as in Mirzadeh et al. 2020,
        arXiv:1902.03393. Convolutions start as N(0, 2 / (k * k * outputs)): He et al. 2015, arXiv:1502.01852,
        Eq. 14.

    >>> sum(p.numel() for p in ResNet(8, classes=10).parameters())
    78042
    """

    def __init__(self, depth: int, *, classes: int, channels: int = 3, width: float = 1.0) -> None:
        super().__init__()
        check_shapes(classes=classes, channels=channels, size=(32, 32))
        check_width(width)
        if depth not in RESNET:
            raise BadInput(f"there is no resnet-{depth}. Possible: {listed(f'resnet-{n}' for n in RESNET)}")
        blocks = (depth - 2) // 6
        widths = [scaled(count, width) for count in (16, 32, 64)]
        self.stem = stem(channels, widths[0])
        self.stage1 = _stage(blocks, widths[0], widths[0], stride=1)
        self.stage2 = _stage(blocks, widths[0], widths[1], stride=2)
        self.stage3 = _stage(blocks, widths[1], widths[2], stride=2)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.head = nn.Linear(widths[2], classes)
        draw_convolutions(self)

    def forward(self, images: Tensor) -> Tensor:
        """``(batch, channels, height, width)`` to logits ``(batch, classes)``."""
        features = self.stage3(self.stage2(self.stage1(self.stem(images))))
        logits: Tensor = self.head(self.flatten(self.pool(features)))
        return logits


def draw_convolutions(model: nn.Module) -> None:
    """Draws every convolution from N(0, sd) with ``sd = sqrt(2 / (k * k * outputs))``; biases become 0."""
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d):
            fan_out = layer.kernel_size[0] * layer.kernel_size[1] * layer.out_channels
            nn.init.normal_(layer.weight, 0.0, math.sqrt(2.0 / fan_out))
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def _stage(blocks: int, inputs: int, outputs: int, *, stride: int) -> nn.Sequential:
    first = BasicBlock(inputs, outputs, stride=stride)
    return nn.Sequential(first, *(BasicBlock(outputs, outputs, stride=1) for _ in range(blocks - 1)))
