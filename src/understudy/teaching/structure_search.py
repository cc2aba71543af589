"""Learning a structure: another way to teach, and a penalty that makes costly channels weak."""

from __future__ import annotations

import math
import weakref
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from understudy.errors import BadInput, listed
from understudy.losses.resource import Charges, channel_prices
from understudy.structure.blocks import block_weights, blocks_of
from understudy.structure.channels import RESOURCES, Alive, Channels
from understudy.structure.choosing import frozen_channels
from understudy.structure.exactness import removable_channels
from understudy.structure.magnitudes import Magnitudes
from understudy.teaching.around import Around
from understudy.teaching.method import Method, Survey

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor, nn

    from understudy.structure.budget import Limits
    from understudy.structure.cost import Cost

_GONE = 1e-12  # below it what is left of a magnitude is rounding
SCHEDULES = ("joint", "sequential")


@dataclass(kw_only=True)
class StructureSearch(Around):
    """Teaches as another method does, and adds to its loss what the network's channels cost.

    For the magnitude r of each channel, the |gamma| of its batch norm, and resources k (multiply-adds, parameters)::

        penalty = strength * sum_k [ sum_l w_l * R_k,l(r) / cost_k ],   R_k,l = C_k,l * (A_in * sum_out r + A_out * sum_in r)

    ``cost_k`` is what the whole network costs as it begins, so that the bracket starts near 2 where all r are 1,
    whatever the network and the resource. A counts the channels above ``threshold`` and has no gradient. The
    batch-norm scales that channels are measured by are not decayed.

    A layer's charge has the weight of its block, w = 1 where none is given; with weights of 1 alone this is the plain
    form, bit for bit. A block of weight 0 is frozen: its layers charge nothing, and channels whose group begins in it
    are not penalised either where layers of other blocks read them.

    Attributes:
        method: how the network is taught.
        strength: of the penalty, above 0; multiplies what MorphNet calls lambda by the network's cost.
        resources: ``multiply_adds``, ``parameters`` or both.
        blocks: weights by block, 0 or more; see ``understudy.structure.blocks.blocks_of``.
        schedule: ``joint``: all blocks at a time. ``sequential``: one block after the other, each for the same number
            of epochs; all others are as if frozen meanwhile. Blocks without removable channels or of weight 0 have no
            turn.
        epochs: of the stage; only ``sequential`` looks at them.
        channels: of the images.
        size: height and width of the images in pixels, as the network sees them.
        threshold: a channel is alive above it.

    References:
        Gordon et al. 2018, arXiv:1711.06798 (MorphNet), and its official code, for R. Weights for blocks and
        distillation beside the penalty are what the abstract of "Compact CNN Structure Learning by Knowledge
        Distillation" (ICPR 2020) claims; its text was not available, so their form here, the division by the whole
        cost and the sequential schedule are ours.
    """

    name = "structure_search"

    method: Method
    strength: float
    resources: tuple[str, ...] = ("multiply_adds",)
    blocks: Mapping[str, float] = field(default_factory=dict)
    schedule: Literal["joint", "sequential"] = "joint"
    epochs: int
    channels: int
    size: tuple[int, int]
    threshold: float = 1e-2
    _epoch: int = field(default=0, init=False, repr=False, compare=False)
    _prepared: _Prepared | None = field(default=None, init=False, repr=False, compare=False)
    _model: weakref.ref[nn.Module] | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for what, value, least in (("strength", self.strength, 0.0), ("threshold", self.threshold, 0.0)):
            if not (value > least and math.isfinite(value)):
                raise BadInput(f"{what} is a positive number; got {value}.")
        strange = [one for one in self.resources if one not in RESOURCES]
        if strange or not self.resources or len(set(self.resources)) < len(self.resources):
            raise BadInput(
                f"resources are {listed(RESOURCES)} or one of them; got {listed(map(repr, self.resources))}."
            )
        for name, weight in self.blocks.items():
            if not (weight >= 0 and math.isfinite(weight)):
                raise BadInput(f"blocks: the weight of {name} is a number of 0 or more; got {weight}.")
        if self.schedule not in SCHEDULES:
            raise BadInput(f"schedule {self.schedule!r} is none of {listed(SCHEDULES)}.")
        if self.epochs < 1:
            raise BadInput(f"epochs is 1 or more; got {self.epochs}.")

    def definition(self, *, teachers: int) -> dict[str, Any]:
        blocks = {name: float(weight) for name, weight in sorted(self.blocks.items()) if weight != 1}
        return {
            "name": self.name,
            "version": self.version,
            "method": self.method.definition(teachers=teachers),
            "strength": self.strength,
            "resources": sorted(self.resources),
            "threshold": self.threshold,
            "schedule": self.schedule,
            **({"blocks": blocks} if blocks else {}),
            **({"epochs": self.epochs} if self.schedule == "sequential" else {}),
            "channels": self.channels,
            "size": list(self.size),
        }

    def for_stage(self, *, teachers: int) -> StructureSearch:
        return replace(self, method=self.method.for_stage(teachers=teachers))

    def no_decay(self, model: nn.Module) -> Iterable[str]:
        """Beside what the taught method names, the batch-norm scales that the penalty acts on.

        Raises:
            BadInput: the network's channels cannot be grouped, it has no such block, or there is nothing to learn.
            MissingExtra: torch-pruning is not installed.
        """
        prepared = self._prepare(model)
        return tuple(
            dict.fromkeys([*self.method.no_decay(model), *prepared.magnitudes.norm_scales(prepared.free)])
        )

    def penalty(self, model: nn.Module) -> Tensor:
        """The taught method's own penalty and that on the channels."""
        prepared = self._prepare(model)
        magnitudes = prepared.magnitudes(model)
        phase = prepared.phases[min(self._epoch, self.epochs - 1) * len(prepared.phases) // self.epochs]
        prices = phase.prices(magnitudes.detach() > self.threshold)
        penalty = self.strength * (magnitudes * prices.to(magnitudes.dtype)).sum()
        other = self.method.penalty(model)
        return penalty if other is None else penalty + other

    def on_epoch(self, epoch: int, survey: Survey) -> None:
        self._epoch = epoch
        super().on_epoch(epoch, survey)

    def metrics(self) -> dict[str, Any]:
        """The taught method's, and ``alive``: which shares of the whole cost the channels above the threshold take."""
        model = self._model() if self._model is not None else None
        if model is None or self._prepared is None:
            return dict(self.method.metrics())
        reading = self._prepared.reading
        with torch.no_grad():
            alive = (self._prepared.magnitudes(model) > self.threshold).cpu().numpy()
        cost = reading.cost_of(alive)
        shares = {
            resource: round(getattr(cost, resource) / getattr(reading.whole, resource), 6)
            for resource in RESOURCES
        }
        return {**self.method.metrics(), "alive": {"channels": round(float(alive.mean()), 6), **shares}}

    def _prepare(self, model: nn.Module) -> _Prepared:
        if self._model is None or self._model() is not model:
            self._model = weakref.ref(model)
        if self._prepared is None:
            self._prepared = _prepared(self, model)
        return self._prepared


@dataclass(frozen=True, kw_only=True)
class Unheld:
    """Where a search would come to if nothing held the channels but what they cost.

    Attributes:
        pull: how hard they must be pulled until the network is within its limits.
        cost: of the network when it just meets them. Channels of one price go together, so it lies between what is left
            before and after the last ones go.
    """

    pull: float
    cost: Cost


def unheld(
    model: nn.Module,
    limits: Sequence[Limits],
    *,
    resources: Sequence[str],
    channels: int,
    size: tuple[int, int],
    blocks: Mapping[str, float] | None = None,
    schedule: str = "joint",
    threshold: float = 1e-2,
) -> tuple[Unheld, ...]:
    """How hard channels must be pulled for the network to come within limits, and what is left, if nothing held them.

    All magnitudes are taken to be 1. One that nothing holds falls by pull times price times what it gives
    (``Magnitudes.give``), and prices change only when a channel is gone; so the pull is added up from one channel's end
    to the next. Prices are uneven (the dearest channel of
    MobileNet-v2 costs 30 times the mean), so that a few dear groups may do; no figure of the network's size says that.

    Args:
        model: as ``StructureSearch`` takes it; only its structure counts.
        limits: to come within, one after the other, largest first. Where no pull leads there: the pull at which nothing
            is left to fall, and what is left then.
        resources, blocks, schedule, threshold: of the search. Of a sequential one each block has its part of the steps
            only, so that all must be pulled as many times as hard as there are blocks.
        channels, size: of the images.

    Returns:
        One for each of ``limits``.

    Raises:
        BadInput: the network's channels cannot be grouped, or it has no such block.
        MissingExtra: torch-pruning is not installed.
    """
    reading = removable_channels(model, channels=channels, size=size)
    weights = block_weights(model, blocks or {})
    free = ~frozen_channels(reading, model, blocks or {})
    phase = _Phase(
        [(reading.charges(one, weights=weights), getattr(reading.whole, one)) for one in sorted(resources)],
        free,
    )
    give = Magnitudes(reading, model).give(model)
    times = 1 if schedule == "joint" else len(set(_owners(reading, model)[free]))
    left, alive, pull = np.full(reading.count, 1 - threshold), np.ones(reading.count, dtype=bool), 0.0
    before = now = reading.cost_of(alive)
    found = []
    for limit in limits:
        while not limit.hold(now):
            fall = phase.prices(torch.from_numpy(alive)).numpy() * give
            falling = alive & (fall > 0)
            if not falling.any():
                break
            more = float((left[falling] / fall[falling]).min())
            left -= more * fall
            alive &= left > _GONE
            pull += more
            before, now = now, reading.cost_of(alive)
        found.append(Unheld(pull=pull * times, cost=_just_within(limit, before, now, resources)))
    return tuple(found)


def _just_within(limits: Limits, before: Cost, now: Cost, resources: Sequence[str]) -> Cost:
    """On the straight line from ``before``, which is above the limits, to ``now``: where it meets them."""
    parts = [0.0]
    for one in resources:
        above, below, limit = getattr(before, one), getattr(now, one), getattr(limits, one)
        if above > max(limit, below):
            parts.append(min(1.0, (above - limit) / (above - below)))
    met = {
        one: round(getattr(before, one) + max(parts) * (getattr(now, one) - getattr(before, one)))
        for one in RESOURCES
    }
    return replace(before, **met)


def usual_strength(pull: float, *, rates: Iterable[float], momentum: float = 0.9) -> float:
    """The strength with which a training pulls so hard: ``pull / sum_t lr_t / (1 - momentum)``.

    What the task needs holds against it, so a search at this strength ends above the budget or near it. Our rule, for
    SGD.

    Args:
        pull: from ``unheld``.
        rates: the learning rate of each step of the optimiser.
        momentum: of SGD.

    >>> round(usual_strength(30, rates=[0.05] * 480), 3)
    0.125
    """
    return pull * (1 - momentum) / sum(rates)


@dataclass(frozen=True, kw_only=True)
class _Prepared:
    """What is read from the network once.

    Attributes:
        phases: what channels cost, one after the other over the epochs.
        free: ``(channels,)`` that are penalised in any of them.
    """

    reading: Channels
    magnitudes: Magnitudes
    phases: tuple[_Phase, ...]
    free: Alive


class _Phase:
    """What channels cost while some of them are penalised.

    Args:
        charges: and what the whole network costs, of each resource.
        free: ``(channels,)`` which are penalised.
    """

    def __init__(self, charges: list[tuple[Charges, int]], free: Alive) -> None:
        self._charges = charges
        self._free = torch.from_numpy(free)

    def prices(self, alive: Tensor) -> Tensor:
        """``(channels,)`` float64: how much of the whole cost hangs on each channel, summed over the resources."""
        if self._free.device != alive.device:
            self._free = self._free.to(alive.device)
            self._charges = [(charges.to(alive.device), whole) for charges, whole in self._charges]
        prices = torch.stack([channel_prices(alive, charges) / whole for charges, whole in self._charges])
        return prices.sum(0) * self._free


def _prepared(search: StructureSearch, model: nn.Module) -> _Prepared:
    reading = removable_channels(model, channels=search.channels, size=search.size)
    weights = block_weights(model, search.blocks)
    frozen = frozen_channels(reading, model, search.blocks)
    if frozen.all():
        raise BadInput(
            "there is no structure to learn: blocks give the weight 0 to all blocks with removable channels. "
            "Leave one of them out"
        )

    def phase(weights: Mapping[str, float], free: Alive) -> _Phase:
        whole = reading.whole
        return _Phase(
            [
                (reading.charges(one, weights=weights), getattr(whole, one))
                for one in sorted(search.resources)
            ],
            free,
        )

    if search.schedule == "joint":
        phases = [phase(weights, ~frozen)]
    else:
        block_of = _block_of(model)
        owners = _owners(reading, model)
        turns = list(dict.fromkeys(owners[~frozen].tolist()))
        if search.epochs < len(turns):
            raise BadInput(
                f"schedule: sequential takes its {len(turns)} blocks ({listed(turns)}) one after the other, at least "
                f"an epoch each; the stage has {search.epochs}. Give it more epochs or take schedule: joint"
            )
        phases = [
            phase(
                {layer: weight * (block_of[layer] == turn) for layer, weight in weights.items()},
                owners == turn,
            )
            for turn in turns
        ]
    return _Prepared(
        reading=reading, magnitudes=Magnitudes(reading, model), phases=tuple(phases), free=~frozen
    )


def _block_of(model: nn.Module) -> dict[str, str]:
    return {layer: name for name, layers in blocks_of(model).items() for layer in layers}


def _owners(reading: Channels, model: nn.Module) -> NDArray[np.str_]:
    """``(channels,)`` in which block the group of each channel begins."""
    block_of = _block_of(model)
    return np.repeat(
        [block_of[group.name] for group in reading.groups], [len(group.rows) for group in reading.groups]
    )
