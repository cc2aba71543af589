"""The channels of a network, numbered through, with what each layer costs for each of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from understudy.errors import BadInput, suggestion
from understudy.losses.resource import Charges
from understudy.structure.cost import Cost, layer_costs
from understudy.structure.tracing import Ids, Part, trace

Alive = NDArray[np.bool_]
RESOURCES = ("multiply_adds", "parameters")


@dataclass(frozen=True, kw_only=True)
class Group:
    """Channels that one layer writes, as far as they can be removed.

    Attributes:
        name: of the first layer that writes them; layers that share a residual sum are one group.
        start: number of its first channel among all channels of the network.
        rows: which rows of that layer its channels are, rising; other rows of it cannot be removed.
    """

    name: str
    start: int
    rows: tuple[int, ...]

    @property
    def numbers(self) -> range:
        """Its channels among all channels of the network."""
        return range(self.start, self.start + len(self.rows))


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One layer with its channels' numbers and its costs.

    Attributes:
        part: name, kind, and for each output and input channel its number; below 0 it cannot be removed: -1 is the
            image's, -2 and below are told apart.
        multiply_adds: MACs of one image for one pair of an input and an output channel; for a depthwise layer, for
            one channel; 0 for others.
        weights: parameters for the same.
        each: further parameters for one output channel: a bias, a norm's scale and shift.
    """

    part: Part
    multiply_adds: int
    weights: int
    each: int


@dataclass(frozen=True, kw_only=True)
class Channels:
    """What can be removed from a network, and what would be saved.

    Attributes:
        groups: in the order in which the network runs; their channels are numbered in this order, from 0.
        layers: in the same order.
        answers: numbers of the channels that are the network's answers, all below -1.
        whole: what the network costs as it is.
        other: what of it no layer here accounts for; it stays.
    """

    groups: tuple[Group, ...]
    layers: tuple[Layer, ...]
    answers: frozenset[int]
    whole: Cost
    other: Cost

    @property
    def count(self) -> int:
        """How many channels can be removed."""
        return sum(len(group.rows) for group in self.groups)

    def cost_of(self, alive: Alive) -> Cost:
        """What the network costs with these channels: exactly that of the smaller network made of them.

        Args:
            alive: ``(count,)``.
        """
        multiply_adds, parameters = self.other.multiply_adds, self.other.parameters
        for layer in self.layers:
            out = int(kept(layer.part.out, alive).sum())
            pairs = out * int(kept(layer.part.into, alive).sum()) if layer.part.kind == "dense" else out
            multiply_adds += layer.multiply_adds * pairs
            parameters += layer.weights * pairs + layer.each * out
        return Cost(multiply_adds=multiply_adds, parameters=parameters)

    def alive(self, structure: Mapping[str, Iterable[int]]) -> Alive:
        """Which channels a structure keeps, given as rows by group; a group that it does not name stays whole.

        Raises:
            BadInput: the network has no such group or row.
        """
        by_name = {group.name: group for group in self.groups}
        alive = np.ones(self.count, dtype=bool)
        for name, rows in structure.items():
            group = by_name.get(name)
            if group is None:
                raise BadInput(
                    f"the structure does not fit this network: it has no channels to remove called {name!r}."
                    f"{suggestion(name, by_name)} It was found for another network or another image size"
                )
            kept_rows = set(rows)
            if strange := kept_rows - set(group.rows):
                raise BadInput(
                    f"the structure does not fit this network: it keeps channel {min(strange)} of {name}, which has "
                    f"{len(group.rows)} that can be removed, {group.rows[0]} to {group.rows[-1]}"
                )
            alive[group.start : group.start + len(group.rows)] = [row in kept_rows for row in group.rows]
        return alive

    def kept(self, alive: Alive) -> dict[str, tuple[int, ...]]:
        """Rows that are kept, by group."""
        return {
            group.name: tuple(
                row for row, lives in zip(group.rows, alive[group.start :], strict=False) if lives
            )
            for group in self.groups
        }

    def without(self, names: Iterable[str]) -> Channels:
        """The same where some groups cannot be removed."""
        gone = set(names)
        lowest = min(int(ids.min(initial=-1)) for one in self.layers for ids in (one.part.out, one.part.into))
        numbers = lowest - 1 - np.arange(self.count + 1)
        groups: list[Group] = []
        for group in self.groups:
            if group.name not in gone:
                start = sum(len(one.rows) for one in groups)
                numbers[group.start : group.start + len(group.rows)] = start + np.arange(len(group.rows))
                groups.append(replace(group, start=start))

        def renumbered(ids: Ids) -> Ids:
            return np.where(ids < 0, ids, numbers[ids])

        layers = (
            replace(
                layer,
                part=replace(layer.part, out=renumbered(layer.part.out), into=renumbered(layer.part.into)),
            )
            for layer in self.layers
        )
        return replace(self, groups=tuple(groups), layers=tuple(layers))

    def charges(self, resource: str, *, weights: Mapping[str, float] | None = None) -> Charges:
        """The layers as tensors, with their coefficients for ``multiply_adds`` or ``parameters``.

        Parameters are those of convolutions and linear layers without biases, as in MorphNet.

        Args:
            weights: a factor for each layer by name; 1 where there is none.
        """
        factors = [(weights or {}).get(layer.part.name, 1.0) for layer in self.layers]
        dense = [(one, f) for one, f in zip(self.layers, factors, strict=True) if one.part.kind == "dense"]

        def coefficient(layer: Layer) -> int:
            return layer.multiply_adds if resource == "multiply_adds" else layer.weights

        own = np.zeros(self.count)
        for layer, factor in zip(self.layers, factors, strict=True):
            if layer.part.kind == "depthwise":
                np.add.at(own, layer.part.out[layer.part.out >= 0], factor * coefficient(layer))
        out, out_layer, fixed_out = _entries([layer.part.out for layer, _ in dense])
        into, into_layer, fixed_into = _entries([layer.part.into for layer, _ in dense])
        return Charges(
            out=out,
            out_layer=out_layer,
            into=into,
            into_layer=into_layer,
            fixed_out=fixed_out,
            fixed_into=fixed_into,
            coefficient=torch.tensor([f * coefficient(layer) for layer, f in dense], dtype=torch.float64),
            own=torch.from_numpy(own),
        )


def kept(ids: Ids, alive: Alive) -> Alive:
    """For each row or column of a layer, whether it stays: what cannot be removed does."""
    return np.append(alive, True)[np.maximum(ids, -1)]


def read_channels(model: nn.Module, *, channels: int, size: tuple[int, int]) -> Channels:
    """Reads any convolutional network into groups of channels, and counts what they cost.

    It is traced only, not tried: see ``understudy.structure.exactness.removable_channels`` for that.

    Args:
        model: left as it is.
        size: height and width of the image in pixels.

    Raises:
        BadInput: the network cannot be run or traced.
        MissingExtra: torch-pruning is not installed.
    """
    costs = layer_costs(model, channels=channels, size=size)
    order = {layer.name: number for number, layer in enumerate(costs.layers)}
    macs = {layer.name: layer.multiply_adds for layer in costs.layers}
    traced = trace(model, channels=channels, size=size)
    parts = sorted((part for part in traced.parts if part.name in order), key=lambda part: order[part.name])
    groups, numbers = _numbered(parts)
    modules = dict(model.named_modules())
    layers = tuple(
        _layer(
            replace(part, out=_renumbered(part.out, numbers), into=_renumbered(part.into, numbers)),
            modules[part.name],
            macs,
        )
        for part in parts
    )
    reading = Channels(
        groups=groups, layers=layers, answers=traced.answers, whole=costs.total, other=Cost(0, 0)
    )
    here = reading.cost_of(np.ones(reading.count, dtype=bool))
    other = Cost(
        multiply_adds=costs.total.multiply_adds - here.multiply_adds,
        parameters=costs.total.parameters - here.parameters,
    )
    return replace(reading, other=other)


def _numbered(parts: Iterable[Part]) -> tuple[tuple[Group, ...], dict[int, int]]:
    """Groups by the first dense layer that writes each set, and the channel's number of each set."""
    groups: list[Group] = []
    numbers: dict[int, int] = {}
    for part in parts:
        rows: list[int] = []
        start = len(numbers)
        for row, number in enumerate(part.out.tolist()) if part.kind == "dense" else ():
            if number >= 0 and number not in numbers:
                numbers[number] = len(numbers)
                rows.append(row)
        if rows:
            groups.append(Group(name=part.name, start=start, rows=tuple(rows)))
    return tuple(groups), numbers


def _renumbered(ids: Ids, numbers: Mapping[int, int]) -> Ids:
    # what only a norm or a reader knows of has no layer that writes it: it is the image's
    return np.array([numbers.get(number, -1) if number >= 0 else number for number in ids.tolist()], np.int64)


def _layer(part: Part, module: nn.Module, macs: Mapping[str, int]) -> Layer:
    pairs = len(part.out) * (len(part.into) if part.kind == "dense" else 1)
    own = {name: parameter.numel() for name, parameter in module.named_parameters(recurse=False)}
    if part.kind == "other":
        return Layer(part=part, multiply_adds=0, weights=0, each=0)  # it stays, so it is part of what stays
    if part.kind not in ("dense", "depthwise"):
        return Layer(part=part, multiply_adds=0, weights=0, each=sum(own.values()) // len(part.out))
    return Layer(
        part=part,
        multiply_adds=macs[part.name] // pairs,
        weights=own.get("weight", 0) // pairs,
        each=own.get("bias", 0) // len(part.out),
    )


def _entries(ids: list[Ids]) -> tuple[Tensor, Tensor, Tensor]:
    """Removable channels of all layers, the layer of each, and how many more each layer has."""
    channels = np.concatenate([one[one >= 0] for one in ids]) if ids else np.zeros(0, dtype=np.int64)
    layers = np.repeat(np.arange(len(ids)), [int((one >= 0).sum()) for one in ids])
    fixed = torch.tensor([int((one < 0).sum()) for one in ids], dtype=torch.float64)
    return torch.from_numpy(channels), torch.from_numpy(layers), fixed
