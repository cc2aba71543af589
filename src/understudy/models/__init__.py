"""Networks by name: ``build("plain_cnn-10", classes=100)``. Importing this package does not import torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from understudy.errors import BadInput
from understudy.models.limits import check_shapes, check_width
from understudy.models.names import ELSEWHERE, built_in_names, check_name, parse_name

if TYPE_CHECKING:
    from torch import nn

__all__ = ["build", "built_in_names", "check_name"]


def build(
    name: str,
    *,
    classes: int,
    channels: int = 3,
    size: tuple[int, int] = (32, 32),
    width: float = 1.0,
    pretrained: bool = False,
) -> nn.Module:
    """Builds a network; its initial weights are drawn from torch's global generator, which the caller seeds.

    Args:
        name: ``plain_cnn-10``, ``resnet-8``, ``wrn-40-2``, ``vgg-8``, ``mobilenet_v2``, ``allcnn``,
            ``timm/resnet18`` …
        size: height and width of the images in pixels.
        width: multiplies the channels of a built-in network; 1.0 is the network as its paper has it.
        pretrained: timm and torchvision only: start from their published weights, with a new head
            (unless the published one has as many classes).

    Returns:
        A module that maps ``(batch, channels, height, width)`` to logits ``(batch, classes)``.

    Raises:
        BadInput: unknown name, impossible width or shapes, images too small, published weights that cannot be had.
        MissingExtra: a timm or torchvision name where that package is not installed.
    """
    parsed = parse_name(name)
    check_shapes(classes=classes, channels=channels, size=size)
    check_width(width)
    size = (size[0], size[1])
    if parsed.family in ELSEWHERE:
        from understudy.models.elsewhere import build_elsewhere

        if width != 1.0:
            raise BadInput(f"width scales built-in networks only, and {name} is not one: leave width at 1.0")
        return build_elsewhere(
            parsed.family,
            parsed.elsewhere,
            classes=classes,
            channels=channels,
            size=size,
            pretrained=pretrained,
        )
    if pretrained:
        raise BadInput(
            f"{name} has no published weights to start from: give a file of weights, or a timm or torchvision model"
        )
    return _builders()[parsed.family](*parsed.numbers, classes, channels, size, width)


def _builders() -> dict[str, Callable[..., nn.Module]]:
    """From family to builder ``(*numbers, classes, channels, size, width)``."""
    from understudy.models.allcnn import AllCNN
    from understudy.models.bottleneck_resnet import BottleneckResNet
    from understudy.models.densenet import densenet, densenet_bc
    from understudy.models.mobilenet_v2 import MobileNetV2
    from understudy.models.okd_vgg import OKDVGG
    from understudy.models.plain_cnn import PlainCNN
    from understudy.models.resnet import ResNet
    from understudy.models.vgg import VGG
    from understudy.models.wide_resnet import WideResNet

    return {
        "plain_cnn": lambda n, c, ch, s, w: PlainCNN(n, classes=c, channels=ch, image=s, width=w),
        "plain_cnn_narrow": lambda n, c, ch, s, w: PlainCNN(
            n, classes=c, channels=ch, image=s, width=w, narrow=True
        ),
        "resnet": lambda n, c, ch, s, w: ResNet(n, classes=c, channels=ch, width=w),
        "wrn": lambda n, k, c, ch, s, w: WideResNet(n, k, classes=c, channels=ch, width=w),
        "vgg": lambda n, c, ch, s, w: VGG(n, classes=c, channels=ch, image=s, width=w),
        "mobilenet_v2": lambda c, ch, s, w: MobileNetV2(classes=c, channels=ch, width=w),
        "allcnn": lambda c, ch, s, w: AllCNN(classes=c, channels=ch, width=w),
        "densenet": lambda n, c, ch, s, w: densenet(n, classes=c, channels=ch, image=s, width=w),
        "densenet_bc": lambda n, k, c, ch, s, w: densenet_bc(n, k, classes=c, channels=ch, image=s, width=w),
        "bottleneck_resnet": lambda n, c, ch, s, w: BottleneckResNet(n, classes=c, channels=ch, width=w),
        "okd_wrn": lambda n, k, c, ch, s, w: BottleneckResNet(n, factor=k, classes=c, channels=ch, width=w),
        "okd_vgg": lambda n, c, ch, s, w: OKDVGG(n, classes=c, channels=ch, image=s, width=w),
    }
