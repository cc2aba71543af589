"""Plain convolutional networks of Teacher Assistant distillation: the wide family and the narrow one."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from torch import Tensor, nn

from understudy.errors import BadInput, listed
from understudy.models.limits import check_halvings, check_shapes, check_width, scaled

WIRING = (
    "one layer after the other in the order listed: every convolution, its batch norm and ReLU, 2x2 max pooling "
    "where a pool is listed, then flatten (channels, height, width) and the fully connected layers"
)


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Convolutions by output channels in order, ``M`` for 2x2 max pooling, then the hidden fully connected layer."""

    features: str
    hidden: int | None = None

    @property
    def pools(self) -> int:
        """How often height and width are halved."""
        return self.features.split().count("M")


WIDE: dict[int, Layout] = {
    2: Layout(features="32 M 32 M"),
    3: Layout(features="32 32 M 64 M"),
    4: Layout(features="32 32 M 64 64 M"),
    5: Layout(features="32 32 M 64 64 M 128"),
    6: Layout(features="32 32 M 64 64 M 128 128"),  # the only even size whose last block is not pooled
    7: Layout(features="32 32 M 64 64 M 128 128 M 256 M", hidden=64),
    8: Layout(features="32 32 M 64 64 M 128 128 M 256 256 M", hidden=64),
    9: Layout(features="32 32 M 64 64 M 128 128 M 256 256 256 M", hidden=512),
    10: Layout(features="32 32 M 64 64 M 128 128 M 256 256 256 256 M", hidden=512),
}
NARROW: dict[int, Layout] = {
    2: Layout(features="16 M 16 M"),
    4: Layout(features="16 16 M 32 32 M"),
    6: Layout(features="16 16 M 32 32 M 64 64 M"),
    8: Layout(features="16 16 M 32 32 M 64 64 M 128 128 M", hidden=64),
    10: Layout(features="32 32 M 64 64 M 128 128 M 256 256 256 256 M", hidden=128),
}


class PlainCNN(nn.Module):
    """3x3 convolutions with bias, batch norm and ReLU, 2x2 max pooling, one or two fully connected layers.

    Sizes count convolutions. The wide family is the one for CIFAR-100, with the odd sizes of the study of many
    assistants; the narrow family is the one for CIFAR-10. They differ in more than the head.
    Weights are PyTorch's default initial ones. Parameters of the wide family are not monotone in size:
    7 has fewer than 5.

    Args:
        size: number of convolutions: 2 to 10, or 2, 4, 6, 8, 10 where ``narrow``.
        image: height and width in pixels; each needs 2 to the power of the number of poolings.
        width: multiplies every convolution and the hidden layer, ``max(1, round(channels * width))``.

    Raises:
        BadInput: no such size, or the image is too small for the poolings.

    References:
        Mirzadeh et al. 2020, arXiv:1902.03393 (even sizes).
        Son et al. 2021, arXiv:2009.08825 (odd sizes).

    >>> sum(p.numel() for p in PlainCNN(2, classes=100).parameters())
    215172
    """

    def __init__(
        self,
        size: int,
        *,
        classes: int,
        channels: int = 3,
        image: tuple[int, int] = (32, 32),
        width: float = 1.0,
        narrow: bool = False,
    ) -> None:
        super().__init__()
        check_shapes(classes=classes, channels=channels, size=image)
        check_width(width)
        family, layouts = ("plain_cnn_narrow", NARROW) if narrow else ("plain_cnn", WIDE)
        if size not in layouts:
            raise BadInput(
                f"there is no {family}-{size}. Possible: {listed(f'{family}-{n}' for n in layouts)}"
            )
        layout = layouts[size]
        fitting = [n for n in layouts if 2 ** layouts[n].pools <= min(image)]
        choose = f"{family}-{max(fitting)} or smaller" if fitting else ""
        check_halvings(f"{family}-{size}", layout.pools, image, choose=choose)

        layers: OrderedDict[str, nn.Module] = OrderedDict()
        inputs, convolution, pool = channels, 0, 0
        for step in layout.features.split():
            if step == "M":
                pool += 1
                layers[f"pool{pool}"] = nn.MaxPool2d(2)
            else:
                convolution += 1
                outputs = scaled(int(step), width)
                layers[f"conv{convolution}"] = nn.Conv2d(inputs, outputs, 3, padding=1)
                layers[f"norm{convolution}"] = nn.BatchNorm2d(outputs)
                layers[f"relu{convolution}"] = nn.ReLU()
                inputs = outputs
        self.features = nn.Sequential(layers)
        self.flatten = nn.Flatten()

        head: OrderedDict[str, nn.Module] = OrderedDict()
        inputs *= (image[0] >> pool) * (image[1] >> pool)
        if layout.hidden is not None:
            hidden = scaled(layout.hidden, width)
            head["hidden"] = nn.Linear(inputs, hidden)
            head["relu"] = nn.ReLU()
            inputs = hidden
        head["output"] = nn.Linear(inputs, classes)
        self.classifier = nn.Sequential(head)

    def forward(self, images: Tensor) -> Tensor:
        """``(batch, channels, height, width)`` to logits ``(batch, classes)``."""
        logits: Tensor = self.classifier(self.flatten(self.features(images)))
        return logits
