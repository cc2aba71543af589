"""What a network costs while channels go and come back one by one, without making the network."""

from __future__ import annotations

import numpy as np

from understudy.structure.channels import Alive, Channels
from understudy.structure.cost import Cost


class Ledger:
    """Keeps the cost of a set of channels up to date.

    Args:
        reading: of the network; all its channels are there at the beginning.

    Attributes:
        alive: ``(channels,)`` which are there.
        cost: of the network that is made of them, as ``Channels.cost_of`` has it.
    """

    def __init__(self, reading: Channels) -> None:
        self.alive: Alive = np.ones(reading.count, dtype=bool)
        self.cost = reading.whole
        self._prices: list[tuple[int, int, int]] = []
        self._out: list[int] = []
        self._into: list[int] = []
        # for each channel: layers, and how many of their rows and columns are its own
        self._entries: list[list[tuple[int, int, int]]] = [[] for _ in range(reading.count)]
        for number, layer in enumerate(reading.layers):
            part, dense = layer.part, layer.part.kind == "dense"
            self._prices.append((layer.multiply_adds, layer.weights, layer.each))
            self._out.append(len(part.out))
            self._into.append(len(part.into) if dense else 1)
            rows = np.bincount(part.out[part.out >= 0], minlength=reading.count)
            columns = np.bincount(part.into[part.into >= 0], minlength=reading.count) if dense else 0 * rows
            for channel in np.flatnonzero(rows + columns):
                self._entries[channel].append((number, int(rows[channel]), int(columns[channel])))

    def remove(self, channel: int) -> None:
        """Takes a channel away that is there."""
        self._change(channel, -1)

    def restore(self, channel: int) -> None:
        """Puts a channel back."""
        self._change(channel, 1)

    def _change(self, channel: int, sign: int) -> None:
        assert self.alive[channel] == (sign < 0)
        self.alive[channel] = sign > 0
        multiply_adds, parameters = self.cost.multiply_adds, self.cost.parameters
        for layer, rows, columns in self._entries[channel]:
            out, into = self._out[layer], self._into[layer]
            self._out[layer], self._into[layer] = out + sign * rows, into + sign * columns
            pairs = self._out[layer] * self._into[layer] - out * into
            macs, weights, each = self._prices[layer]
            multiply_adds += macs * pairs
            parameters += weights * pairs + each * sign * rows
        self.cost = Cost(parameters=parameters, multiply_adds=multiply_adds)
