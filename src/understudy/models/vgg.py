"""VGG networks for small images, as they are used in work on distillation."""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn

from understudy.errors import BadInput, listed
from understudy.models.limits import check_halvings, check_shapes, check_width, scaled
from understudy.models.names import VGG as DEPTHS
from understudy.models.resnet import draw_convolutions

WIRING = (
    "one layer after the other in the order listed: every convolution, its batch norm and ReLU, 2x2 max pooling "
    "between blocks where a pool is listed, global average pooling, flatten, the linear head"
)

_BLOCKS: dict[int, tuple[int, int, int, int, int]] = {  # convolutions in each of the five blocks
    8: (1, 1, 1, 1, 1),
    11: (1, 1, 2, 2, 2),
    13: (2, 2, 2, 2, 2),
    16: (2, 2, 3, 3, 3),
}
_CHANNELS = (64, 128, 256, 512, 512)
_FOURTH_POOL_FROM = 64  # pixels


class VGG(nn.Module):
    """Five blocks of 3x3 convolutions with bias, batch norm and ReLU; global average pooling; one linear layer.

    Differs from the paper's networks for 224x224 images in three ways that work on distillation at 32x32 shares:
    batch norm, a single linear head in place of three layers, and 2x2 max pooling only after the first three blocks
    (after the fourth as well where both sides of the image have 64 pixels or more), so that the last block still
    sees 4x4. ``vgg-8`` has one convolution a block and is not in the paper.
    With 3 channels and 100 classes there are 3,965,028 (vgg-8), 9,277,284 (vgg-11), 9,462,180 (vgg-13) and
    14,774,436 (vgg-16) parameters, counted by hand: a convolution has ``9 * inputs * outputs + outputs``, its batch
    norm ``2 * outputs``, the head ``512 * classes + classes``.

    Args:
        depth: 8, 11, 13 or 16; the paper counts two more linear layers than are here.
        image: height and width in pixels, each at least 8.
        width: multiplies every convolution, ``max(1, round(channels * width))``.

    Raises:
        BadInput: no such depth, or the image is too small for the poolings.

    References:
        Simonyan & Zisserman 2015, arXiv:1409.1556, table 1 (A, B, D); the small-image form and vgg-8: Tian et al.
        2020, arXiv:1910.10699. Convolutions start as N(0, 2 / (k * k * outputs)), the head as
        N(0, 0.01 ** 2), biases as 0.
    """

    def __init__(
        self,
        depth: int,
        *,
        classes: int,
        channels: int = 3,
        image: tuple[int, int] = (32, 32),
        width: float = 1.0,
    ) -> None:
        super().__init__()
        check_shapes(classes=classes, channels=channels, size=image)
        check_width(width)
        if depth not in _BLOCKS:
            raise BadInput(f"there is no vgg-{depth}. Possible: {listed(f'vgg-{n}' for n in DEPTHS)}")
        pools = 4 if min(image) >= _FOURTH_POOL_FROM else 3
        check_halvings(f"vgg-{depth}", pools, image, choose="a resnet, which takes any size")

        layers: OrderedDict[str, nn.Module] = OrderedDict()
        inputs, convolution = channels, 0
        for block, (convolutions, count) in enumerate(zip(_BLOCKS[depth], _CHANNELS, strict=True), start=1):
            outputs = scaled(count, width)
            for _ in range(convolutions):
                convolution += 1
                layers[f"conv{convolution}"] = nn.Conv2d(inputs, outputs, 3, padding=1)
                layers[f"norm{convolution}"] = nn.BatchNorm2d(outputs)
                layers[f"relu{convolution}"] = nn.ReLU()
                inputs = outputs
            if block <= pools:
                layers[f"pool{block}"] = nn.MaxPool2d(2)
        self.features = nn.Sequential(layers)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.head = nn.Linear(inputs, classes)
        draw_convolutions(self)
        nn.init.normal_(self.head.weight, 0.0, 0.01)
        nn.init.zeros_(self.head.bias)

    def forward(self, images: Tensor) -> Tensor:
        """``(batch, channels, height, width)`` to logits ``(batch, classes)``."""
        logits: Tensor = self.head(self.flatten(self.pool(self.features(images))))
        return logits
