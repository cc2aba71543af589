"""The all-convolutional student of sparse representation matching: four groups of three convolutions."""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn

from understudy.models.limits import check_shapes, check_width

WIRING = (
    "one layer after the other in the order listed: every convolution, its batch norm and leaky ReLU, then global "
    "average pooling, flatten, the linear head"
)

_CHANNELS = (96, 192, 256, 384)
_SLOPE = 0.1


class AllCNN(nn.Module):
    """Twelve convolutions with bias, batch norm and leaky ReLU (slope 0.1); global average pooling; a linear head.

    Convolutions are 3x3 but for the last, which is 1x1; the third of each of the first three groups has stride 2. Any
    image size works; at 32x32 the global pooling is the 4x4 pooling of the paper's code. There is no dropout.
    Parameters with 3 channels and 100 classes: 2,182,413 at ``width`` 0.66 and 5,026,084 at 1.0.

    Deviation: the paper's code draws biases from N(0, 1); here they start as 0. A bias before a batch norm makes no
    difference to training, so only the head's differs.

    Args:
        width: the paper's scale. Multiplies every convolution, and truncates where other networks round:
            ``max(1, int(channels * width))``. The paper's student has 0.66.

    References:
        Tran et al. 2021, arXiv:2103.17012, by the authors' code, in which weights start as N(0, 2 / inputs) with
        ``inputs`` the numbers that one output is computed from (He et al. 2015, arXiv:1502.01852, Eq. 10).

    >>> sum(p.numel() for p in AllCNN(classes=100, width=0.66).parameters())
    2182413
    """

    def __init__(self, *, classes: int, channels: int = 3, width: float = 1.0) -> None:
        super().__init__()
        check_shapes(classes=classes, channels=channels, size=(32, 32))
        check_width(width)
        widths = [max(1, int(count * width)) for count in _CHANNELS]
        self.stage1 = _stage(channels, widths[0])
        self.stage2 = _stage(widths[0], widths[1])
        self.stage3 = _stage(widths[1], widths[2])
        self.stage4 = _stage(widths[2], widths[3], last=True)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.head = nn.Linear(widths[3], classes)
        draw_by_inputs(self)

    def forward(self, images: Tensor) -> Tensor:
        """``(batch, channels, height, width)`` to logits ``(batch, classes)``."""
        features = self.stage4(self.stage3(self.stage2(self.stage1(images))))
        logits: Tensor = self.head(self.flatten(self.pool(features)))
        return logits


def draw_by_inputs(model: nn.Module) -> None:
    """Draws convolutions and linear layers from N(0, 2 / inputs of one output); their biases become 0."""
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def _stage(inputs: int, outputs: int, *, last: bool = False) -> nn.Sequential:
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for place in (1, 2, 3):
        kernel = 1 if last and place == 3 else 3
        stride = 2 if place == 3 and not last else 1
        layers[f"conv{place}"] = nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=kernel // 2)
        layers[f"norm{place}"] = nn.BatchNorm2d(outputs)
        layers[f"relu{place}"] = nn.LeakyReLU(_SLOPE)
        inputs = outputs
    return nn.Sequential(layers)
