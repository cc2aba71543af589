"""Residual networks for small images whose blocks are bottlenecks, as online distillation papers use them."""

from __future__ import annotations

from torch import Tensor, nn

from understudy.errors import BadInput, listed
from understudy.models.limits import check_shapes, check_width, scaled
from understudy.models.names import BOTTLENECK_RESNET, OKD_WRN_DEPTHS, OKD_WRN_FACTORS
from understudy.models.resnet import draw_convolutions, shortcut, stem

WIRING = (
    "stem.conv, stem.norm, stem.relu; then every block of stage1, stage2, stage3 in order; pool, flatten, head. "
    "A block B maps x to relu3(norm3(conv3(relu2(norm2(conv2(relu1(norm1(conv1(x)))))))) + shortcut(x)), its layers being "
    "B.conv1 and so on; shortcut is B.shortcut.conv then B.shortcut.norm where they are listed, and x itself where they "
    "are not"
)

_EXPANSION = 4  # what comes out of a block of a stage of 16, 32 or 64 is this times as wide


class BottleneckBlock(nn.Module):
    """A 1x1, a 3x3 and a 1x1 convolution and a shortcut, ReLU after the sum. The 3x3 one has the stride."""

    def __init__(self, inputs: int, inner: int, outputs: int, *, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, inner, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(inner)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(inner, inner, 3, stride=stride, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(inner)
        self.relu2 = nn.ReLU()
        self.conv3 = nn.Conv2d(inner, outputs, 1, bias=False)
        self.norm3 = nn.BatchNorm2d(outputs)
        self.shortcut = shortcut(inputs, outputs, stride=stride)
        self.relu3 = nn.ReLU()

    def forward(self, features: Tensor) -> Tensor:
        """``(batch, inputs, height, width)`` to ``(batch, outputs, height / stride, width / stride)``, rounded up."""
        widened: Tensor = self.relu2(self.norm2(self.conv2(self.relu1(self.norm1(self.conv1(features))))))
        out: Tensor = self.relu3(self.norm3(self.conv3(widened)) + self.shortcut(features))
        return out


class BottleneckResNet(nn.Module):
    """``9n + 2`` layers: a 3x3 stem of 16 channels, three stages of ``n`` blocks, global average pooling, a linear head.

    Blocks of the three stages give 64, 128 and 256 channels; inside they have 16, 32 and 64, times ``factor``. Any
    image size works.

    Papers on online distillation call networks like these by names that mean others elsewhere. What they call ResNet-110
    has bottlenecks, unlike ``resnet-110`` here; ``bottleneck_resnet-110`` (12, 12, 12) is that of peer collaborative
    learning, ``bottleneck_resnet-164`` (18, 18, 18) is called ResNet-110 too. Their WRN-20-8, ``okd_wrn-20-8``, is no
    wide ResNet: only the inside of each block is 8 times as wide.

    Args:
        depth: 20, 56, 110 or 164; with ``factor`` 8 only 20.
        factor: 1, or 8.
        width: multiplies every channel count, ``max(1, round(channels * width))``.

    Raises:
        BadInput: no such network.

    References:
        He et al. 2016, arXiv:1512.03385, section 4.1 (bottlenecks); the small-image form: Chen et al. 2020,
        arXiv:1912.00350, and Wu & Gong 2021, arXiv:2006.04147, by published code. Convolutions start as
        N(0, 2 / (k * k * outputs)).

    >>> sum(p.numel() for p in BottleneckResNet(20, factor=8, classes=100).parameters())
    6871220
    """

    def __init__(
        self, depth: int, *, classes: int, channels: int = 3, width: float = 1.0, factor: int = 1
    ) -> None:
        super().__init__()
        check_shapes(classes=classes, channels=channels, size=(32, 32))
        check_width(width)
        if factor == 1 and depth not in BOTTLENECK_RESNET:
            possible = listed(f"bottleneck_resnet-{n}" for n in BOTTLENECK_RESNET)
            raise BadInput(f"there is no bottleneck_resnet-{depth}. Possible: {possible}")
        if factor != 1 and (depth not in OKD_WRN_DEPTHS or factor not in OKD_WRN_FACTORS):
            raise BadInput(f"there is no okd_wrn-{depth}-{factor}. Possible: okd_wrn-20-8")
        blocks = (depth - 2) // 9
        inner = [scaled(count * factor, width) for count in (16, 32, 64)]
        outer = [scaled(count * _EXPANSION, width) for count in (16, 32, 64)]
        first = scaled(16, width)
        self.stem = stem(channels, first)
        self.stage1 = _stage(blocks, first, inner[0], outer[0], stride=1)
        self.stage2 = _stage(blocks, outer[0], inner[1], outer[1], stride=2)
        self.stage3 = _stage(blocks, outer[1], inner[2], outer[2], stride=2)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.head = nn.Linear(outer[2], classes)
        draw_convolutions(self)

    def forward(self, images: Tensor) -> Tensor:
        """``(batch, channels, height, width)`` to logits ``(batch, classes)``."""
        features = self.stage3(self.stage2(self.stage1(self.stem(images))))
        logits: Tensor = self.head(self.flatten(self.pool(features)))
        return logits


def _stage(blocks: int, inputs: int, inner: int, outputs: int, *, stride: int) -> nn.Sequential:
    first = BottleneckBlock(inputs, inner, outputs, stride=stride)
    return nn.Sequential(
        first, *(BottleneckBlock(outputs, inner, outputs, stride=1) for _ in range(blocks - 1))
    )
