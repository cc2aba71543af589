"""What stands in a smaller network for layers of which no channel is left: they compute nothing."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor, nn


class NoChannels(nn.Module):
    """In place of a layer that gives no channel: a tensor without channels, of the right height and width.

    Args:
        layer: a convolution, linear layer, norm, PReLU, or a layer without parameters such as a pooling.
    """

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.area = _Area.of(layer) if isinstance(layer, nn.Conv2d) else None
        self.flat = isinstance(layer, nn.Linear)
        pointwise = isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d | nn.PReLU)
        # torch pools no empty tensors: one channel of zeros shows what becomes of height and width
        self.shown = None if self.area or self.flat or pointwise else layer

    def forward(self, features: Tensor) -> Tensor:
        """``(batch, any, height, width)`` to ``(batch, 0, …)``; ``(…, any)`` to ``(…, 0)`` for a linear layer."""
        if self.area is not None:
            return features.new_zeros(features.shape[0], 0, *self.area.after(features))
        if self.flat:
            return features.new_zeros(*features.shape[:-1], 0)
        if self.shown is None:
            return features
        out: Tensor = self.shown(features.new_zeros(features.shape[0], 1, *features.shape[2:]))
        return out[:, :0]


class NoInputs(nn.Module):
    """In place of a convolution or linear layer that nothing comes into: its bias everywhere, or zeros.

    Args:
        layer: with as many output channels as are wanted. Its bias is taken over.
    """

    def __init__(self, layer: nn.Conv2d | nn.Linear) -> None:
        super().__init__()
        self.area = _Area.of(layer) if isinstance(layer, nn.Conv2d) else None
        self.outputs = layer.out_channels if isinstance(layer, nn.Conv2d) else layer.out_features
        self.bias: nn.Parameter | None
        self.register_parameter("bias", layer.get_parameter("bias") if layer.bias is not None else None)

    def forward(self, features: Tensor) -> Tensor:
        """``(batch, 0, height, width)`` to ``(batch, outputs, …)``; ``(…, 0)`` to ``(…, outputs)`` if linear."""
        if self.area is None:
            out = features.new_zeros(*features.shape[:-1], self.outputs)
            return out if self.bias is None else out + self.bias
        out = features.new_zeros(features.shape[0], self.outputs, *self.area.after(features))
        return out if self.bias is None else out + self.bias.view(-1, 1, 1)


@dataclass(frozen=True, kw_only=True)
class _Area:
    """What a convolution makes of height and width.

    Attributes:
        padded: so that only the stride makes them smaller, as ``padding="same"`` does and, among subclasses with a
            forward method of their own, those that pad as TensorFlow does.
    """

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    padded: bool

    @classmethod
    def of(cls, layer: nn.Conv2d) -> _Area:
        return cls(
            kernel=layer.kernel_size,
            stride=layer.stride,
            padding=(0, 0) if isinstance(layer.padding, str) else layer.padding,
            dilation=layer.dilation,
            padded=layer.padding == "same" or type(layer).forward is not nn.Conv2d.forward,
        )

    def after(self, features: Tensor) -> tuple[int, int]:
        height, width = (self._side(features.shape[2 + axis], axis) for axis in (0, 1))
        return height, width

    def _side(self, pixels: int, axis: int) -> int:
        if self.padded:
            return math.ceil(pixels / self.stride[axis])
        reach = self.dilation[axis] * (self.kernel[axis] - 1) + 1
        return (pixels + 2 * self.padding[axis] - reach) // self.stride[axis] + 1
