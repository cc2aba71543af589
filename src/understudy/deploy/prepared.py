"""Preprocessing as a part of the network, so that a file can take pixels."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from understudy.models.preprocessing import Preprocessing

INSIDE = "network."  # before the names of the network's own layers


class WithPreprocessing(nn.Module):
    """Maps pixels ``(batch, channels, height, width)``, float32 0 to 255, to what ``network`` answers.

    Resizing with antialiasing is a linear map of columns and one of rows, both written as matrix products: every
    target has these, few have that way to resize.

    Args:
        network: takes normalised images.
        preprocessing: what it was taught with.
        image: height and width of the pixels.
    """

    def __init__(self, network: nn.Module, preprocessing: Preprocessing, *, image: tuple[int, int]) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.tensor(preprocessing.mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(preprocessing.std).view(1, -1, 1, 1))
        size = preprocessing.size
        self.resizes = size is not None and size != image
        if size is not None and size != image:
            self.register_buffer("rows", resizing(image[0], size[0]))
            self.register_buffer("columns", resizing(image[1], size[1]).T.contiguous())

    mean: Tensor
    std: Tensor
    rows: Tensor
    columns: Tensor

    def forward(self, pixels: Tensor) -> Tensor:
        """Logits ``(batch, classes)``."""
        images = self.rows @ (pixels @ self.columns) if self.resizes else pixels
        logits: Tensor = self.network((images / 255.0 - self.mean) / self.std)
        return logits


def resizing(length: int, to: int) -> Tensor:
    """The matrix ``(to, length)`` that resizes a column of pixels as ``Preprocessing`` does.

    >>> resizing(4, 2)
    tensor([[0.4286, 0.4286, 0.1429, 0.0000],
            [0.0000, 0.1429, 0.4286, 0.4286]])
    """
    columns = torch.eye(length).view(1, 1, length, length)
    resized = F.interpolate(columns, size=(to, length), mode="bilinear", antialias=True, align_corners=False)
    return resized.view(to, length)
