"""Small networks, images and students of runs that never were, for tests of exported files."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from understudy.data.dataset import MemoryImages, Split
from understudy.models.preprocessing import Preprocessing

PREPROCESSING = Preprocessing(mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.3), size=(8, 8))
IMAGE = (12, 10)
NAMES = ("cat", "dog", "näht")


class Small(nn.Module):
    """Convolutions with batch norm, a residual sum and a linear head: 3 channels of 8x8 to 3 classes."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.ReLU())
        self.block = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4))
        self.head = nn.Linear(4, 3)

    def forward(self, images: Tensor) -> Tensor:
        features = self.stem(images)
        features = torch.relu(features + self.block(features))
        logits: Tensor = self.head(features.mean((2, 3)))
        return logits


def small(seed: int = 0) -> nn.Module:
    """With statistics of batch norm as after a training, and logits far enough apart."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Small()
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.normal_(module.running_mean)  # type: ignore[arg-type]
                nn.init.uniform_(module.running_var, 0.5, 2)  # type: ignore[arg-type]
        nn.init.normal_(model.head.weight, std=3)
    return model.eval().requires_grad_(False)


def split(count: int = 40, *, image: tuple[int, int] = IMAGE, channels: int = 3, classes: int = 3) -> Split:
    """Noise, each image and channel of a brightness of its own, so that answers differ."""
    drawn = np.random.default_rng(0)
    noise = drawn.integers(0, 256, (count, *image, channels)) * drawn.random((count, 1, 1, channels))
    pixels = noise.astype(np.uint8)
    return Split(images=MemoryImages(pixels), labels=drawn.integers(0, classes, count))


def pixels(count: int = 4, *, image: tuple[int, int] = IMAGE) -> Tensor:
    return torch.rand(count, 3, *image, generator=torch.Generator().manual_seed(1)) * 255


def write_student(
    folder: Path,
    model: nn.Module,
    *,
    network: dict[str, Any] | None,
    preprocessing: Preprocessing = PREPROCESSING,
    image: tuple[int, int] = IMAGE,
    names: tuple[str, ...] = NAMES,
    **more: Any,
) -> Path:
    """A folder with ``student.json`` and the weights, as a run leaves them."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = folder / "student.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, weights)
    card = {
        "version": 1,
        "name": "the student",
        "network": network,
        "structure": None,
        "preprocessing": {
            **preprocessing.definition(),
            "channels": len(preprocessing.mean),
            "image": list(image),
        },
        "class_names": list(names),
        "parameters": 1,
        "weights": {"file": weights.name, "sha256": hashlib.sha256(weights.read_bytes()).hexdigest()},
        **more,
    }
    (folder / "student.json").write_text(json.dumps(card), "utf-8")
    return folder
