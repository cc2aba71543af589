"""MobileNet-v2 for small images: inverted residual blocks with depthwise convolutions."""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn

from understudy.models.limits import check_shapes, check_width
from understudy.models.resnet import draw_convolutions

WIRING = (
    "stem.conv, stem.norm, stem.relu; then every block of stage1 to stage7 in order; last.conv, last.norm, last.relu, "
    "pool, flatten, head. A block B maps x to B.project.norm(B.project.conv(d)), plus B.shortcut(x) where that layer is "
    "listed; here d is B.depthwise.conv, B.depthwise.norm and B.depthwise.relu after one another on e, and e is "
    "B.expand.conv, B.expand.norm and B.expand.relu on x where they are listed, and x itself where they are not"
)

_DIVISOR = 8


class InvertedResidual(nn.Module):
    """A 1x1 convolution widens, a 3x3 depthwise one mixes pixels, a 1x1 one narrows and is not activated.

    What goes in is added to what comes out where both have one shape. With ``expansion`` 1 nothing is widened.
    """

    def __init__(self, inputs: int, outputs: int, *, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        self.expand: nn.Sequential | None = None
        if expansion != 1:
            self.expand = _activated(inputs, hidden, kernel=1)
        self.depthwise = _activated(hidden, hidden, kernel=3, stride=stride, groups=hidden)
        self.project = nn.Sequential(
            OrderedDict(conv=nn.Conv2d(hidden, outputs, 1, bias=False), norm=nn.BatchNorm2d(outputs))
        )
        self.shortcut: nn.Identity | None = None
        if stride == 1 and inputs == outputs:
            self.shortcut = nn.Identity()

    def forward(self, features: Tensor) -> Tensor:
        """``(batch, inputs, height, width)`` to ``(batch, outputs, height / stride, width / stride)``, rounded up."""
        widened = features if self.expand is None else self.expand(features)
        out: Tensor = self.project(self.depthwise(widened))
        return out if self.shortcut is None else out + self.shortcut(features)


class MobileNetV2(nn.Module):
    """A 3x3 stem, seven groups of inverted residual blocks, a 1x1 convolution, global average pooling, a linear head.

    The form for small images: the stem and the second group have stride 1 instead of 2, so that 32x32 becomes 4x4.
    Any image size works. There is no dropout. The form for 224x224 is ``torchvision/mobilenet_v2``.

    Args:
        width: multiplies every channel count, which is then rounded to a multiple of 8, see ``divisible``. As in the
            paper, the last convolution keeps its 1280 channels where ``width`` is below 1.

    References:
        Sandler et al. 2018, arXiv:1801.04381, table 2 and section 6.1 (the last convolution); ReLU6 throughout.
        The strides for 32x32 are those in common use, not the paper's. Convolutions start as
        N(0, 2 / (k * k * outputs)), the head as N(0, 0.01 ** 2), its bias as 0.

    >>> sum(p.numel() for p in MobileNetV2(classes=100).parameters())
    2351972
    """

    def __init__(self, *, classes: int, channels: int = 3, width: float = 1.0) -> None:
        super().__init__()
        check_shapes(classes=classes, channels=channels, size=(32, 32))
        check_width(width)
        widths = [divisible(count * width) for count in (32, 16, 24, 32, 64, 96, 160, 320)]
        last = divisible(1280 * max(1.0, width))
        self.stem = _activated(channels, widths[0], kernel=3)
        self.stage1 = _stage(*widths[0:2], blocks=1, stride=1, expansion=1)
        self.stage2 = _stage(*widths[1:3], blocks=2, stride=1)
        self.stage3 = _stage(*widths[2:4], blocks=3, stride=2)
        self.stage4 = _stage(*widths[3:5], blocks=4, stride=2)
        self.stage5 = _stage(*widths[4:6], blocks=3, stride=1)
        self.stage6 = _stage(*widths[5:7], blocks=3, stride=2)
        self.stage7 = _stage(*widths[6:8], blocks=1, stride=1)
        self.last = _activated(widths[7], last, kernel=1)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.head = nn.Linear(last, classes)
        draw_convolutions(self)
        nn.init.normal_(self.head.weight, 0.0, 0.01)
        nn.init.zeros_(self.head.bias)

    def forward(self, images: Tensor) -> Tensor:
        """``(batch, channels, height, width)`` to logits ``(batch, classes)``."""
        features = self.stage3(self.stage2(self.stage1(self.stem(images))))
        features = self.stage7(self.stage6(self.stage5(self.stage4(features))))
        logits: Tensor = self.head(self.flatten(self.pool(self.last(features))))
        return logits


def divisible(count: float) -> int:
    """The multiple of 8 that is nearest to ``count``: halves go up, 8 at least, and never below 90 % of ``count``.

    >>> [divisible(count) for count in (16, 12, 24 * 0.75, 32 * 0.35, 0.1)]
    [16, 16, 24, 16, 8]
    """
    nearest = max(_DIVISOR, int(count + _DIVISOR / 2) // _DIVISOR * _DIVISOR)
    return nearest if nearest >= 0.9 * count else nearest + _DIVISOR


def _activated(inputs: int, outputs: int, *, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(
        inputs, outputs, kernel, stride=stride, padding=kernel // 2, groups=groups, bias=False
    )
    return nn.Sequential(OrderedDict(conv=convolution, norm=nn.BatchNorm2d(outputs), relu=nn.ReLU6()))


def _stage(inputs: int, outputs: int, *, blocks: int, stride: int, expansion: int = 6) -> nn.Sequential:
    first = InvertedResidual(inputs, outputs, stride=stride, expansion=expansion)
    rest = (InvertedResidual(outputs, outputs, stride=1, expansion=expansion) for _ in range(blocks - 1))
    return nn.Sequential(first, *rest)
