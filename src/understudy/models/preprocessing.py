"""What is done to pixels before a network sees them: it belongs to the model, so teacher and student may differ."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from understudy.errors import BadInput
from understudy.models.names import ELSEWHERE, parse_name

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Preprocessing:
    """Normalises pixels, after resizing them where ``size`` is given.

    Args:
        mean: per channel, in units of 1.0 = pixel value 255.
        std: per channel, in the same units.
        size: height and width to resize to (bilinear with antialiasing, the whole image); None leaves images as they come.

    Raises:
        BadInput: mean and std of different lengths, not finite, or a std that is not positive.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    size: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if not self.mean or len(self.mean) != len(self.std):
            raise BadInput(
                f"mean and std need one number for each channel, got {len(self.mean)} and {len(self.std)} of them"
            )
        if not all(math.isfinite(value) for value in self.mean):
            raise BadInput(f"mean must be finite numbers, got {self.mean}")
        if not all(math.isfinite(value) and value > 0 for value in self.std):
            raise BadInput(
                f"std must be positive numbers, got {self.std}. A channel that never changes has std 0: drop that "
                "channel, or give std yourself"
            )
        if self.size is not None and (len(self.size) != 2 or min(self.size) < 1):
            raise BadInput(f"size is (height, width) in pixels, got {self.size}")

    def __call__(self, pixels: Tensor) -> Tensor:
        """Maps ``(batch, channels, height, width)``, 0 to 255, to normalised float32 in channels_last memory.

        Every sample is treated alone: the batch it comes in changes no bit. ``pixels`` is left as it was.
        """
        import torch
        from torch.nn import functional as F

        if pixels.ndim != 4 or pixels.shape[1] != len(self.mean):
            raise BadInput(
                f"this preprocessing is for (batch, {len(self.mean)}, height, width), got {tuple(pixels.shape)}: "
                "its mean and std need one number for each channel"
            )
        images = pixels.to(torch.float32, memory_format=torch.channels_last)
        if self.size is not None and images.shape[-2:] != self.size:
            images = F.interpolate(
                images, size=self.size, mode="bilinear", antialias=True, align_corners=False
            )
        mean, std = (
            torch.tensor(values).to(images.device, non_blocking=True).view(1, -1, 1, 1)
            for values in (self.mean, self.std)
        )
        return images.div(255.0).sub_(mean).div_(std).contiguous(memory_format=torch.channels_last)

    def definition(self) -> dict[str, Any]:
        """Plain JSON: what keys and ``student.json`` hold.

        >>> Preprocessing(mean=(0.5,), std=(0.25,)).definition()
        {'mean': [0.5], 'std': [0.25], 'size': None}
        """
        return {
            "mean": list(self.mean),
            "std": list(self.std),
            "size": None if self.size is None else list(self.size),
        }


def preprocessing_of(name: str, pretrained: bool, *, channels: int = 3) -> Preprocessing | None:
    """What the published weights of ``name`` were trained with; None where the data's own statistics are to be used.

    Published: mean, std and input size. Their resizing filter and central crop are not followed: the whole image is
    resized, which is what a network that is taught on small images should see.

    Raises:
        BadInput: unknown name, or weights that cannot serve ``channels`` channels.
        MissingExtra: a timm or torchvision name where that package is not installed.
    """
    parsed = parse_name(name)
    if not pretrained or parsed.family not in ELSEWHERE:
        return None
    from understudy.models.published import published_statistics

    published = published_statistics(parsed.family, parsed.elsewhere, channels=channels)
    return Preprocessing(mean=published.mean, std=published.std, size=published.size)
