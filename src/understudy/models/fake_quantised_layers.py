"""Convolutions and linear layers that compute in float32 what their 8-bit integer form would give."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

if TYPE_CHECKING:
    import numpy as np

MOMENTUM = 0.01  # share of the newest batch in a tracked range
HIGHEST = 255  # activations are unsigned: on x86 processors onnxruntime has integer kernels for those
WEIGHT_LIMITS = {8: 127, 7: 63}  # largest integer in a weight, by bits
_SMALLEST_SCALE = 1e-15  # of a channel or a range that is all zero
_BIAS_LIMIT = 2.0**30  # a bias is 32 bits wide; half of that leaves room for the sum that it is added to


@dataclass(frozen=True, kw_only=True)
class Grid:
    """The real number of the integer ``q`` is ``(q - zero_point) * scale``; ``q`` is 0 to 255."""

    scale: float
    zero_point: int


@dataclass(frozen=True, kw_only=True)
class Integers:
    """One layer as a file of integers holds it.

    Attributes:
        input: of the tensor that the layer reads.
        weight: int8, in the layer's own shape; weight_scale: float32, one for each output channel.
        bias: int32 in units of ``input.scale * weight_scale``, or None.
        output: of the tensor that it gives, or None where that stays in float32.
    """

    input: Grid
    weight: np.ndarray
    weight_scale: np.ndarray
    bias: np.ndarray | None
    output: Grid | None


class TrackedRange(nn.Module):
    """Rounds a tensor to 256 levels between the lowest and the highest value that it was seen to have, and zero.

    In train mode every tensor that passes moves the range by ``MOMENTUM`` of the way to its own; in eval mode the
    range stands still. Values outside are clipped and get no gradient; inside, it passes as if nothing were rounded.

    Args:
        floor: of what is read later, such as 0 where a ReLU follows: no level is spent below it.
        ceiling: the same above, such as 6 for ReLU6.

    Attributes:
        low: at most zero, so that zero is a level; NaN until something was seen, and all answers with it.
        high: at least zero.

    References:
        Jacob et al. 2018, arXiv:1712.05877, section 3.1.
    """

    low: Tensor
    high: Tensor

    def __init__(self, *, floor: float = -math.inf, ceiling: float = math.inf) -> None:
        super().__init__()
        self.floor, self.ceiling = floor, ceiling
        self.register_buffer("low", torch.tensor(math.nan))
        self.register_buffer("high", torch.tensor(math.nan))

    @torch.no_grad()
    def observe(self, tensor: Tensor, share: float) -> None:
        """Moves the range by ``share`` of the way to that of ``tensor``; the first one is taken as it is."""
        for kept, seen in zip((self.low, self.high), torch.aminmax(tensor.detach().float()), strict=True):
            seen = seen.clamp(self.floor, self.ceiling)
            seen = seen.clamp(max=0.0) if kept is self.low else seen.clamp(min=0.0)
            kept.copy_(torch.where(kept.isnan(), seen, kept + share * (seen - kept)))

    def grid(self) -> tuple[Tensor, Tensor]:
        """Scale, float32, and zero point, int32 from 0 to 255: scalars."""
        scale = ((self.high - self.low) / HIGHEST).clamp(min=_SMALLEST_SCALE)
        zero_point = (-self.low / scale).round().clamp(0, HIGHEST)
        return scale, zero_point.to(torch.int32)

    def forward(self, tensor: Tensor) -> Tensor:
        """Any shape."""
        if self.training:
            self.observe(tensor, MOMENTUM)
        return self.rounded(tensor)

    def rounded(self, tensor: Tensor) -> Tensor:
        """Of any shape, to the nearest level; the range stands still."""
        scale, zero_point = self.grid()
        return torch.fake_quantize_per_tensor_affine(tensor, scale, zero_point, 0, HIGHEST)

    def known(self) -> bool:
        """Whether it has seen anything, or was loaded from one that had."""
        return bool((self.low <= self.high).item())

    def as_grid(self) -> Grid:
        """Plain numbers."""
        scale, zero_point = self.grid()
        return Grid(scale=float(scale), zero_point=int(zero_point))


class FakeQuantisedConv2d(nn.Conv2d):
    """A convolution with 8-bit weights, symmetric and per output channel, on an 8-bit input; see ``fake_quantised``.

    Args:
        layer: whose parameters become this one's.
        weight_bits: 8 or 7.
        source: the range of the layer that the input comes from, where that is rounded already; else it has its own.
        output_range: of what it gives; None leaves that in float32.
    """

    input_range: TrackedRange | None
    weight_limit: int
    calibrating: int
    source: tuple[TrackedRange, ...]

    def __init__(
        self,
        layer: nn.Conv2d,
        *,
        weight_bits: int,
        source: TrackedRange | None = None,
        output_range: TrackedRange | None = None,
    ) -> None:
        super().__init__(
            layer.in_channels,
            layer.out_channels,
            layer.kernel_size,  # type: ignore[arg-type]
            stride=layer.stride,  # type: ignore[arg-type]
            padding=layer.padding,  # type: ignore[arg-type]
            dilation=layer.dilation,  # type: ignore[arg-type]
            groups=layer.groups,
            bias=layer.bias is not None,
            padding_mode=layer.padding_mode,
            device="meta",  # draws nothing from the global generator
        )
        self.weight, self.bias = layer.weight, layer.bias
        _equip(self, weight_bits, source)
        self.output_range = output_range

    def forward(self, images: Tensor) -> Tensor:
        return _forward(self, images, self._conv_forward)


class FakeQuantisedLinear(nn.Linear):
    """A linear layer with 8-bit weights, symmetric and per output, on an 8-bit input; its answer stays in float32."""

    input_range: TrackedRange | None
    output_range: None
    weight_limit: int
    calibrating: int
    source: tuple[TrackedRange, ...]

    def __init__(self, layer: nn.Linear, *, weight_bits: int, source: TrackedRange | None = None) -> None:
        super().__init__(layer.in_features, layer.out_features, bias=layer.bias is not None, device="meta")
        self.weight, self.bias = layer.weight, layer.bias
        _equip(self, weight_bits, source)
        self.output_range = None

    def forward(self, features: Tensor) -> Tensor:
        return _forward(self, features, F.linear)


FakeQuantisedLayer = FakeQuantisedConv2d | FakeQuantisedLinear


def read_range(layer: FakeQuantisedLayer) -> TrackedRange:
    """Of the tensor that ``layer`` reads."""
    return layer.source[0] if layer.input_range is None else layer.input_range


def fake_quantised_layers(model: nn.Module) -> Iterator[tuple[str, FakeQuantisedLayer]]:
    """Names and layers, each once."""
    for name, module in model.named_modules():
        if isinstance(module, FakeQuantisedConv2d | FakeQuantisedLinear):
            yield name, module


@contextmanager
def calibrating(layers: list[FakeQuantisedLayer], batch: int) -> Iterator[None]:
    """Layers compute in plain float32 meanwhile, and their ranges become the mean over ``batch`` batches so far."""
    for layer in layers:
        layer.calibrating = batch
    try:
        yield
    finally:
        for layer in layers:
            layer.calibrating = 0


@torch.no_grad()
def integers_of(layer: FakeQuantisedLayer) -> Integers:
    """What ``layer`` computes with, as integers."""
    scale, bias_scale = _scales(layer)
    weight, bias = _rounded(layer)
    shaped = scale.view(-1, *[1] * (weight.dim() - 1))
    return Integers(
        input=read_range(layer).as_grid(),
        weight=(weight / shaped).round().to(torch.int8).cpu().numpy(),
        weight_scale=scale.cpu().numpy(),
        bias=None if bias is None else (bias.double() / bias_scale).round().to(torch.int32).cpu().numpy(),
        output=None if layer.output_range is None else layer.output_range.as_grid(),
    )


def _equip(layer: FakeQuantisedLayer, weight_bits: int, source: TrackedRange | None) -> None:
    layer.input_range = TrackedRange() if source is None else None
    # in a tuple it is no module of this one: it has one name, and one place in a file
    layer.source = () if source is None else (source,)
    layer.weight_limit, layer.calibrating = WEIGHT_LIMITS[weight_bits], 0


def _forward(layer: FakeQuantisedLayer, tensor: Tensor, compute: Any) -> Tensor:
    answer: Tensor
    if layer.calibrating:
        share = 1.0 / layer.calibrating
        if layer.input_range is not None:
            layer.input_range.observe(tensor, share)
        answer = compute(tensor, layer.weight, layer.bias)
        if layer.output_range is not None:
            layer.output_range.observe(answer, share)
        return answer
    # first, as the scale of the bias follows from this range; a second rounding to the same levels changes nothing
    tensor = layer.source[0].rounded(tensor) if layer.input_range is None else layer.input_range(tensor)
    answer = compute(tensor, *_rounded(layer))
    return answer if layer.output_range is None else layer.output_range(answer)


def _rounded(layer: FakeQuantisedLayer) -> tuple[Tensor, Tensor | None]:
    scale, bias_scale = _scales(layer)
    # a float zero point, as one of integers is looked at on the host, for which a GPU is waited for
    zero, limit = torch.zeros_like(scale), layer.weight_limit
    weight = torch.fake_quantize_per_channel_affine(layer.weight, scale, zero, 0, -limit, limit)
    if layer.bias is None:
        return weight, None
    bias = torch.fake_quantize_per_channel_affine(layer.bias, bias_scale, zero, 0, -(2**31), 2**31 - 1)
    return weight, bias


@torch.no_grad()
def _scales(layer: FakeQuantisedLayer) -> tuple[Tensor, Tensor]:
    """Of the weights and of the bias, one for each output channel.

    A channel of tiny weights gets larger steps where its bias would not fit into 32 bits otherwise.
    """
    input_scale, _ = read_range(layer).grid()
    scale = layer.weight.abs().amax(tuple(range(1, layer.weight.dim()))) / layer.weight_limit
    if layer.bias is not None:
        scale = torch.maximum(scale, layer.bias.abs() / (_BIAS_LIMIT * input_scale))
    scale = scale.clamp(min=_SMALLEST_SCALE)
    return scale, input_scale * scale
