"""Wide residual networks: pre-activation blocks, the three stages multiplied by a widening factor."""

from __future__ import annotations

from torch import Tensor, nn

from understudy.errors import BadInput
from understudy.models.limits import check_shapes, check_width, scaled
from understudy.models.names import FAMILIES, WIDE_RESNET_DEPTHS, WIDE_RESNET_FACTORS
from understudy.models.resnet import draw_convolutions

WIRING = (
    "stem; then every block of stage1, stage2, stage3 in order; norm, relu, pool, flatten, head. "
    "A block B maps x, with a = relu1(norm1(x)), to conv2(relu2(norm2(conv1(a)))) + shortcut, its layers being B.conv1 "
    "and so on; shortcut is B.shortcut(a) where that layer is listed, and x itself where it is not"
)


class PreactivationBlock(nn.Module):
    """Batch norm and ReLU before each of two 3x3 convolutions; a 1x1 shortcut sees the activated input."""

    def __init__(self, inputs: int, outputs: int, *, stride: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(inputs)
        self.relu1 = nn.ReLU()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.relu2 = nn.ReLU()
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.shortcut: nn.Conv2d | None = None
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        """``(batch, inputs, height, width)`` to ``(batch, outputs, height / stride, width / stride)``, rounded up."""
        activated: Tensor = self.relu1(self.norm1(features))
        kept = features if self.shortcut is None else self.shortcut(activated)
        out: Tensor = self.conv2(self.relu2(self.norm2(self.conv1(activated)))) + kept
        return out


class WideResNet(nn.Module):
    """``6n + 4`` layers: a 3x3 stem of 16 channels, three stages of ``n`` blocks with 16k, 32k and 64k channels.

    Any image size works; at 32x32 the global pooling is the 8x8 pooling of the paper. There is no dropout.

    Args:
        depth: 10, 16, 22, 28, 34, 40 … 100.
        factor: the widening factor ``k``, 1 to 20.
        width: multiplies the stem and every stage, ``max(1, round(channels * width))``.

    References:
        Zagoruyko & Komodakis 2016, arXiv:1605.07146, section 2 and table 1, block B(3, 3).
        Convolutions start as N(0, 2 / (k * k * outputs)): He et al. 2015, arXiv:1502.01852, Eq. 14.

    >>> sum(p.numel() for p in WideResNet(16, 2, classes=100).parameters())
    703284
    """

    def __init__(
        self, depth: int, factor: int, *, classes: int, channels: int = 3, width: float = 1.0
    ) -> None:
        super().__init__()
        check_shapes(classes=classes, channels=channels, size=(32, 32))
        check_width(width)
        if depth not in WIDE_RESNET_DEPTHS or factor not in WIDE_RESNET_FACTORS:
            raise BadInput(f"there is no wrn-{depth}-{factor}. Possible: {FAMILIES['wrn'].possible}")
        blocks = (depth - 4) // 6
        stem = scaled(16, width)
        widths = [scaled(count * factor, width) for count in (16, 32, 64)]
        self.stem = nn.Conv2d(channels, stem, 3, padding=1, bias=False)
        self.stage1 = _stage(blocks, stem, widths[0], stride=1)
        self.stage2 = _stage(blocks, widths[0], widths[1], stride=2)
        self.stage3 = _stage(blocks, widths[1], widths[2], stride=2)
        self.norm = nn.BatchNorm2d(widths[2])
        self.relu = nn.ReLU()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.head = nn.Linear(widths[2], classes)
        draw_convolutions(self)
        nn.init.zeros_(self.head.bias)

    def forward(self, images: Tensor) -> Tensor:
        """``(batch, channels, height, width)`` to logits ``(batch, classes)``."""
        features = self.stage3(self.stage2(self.stage1(self.stem(images))))
        logits: Tensor = self.head(self.flatten(self.pool(self.relu(self.norm(features)))))
        return logits


def _stage(blocks: int, inputs: int, outputs: int, *, stride: int) -> nn.Sequential:
    first = PreactivationBlock(inputs, outputs, stride=stride)
    return nn.Sequential(first, *(PreactivationBlock(outputs, outputs, stride=1) for _ in range(blocks - 1)))
