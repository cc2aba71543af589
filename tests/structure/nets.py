"""Tiny networks in which channels are tied in every way, each with the images that it takes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from understudy.models import build


def conv(inputs: int, outputs: int, kernel: int = 3, **more: Any) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, **more)


class Row(nn.Module):
    """Layers in a row; ``stem`` and ``head`` are blocks of their own."""

    def __init__(self, stem: nn.Module, body: nn.Module, channels: int) -> None:
        super().__init__()
        self.stem, self.body, self.head = stem, body, nn.Linear(channels, 3)

    def forward(self, images: Tensor) -> Tensor:
        out: Tensor = self.head(self.body(self.stem(images)).mean((2, 3)))
        return out


def normed(layer: nn.Conv2d) -> nn.Sequential:
    return nn.Sequential(layer, nn.BatchNorm2d(layer.out_channels), nn.ReLU())


class Concatenated(nn.Module):
    """Each layer reads all before it, as in a DenseNet."""

    def __init__(self) -> None:
        super().__init__()
        self.first = normed(conv(4, 3))
        self.second = normed(conv(7, 5))

    def forward(self, features: Tensor) -> Tensor:
        wider = torch.cat([features, self.first(features)], 1)
        return torch.cat([self.second(wider), wider], 1)


class Gated(nn.Module):
    """A residual block with a gate that looks at all of the image, as in squeeze and excitation."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = normed(conv(4, 6))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.squeeze = conv(6, 3, 1)
        self.excite = conv(3, 6, 1)
        self.conv2 = conv(6, 4)
        self.norm2 = nn.BatchNorm2d(4)

    def forward(self, features: Tensor) -> Tensor:
        inner = self.conv1(features)
        gate = torch.sigmoid(self.excite(torch.relu(self.squeeze(self.pool(inner)))))
        out: Tensor = self.norm2(self.conv2(inner * gate)) + features
        return out


class Branches(nn.Module):
    """Two ways that are added: either may be dropped, not both."""

    def __init__(self) -> None:
        super().__init__()
        self.left = nn.Sequential(normed(conv(4, 5)), nn.MaxPool2d(2), conv(5, 6))
        self.right = nn.Sequential(normed(conv(4, 3, 1)), nn.MaxPool2d(2), conv(3, 6))

    def forward(self, features: Tensor) -> Tensor:
        out: Tensor = self.left(features) + self.right(features)
        return out


class Halves(nn.Module):
    """The first half of the channels is a gate for the second."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = normed(conv(4, 8))

    def forward(self, features: Tensor) -> Tensor:
        gate, values = self.layer(features).chunk(2, 1)
        return torch.sigmoid(gate) * values


class FixedNumber(nn.Module):
    """A number of channels is written into the code."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = normed(conv(4, 6))

    def forward(self, features: Tensor) -> Tensor:
        inner: Tensor = self.layer(features)
        return inner.reshape(len(inner), 6, *inner.shape[2:])


class Standardised(nn.Conv2d):
    """Every filter is standardised over its inputs, so that none of these can go."""

    def forward(self, features: Tensor) -> Tensor:
        deviation, mean = torch.std_mean(self.weight, (1, 2, 3), keepdim=True)
        return self._conv_forward(features, (self.weight - mean) / deviation, self.bias)


def stem() -> nn.Sequential:
    return normed(conv(2, 4))


def grouped() -> nn.Sequential:
    return nn.Sequential(normed(conv(4, 8)), normed(conv(8, 8, groups=2)), normed(conv(8, 6, 1)))


def depthwise() -> nn.Sequential:
    return nn.Sequential(normed(conv(4, 8, 1)), normed(conv(8, 8, groups=8, stride=2)), normed(conv(8, 6, 1)))


def bare() -> nn.Sequential:
    return nn.Sequential(conv(4, 6), nn.ReLU(), conv(6, 5), nn.ReLU())


def sloped() -> nn.Sequential:
    return nn.Sequential(conv(4, 6), nn.PReLU(6), conv(6, 5), nn.BatchNorm2d(5), nn.PReLU())


def group_normed() -> nn.Sequential:
    return nn.Sequential(conv(4, 6), nn.GroupNorm(2, 6), nn.ReLU(), normed(conv(6, 5)))


def flat() -> nn.Sequential:
    """A linear layer with batch norm after flattening, as at the end of older networks."""
    return nn.Sequential(
        conv(2, 4),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(4 * 36, 7),
        nn.BatchNorm1d(7),
        nn.ReLU(),
        nn.Linear(7, 3),
    )


def family(name: str, **more: Any) -> Callable[[], nn.Module]:
    size = more.pop("size", (8, 8))
    return lambda: build(name, classes=3, channels=2, size=size, **more)


def row(body: Callable[[], nn.Module], channels: int) -> Callable[[], nn.Module]:
    return lambda: Row(stem(), body(), channels)


# name: how it is made, height and width of its images, all of two channels
NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, int]]] = {
    "plain_cnn": (family("plain_cnn-4", width=0.25), (8, 8)),
    "plain_cnn with a hidden layer": (
        family("plain_cnn-8", width=0.125, size=(16, 16)),
        (16, 16),
    ),
    "resnet": (family("resnet-14", width=0.5), (8, 8)),
    "wrn": (family("wrn-16-1", width=0.5), (8, 8)),
    "vgg": (family("vgg-11", width=0.0625), (8, 8)),
    "mobilenet_v2": (family("mobilenet_v2", width=0.25), (8, 8)),
    "concatenated": (row(Concatenated, 12), (6, 6)),
    "gated": (row(Gated, 4), (6, 6)),
    "branches": (row(Branches, 6), (6, 6)),
    "halves": (row(Halves, 4), (6, 6)),
    "grouped": (row(grouped, 6), (6, 6)),
    "depthwise": (row(depthwise, 6), (6, 6)),
    "sloped": (row(sloped, 5), (6, 6)),
    "group norm": (row(group_normed, 5), (6, 6)),
    "flat": (flat, (6, 6)),
    "no norms": (lambda: Row(conv(2, 4), bare(), 5), (6, 6)),
}


def made(name: str, *, seed: int = 0) -> tuple[nn.Module, dict[str, Any]]:
    """A network whose norms and biases are random, in eval mode, and the arguments that say what it takes."""
    make, size = NETWORKS[name]
    torch.manual_seed(seed)
    return shaken(make(), seed=seed), {"channels": 2, "size": size}


@torch.no_grad()
def shaken(model: nn.Module, *, seed: int = 0) -> nn.Module:
    """Norms and biases are drawn anew: those of a fresh network hide what becomes of them."""
    draws = torch.Generator().manual_seed(seed)
    for module in model.modules():
        bias = getattr(module, "bias", None)
        if isinstance(bias, Tensor):
            bias.copy_(0.3 * torch.randn(bias.shape, generator=draws))
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.weight.copy_(torch.rand(module.weight.shape, generator=draws) + 0.5)
            module.running_mean.copy_(0.3 * torch.randn(module.running_mean.shape, generator=draws))
            module.running_var.copy_(torch.rand(module.running_var.shape, generator=draws) + 0.5)
    return model.eval()


def images(count: int, *, channels: int, size: tuple[int, int], seed: int = 0) -> Tensor:
    return torch.randn(count, channels, *size, generator=torch.Generator().manual_seed(seed))
