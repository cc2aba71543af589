"""Images and networks to measure with: speed does not depend on what they show or say."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from understudy.data import load
from understudy.data.dataset import Dataset, MemoryImages, Split
from understudy.models import build

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True, kw_only=True)
class Data:
    """Which images to learn; every process makes or reads the same.

    Attributes:
        images: in the training split. Random noise, unless ``path`` is given.
        classes: balanced, except in a file, which has its own.
        side: height and width in pixels.
        path: an ``.npz`` file of real images to take them from.
    """

    images: int
    classes: int = 100
    side: int = 32
    path: str | None = None

    def dataset(self) -> Dataset:
        """The images as understudy has them, without validation images: looking at these is no part of a step."""
        if self.path is not None:
            return load(path=self.path, validation=0.0, train_images=self.images)
        train = _noise(self.images, self.side, self.classes, seed=0)
        test = _noise(max(self.classes, 16), self.side, self.classes, seed=1)
        splits = [Split(images=MemoryImages(pixels), labels=labels) for pixels, labels in (train, test)]
        nothing = Split(images=MemoryImages(train[0][:0]), labels=train[1][:0])
        return Dataset(
            name="made up",
            train=splits[0],
            validation=nothing,
            test=splits[1],
            class_names=tuple(str(number) for number in range(self.classes)),
            height=self.side,
            width=self.side,
            channels=3,
            mean=(0.5, 0.5, 0.5),
            std=(0.29, 0.29, 0.29),
            fingerprint=f"made up: {self}",
        )


def _noise(images: int, side: int, classes: int, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
    stream = np.random.default_rng(seed)
    pixels = stream.integers(0, 256, (images, side, side, 3), dtype=np.uint8)
    return pixels, np.arange(images, dtype=np.int64) % classes


def write_npz(path: Path, data: Data, *, validation: int, test: int) -> None:
    """The images as a file that a recipe can name, with so many more for validation and test."""
    if data.path is not None:
        _cut_npz(path, Path(data.path), train=data.images + validation, test=test)
        return
    x_train, y_train = _noise(data.images + validation, data.side, data.classes, seed=0)
    x_test, y_test = _noise(test, data.side, data.classes, seed=1)
    np.savez(path, x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test)


def _cut_npz(path: Path, source: Path, *, train: int, test: int) -> None:
    """Some images of a file, drawn at random: a file may have them in order of their classes."""
    stream = np.random.default_rng(0)
    cut: dict[str, np.ndarray] = {}
    with np.load(source, allow_pickle=False) as file:
        for part, count in (("train", train), ("test", test)):
            rows = stream.permutation(len(file[f"y_{part}"]))[:count]
            cut |= {f"{what}_{part}": file[f"{what}_{part}"][rows] for what in ("x", "y")}
    np.savez(path, x_train=cut["x_train"], y_train=cut["y_train"], x_test=cut["x_test"], y_test=cut["y_test"])


def network(name: str, dataset: Dataset) -> nn.Module:
    """A network by name with fresh weights, always the same ones."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build(
            name,
            classes=len(dataset.class_names),
            channels=dataset.channels,
            size=(dataset.height, dataset.width),
        )


@torch.no_grad()
def teacher(name: str, dataset: Dataset) -> nn.Module:
    """A network that answers with sane numbers without having been trained.

    Its normalisations take the statistics of one batch of noise: with their initial ones, the activations of a deep
    network would grow out of every number format.
    """
    model = network(name, dataset)
    layers = [layer for layer in model.modules() if isinstance(layer, nn.BatchNorm2d)]
    before = [layer.momentum for layer in layers]
    for layer in layers:
        layer.momentum = 1.0
    drawn = torch.Generator().manual_seed(0)
    model.train()(torch.randn(64, dataset.channels, dataset.height, dataset.width, generator=drawn))
    for layer, momentum in zip(layers, before, strict=True):
        layer.momentum = momentum
    return model.eval()


def teacher_loader(name: str, dataset: Dataset) -> Callable[[], nn.Module]:
    """``teacher``, made when it is called."""
    return partial(teacher, name, dataset)
