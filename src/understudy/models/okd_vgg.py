"""The VGG-16 of online distillation papers: five pooled stages and three linear layers."""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn

from understudy.errors import BadInput, listed
from understudy.models.limits import check_halvings, check_shapes, check_width, scaled
from understudy.models.names import OKD_VGG
from understudy.models.resnet import draw_convolutions

WIRING = (
    "one layer after the other in the order listed: every convolution, its batch norm and ReLU, 2x2 max pooling at the "
    "end of a stage where a pool is listed, global average pooling, flatten, the two hidden linear layers with ReLU, the "
    "linear head"
)

_STAGES: dict[int, tuple[tuple[int, int], ...]] = {  # convolutions and channels of each
    16: ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512)),
}
_LEAST_POOLS = 3


class OKDVGG(nn.Module):
    """Five stages of 3x3 convolutions with bias, batch norm and ReLU, 2x2 max pooling after each; three linear layers.

    ``vgg-16`` has the same convolutions, fewer poolings and one linear layer. Here an image of 32x32 ends as 1x1; larger
    ones are averaged over what is left, smaller ones (from 8x8) skip the last poolings, which the papers do not need.
    Parameters with 3 channels: 15,299,748 for 100 classes, 15,253,578 for 10.

    Deviation: no dropout between the linear layers, as in one published implementation; another has 0.5.

    Args:
        depth: 16.
        image: height and width in pixels, each at least 8.
        width: multiplies every convolution and both hidden layers, ``max(1, round(channels * width))``.

    Raises:
        BadInput: no such depth, or the image is too small.

    References:
        Simonyan & Zisserman 2015, arXiv:1409.1556, table 1 (D); the small-image form: Chen et al. 2020,
        arXiv:1912.00350, and Wu & Gong 2021, arXiv:2006.04147, by published code. Convolutions start as
        N(0, 2 / (k * k * outputs)), linear layers as N(0, 0.01 ** 2), biases as 0.
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
        if depth not in _STAGES:
            raise BadInput(
                f"there is no okd_vgg-{depth}. Possible: {listed(f'okd_vgg-{n}' for n in OKD_VGG)}"
            )
        check_halvings(f"okd_vgg-{depth}", _LEAST_POOLS, image, choose="a resnet, which takes any size")

        pools = min(image).bit_length() - 1  # as often as the shorter side can be halved
        inputs = channels
        for number, (convolutions, count) in enumerate(_STAGES[depth], start=1):
            outputs = scaled(count, width)
            self.add_module(f"stage{number}", _stage(convolutions, inputs, outputs, pooled=number <= pools))
            inputs = outputs
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        hidden = scaled(512, width)
        self.hidden = nn.Sequential(
            OrderedDict(
                linear1=nn.Linear(inputs, hidden),
                relu1=nn.ReLU(),
                linear2=nn.Linear(hidden, hidden),
                relu2=nn.ReLU(),
            )
        )
        self.head = nn.Linear(hidden, classes)
        draw_convolutions(self)
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                nn.init.normal_(layer.weight, 0.0, 0.01)
                nn.init.zeros_(layer.bias)

    def forward(self, images: Tensor) -> Tensor:
        """``(batch, channels, height, width)`` to logits ``(batch, classes)``."""
        passed = images
        for part in self.children():
            passed = part(passed)
        return passed


def _stage(convolutions: int, inputs: int, outputs: int, *, pooled: bool) -> nn.Sequential:
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for place in range(1, convolutions + 1):
        layers[f"conv{place}"] = nn.Conv2d(inputs, outputs, 3, padding=1)
        layers[f"norm{place}"] = nn.BatchNorm2d(outputs)
        layers[f"relu{place}"] = nn.ReLU()
        inputs = outputs
    if pooled:
        layers["pool"] = nn.MaxPool2d(2)
    return nn.Sequential(layers)
