"""Small networks that learned made-up images, for the tests of int8 files; each is trained once in a process."""

from __future__ import annotations

import atexit
import copy
import shutil
import tempfile
from functools import cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from understudy.deploy.onnx_export import write_onnx
from understudy.models import build
from understudy.models.folding import folded

CLASSES, SIZE = 10, (12, 12)
NAMES = ("plain_cnn-2", "resnet-8", "mobile")


class MobileBlock(nn.Module):
    """Inverted residual with depthwise convolution and ReLU6."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU6(inplace=True)
        )
        self.block = nn.Sequential(
            nn.Conv2d(8, 16, 1, bias=False),
            nn.BatchNorm2d(16),
            nn.ReLU6(inplace=True),
            nn.Conv2d(16, 16, 3, padding=1, groups=16, bias=False),
            nn.BatchNorm2d(16),
            nn.ReLU6(inplace=True),
            nn.Conv2d(16, 8, 1, bias=False),
            nn.BatchNorm2d(8),
        )
        self.head = nn.Linear(8, 10)

    def forward(self, images: Tensor) -> Tensor:
        features = self.stem(images)
        logits: Tensor = self.head((features + self.block(features)).mean((2, 3)))
        return logits


def made_up(count: int, *, seed: int) -> tuple[Tensor, Tensor]:
    """Images ``(count, 3, 12, 12)`` of ten patterns in noise, and their labels."""
    coarse = torch.randn(CLASSES, 3, 3, 3, generator=torch.Generator().manual_seed(0))
    patterns = F.interpolate(coarse, size=SIZE, mode="bilinear")
    drawn = torch.Generator().manual_seed(seed)
    labels = torch.randint(CLASSES, (count,), generator=drawn)
    return patterns[labels] + 1.5 * torch.randn(count, 3, *SIZE, generator=drawn), labels


def batches(count: int, *, seed: int) -> list[np.ndarray]:
    """The images alone, as arrays, 32 at a time."""
    return [batch.numpy() for batch in made_up(count, seed=seed)[0].split(32)]


@cache
@torch.enable_grad()
def network(name: str) -> nn.Module:
    """Trained for some steps, in eval mode; nobody may change it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = MobileBlock() if name == "mobile" else build(name, classes=CLASSES, size=SIZE)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    model.train()
    for step in range(40):
        images, labels = made_up(64, seed=100 + step)
        loss = F.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return model.eval().requires_grad_(False)


def _folder() -> Path:
    """One for each file, gone when the process ends."""
    folder = tempfile.mkdtemp(prefix="understudy-int8-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


@cache
def float_file(name: str) -> Path:
    """The network's float ONNX file."""
    path = _folder() / f"{name}.onnx"
    write_onnx(network(name), path, channels=3, size=SIZE)
    return path


class Uneven(nn.Module):
    """A trained plain CNN in which one channel is a thousand times larger, and its readers' weights smaller.

    It answers as before in float32; rounded to 8 bits, that channel takes all levels for itself.
    """

    def __init__(self) -> None:
        super().__init__()
        plain = folded(copy.deepcopy(network("plain_cnn-2")), torch.zeros(2, 3, *SIZE))
        first, second = plain.get_submodule("features.conv1"), plain.get_submodule("features.conv2")
        assert isinstance(first, nn.Conv2d)
        assert isinstance(second, nn.Conv2d)
        assert first.bias is not None
        with torch.no_grad():
            first.weight[0] *= 1000.0
            first.bias[0] *= 1000.0
            second.weight[:, 0] /= 1000.0
        self.network = plain

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.network(images)
        return logits


@cache
def uneven_file() -> Path:
    """The float ONNX file of ``Uneven``."""
    path = _folder() / "uneven.onnx"
    write_onnx(Uneven().eval(), path, channels=3, size=SIZE)
    return path
