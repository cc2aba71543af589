"""What a channel costs, as a penalty: the regulariser that learns a structure under a budget.

A layer has a coefficient ``C``, its multiply-adds or parameters for one pair of an input and an output channel: for a
convolution ``height * width * k_h * k_w`` of its output, or ``k_h * k_w``; for a linear layer the number of its rows,
or 1. A channel has a magnitude r, 0 or more, and is alive where r exceeds a threshold. ``A`` counts the alive ones.
These losses are of the whole network, so they are scalars.

References:
    Gordon et al. 2018, arXiv:1711.06798 (MorphNet), and its official code, where the coefficient for FLOPs is twice the
    one for multiply-adds here.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


def layer_resource_loss(
    into: Tensor,
    out: Tensor,
    *,
    coefficient: float,
    threshold: float,
    fixed_into: int = 0,
    fixed_out: int = 0,
) -> Tensor:
    """``C * (A_in * sum_out r + A_out * sum_in r)``; no gradient flows through the counts.

    Args:
        into: ``(inputs,)`` magnitudes of the input channels. Receives the gradient.
        out: ``(outputs,)`` magnitudes of the output channels. Receives the gradient.
        coefficient: C.
        threshold: a channel is alive where its magnitude exceeds it.
        fixed_into: further input channels that always live and have no magnitude, such as the image's.
        fixed_out: likewise of the output, such as the classes.

    Returns:
        a scalar.

    >>> into, out = torch.tensor([1.0, 0.5, 0.0]), torch.tensor([2.0, 0.001])
    >>> layer_resource_loss(into, out, coefficient=9, threshold=0.01)
    tensor(49.5180)
    """
    alive_into = (into.detach() > threshold).sum() + fixed_into
    alive_out = (out.detach() > threshold).sum() + fixed_out
    return coefficient * (alive_into * out.sum() + alive_out * into.sum())


def depthwise_resource_loss(into: Tensor, out: Tensor, *, coefficient: float) -> Tensor:
    """``C * (sum_in r + sum_out r)``: a depthwise convolution, each of whose channels costs C by itself.

    Args:
        into: ``(channels,)`` magnitudes of the channels that it reads. Receives the gradient.
        out: ``(channels,)`` of those that it gives; as they live and die together, mostly the same. Likewise.
        coefficient: C.

    Returns:
        a scalar.
    """
    return coefficient * (into.sum() + out.sum())


@dataclass(frozen=True, kw_only=True)
class Charges:
    """The layers of a network as tensors, so that what all channels cost is one sum.

    A removable channel is counted from 0 through the whole network. A layer may read or write it several times: a
    linear layer after flattening has a column for each of its pixels.

    Attributes:
        out: ``(entries,)`` channels that layers write, one entry for each row of a layer.
        out_layer: ``(entries,)`` whose row it is.
        into: ``(entries,)`` channels that layers read, one entry for each column.
        into_layer: ``(entries,)`` whose column it is.
        fixed_out: ``(layers,)`` rows that are not removable, float64.
        fixed_into: ``(layers,)`` columns that are not removable, float64.
        coefficient: ``(layers,)`` C of each layer, times its weight; float64.
        own: ``(channels,)`` what depthwise convolutions take for each channel, ``sum C``; float64.
    """

    out: Tensor
    out_layer: Tensor
    into: Tensor
    into_layer: Tensor
    fixed_out: Tensor
    fixed_into: Tensor
    coefficient: Tensor
    own: Tensor

    def to(self, device: torch.device) -> Charges:
        """The same on a device."""
        return Charges(**{name: tensor.to(device) for name, tensor in vars(self).items()})


@torch.no_grad()
def channel_prices(alive: Tensor, charges: Charges) -> Tensor:
    """The factor of each channel's magnitude in the sum of all layers' losses.

    With the counts held fixed that sum is linear in r::

        sum_l R_l = sum_c r_c * price_c,   price_c = sum_l C_l * (A_in,l * n_out,l,c + A_out,l * n_in,l,c) + 2 * own_c

    where n counts how often layer l writes and reads the channel. Depthwise layers have it on both sides.

    Args:
        alive: ``(channels,)`` bool.
        charges: see there.

    Returns:
        ``(channels,)`` float64 without gradient. With whole coefficients all sums are exact, so that no order of
        summing can change a bit.
    """
    alive_out, alive_into = _alive_counts(alive, charges)
    prices = 2 * charges.own
    prices = prices.index_add(0, charges.out, (charges.coefficient * alive_into)[charges.out_layer])
    return prices.index_add(0, charges.into, (charges.coefficient * alive_out)[charges.into_layer])


@torch.no_grad()
def alive_cost(alive: Tensor, charges: Charges) -> Tensor:
    """``sum_l C_l * A_in * A_out``, and C for each alive channel of a depthwise layer: a scalar, float64.

    Args:
        alive: ``(channels,)`` bool.
        charges: see there.
    """
    alive_out, alive_into = _alive_counts(alive, charges)
    return (charges.coefficient * alive_into * alive_out).sum() + (charges.own * alive).sum()


def resource_loss(magnitudes: Tensor, charges: Charges, *, threshold: float) -> Tensor:
    """The sum of all layers' losses: a scalar in the number format of ``magnitudes``.

    Args:
        magnitudes: ``(channels,)``. Receives the gradient.
        charges: see there.
        threshold: a channel is alive where its magnitude exceeds it.
    """
    prices = channel_prices(magnitudes.detach() > threshold, charges)
    return (magnitudes * prices.to(magnitudes.dtype)).sum()


def _alive_counts(alive: Tensor, charges: Charges) -> tuple[Tensor, Tensor]:
    living = alive.to(torch.float64)
    out = charges.fixed_out.index_add(0, charges.out_layer, living[charges.out])
    return out, charges.fixed_into.index_add(0, charges.into_layer, living[charges.into])
