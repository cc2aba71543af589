"""From a trained network and a budget to a structure: one threshold on all channels' magnitudes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from understudy.errors import BadInput, listed
from understudy.structure.blocks import block_weights
from understudy.structure.budget import Budget, Limits, shown
from understudy.structure.channels import Alive, Channels
from understudy.structure.cost import Cost
from understudy.structure.exactness import answers_depend_on_image, removable_channels
from understudy.structure.ledger import Ledger
from understudy.structure.magnitudes import Magnitudes
from understudy.structure.routes import Routes
from understudy.structure.shrinking import with_channels
from understudy.structure.structures import Structure

FULL = 0.99  # of the budget: from there on nothing is put back any more
NEAR = 0.98  # of the budget: a result below it is said to be the nearest


@dataclass(frozen=True, kw_only=True)
class Choice:
    """A structure within a budget, and how it came about.

    Attributes:
        structure: which channels are kept.
        cost: of the smaller network. whole: of the network with all channels.
        limits: the budget in numbers.
        threshold: channels up to this magnitude were taken away, but for those that were put back.
        channels: how many could be removed. kept: how many were not.
        dead: how many of them training itself had brought to ``dead_below`` or less. alive_before: what the network
            would cost without those alone.
        notes: sentences for a person.
    """

    structure: Structure
    cost: Cost
    whole: Cost
    limits: Limits
    threshold: float
    channels: int
    kept: int
    dead: int
    alive_before: Cost
    notes: tuple[str, ...]

    @property
    def reached(self) -> dict[str, int]:
        """The cost of the smaller network by resource."""
        return {"multiply_adds": self.cost.multiply_adds, "parameters": self.cost.parameters}

    @property
    def share(self) -> float:
        """How much of the budget is used, of the resource that is nearest to its limit."""
        return self.limits.share(self.cost)


def choose(
    model: nn.Module,
    budget: Budget,
    *,
    channels: int,
    size: tuple[int, int],
    blocks: Mapping[str, float] | None = None,
    dead_below: float = 1e-2,
    evenly: bool = False,
) -> Choice:
    """Takes away the weakest channels of the whole network until it is within the budget.

    All channels have one threshold, whatever their layer, as in MorphNet. Where the last step went further below the
    budget than need be, the strongest of those that went come back while they fit. Of equal channels those with high
    numbers go first, evenly over the groups, so that a network which was never trained becomes narrower everywhere.
    The last channel of a group goes as any other does, and with it what then lies on no way from the image to the
    answers: a residual branch, say. Where no way would be left, the strongest channel of the group stays.

    Args:
        model: trained, mostly by a structure search; left as it is.
        budget: all that it limits must hold.
        size: height and width of the image in pixels.
        blocks: weights of blocks as in the search; a block of weight 0 keeps its channels.
        dead_below: magnitude up to which a channel is reported as dead by itself.
        evenly: all groups become narrower alike, whatever the weights say; none becomes empty.

    Raises:
        BadInput: the budget is above what the network has or below what it can be made, the network's channels cannot
            be grouped, or it has no such block.
        MissingExtra: torch-pruning is not installed.
    """
    reading = removable_channels(model, channels=channels, size=size)
    limits = budget.limits(reading.whole)
    with torch.no_grad():
        magnitudes = Magnitudes(reading, model)(model).cpu().numpy()
    if evenly:
        magnitudes = np.ones_like(magnitudes)
    frozen = frozen_channels(reading, model, blocks or {})
    notes: list[str] = []
    search = _Removal(reading, magnitudes, frozen, empties=not evenly)
    within = search.until(limits)
    if within and not _works(model, search, channels=channels, size=size):
        search = _Removal(reading, magnitudes, frozen, empties=False)
        within = search.until(limits)
        notes.append("one channel of each group stays: the network does not run, or answers nothing, without")
    if not within:
        raise _too_small(budget, limits, search.ledger.cost, frozen=bool(frozen.any()))
    search.put_back(limits)
    alive, cost = search.ledger.alive, search.ledger.cost
    living = magnitudes > dead_below
    return Choice(
        structure=Structure(reading.kept(alive)),
        cost=cost,
        whole=reading.whole,
        limits=limits,
        threshold=search.threshold,
        channels=reading.count,
        kept=int(alive.sum()),
        dead=int((~living).sum()),
        alive_before=reading.cost_of(living),
        notes=(*_sentences(search, limits), *notes),
    )


def smallest_cost(
    model: nn.Module, *, channels: int, size: tuple[int, int], blocks: Mapping[str, float] | None = None
) -> Cost:
    """The least that a network can be made to cost: what no budget can go below.

    Args:
        model: as it is; where groups stand for one another, its weights decide which of them stays.
        size: height and width of the image in pixels.
        blocks: a block of weight 0 keeps its channels.

    Raises:
        BadInput: the network's channels cannot be grouped, or it has no such block.
        MissingExtra: torch-pruning is not installed.
    """
    reading = removable_channels(model, channels=channels, size=size)
    with torch.no_grad():
        magnitudes = Magnitudes(reading, model)(model).cpu().numpy()
    search = _Removal(reading, magnitudes, frozen_channels(reading, model, blocks or {}), empties=True)
    search.until(Limits(multiply_adds=1, parameters=1))
    return search.ledger.cost


def frozen_channels(reading: Channels, model: nn.Module, blocks: Mapping[str, float]) -> Alive:
    """``(count,)``: channels of groups whose first layer lies in a block of weight 0.

    Raises:
        BadInput: the network has no such block.
    """
    weights = block_weights(model, blocks)
    return np.repeat(
        [weights[group.name] == 0 for group in reading.groups], [len(group.rows) for group in reading.groups]
    ).astype(bool)


class _Removal:
    """Takes channels away, weakest first.

    Attributes:
        reading: of the network.
        ledger: what is left and what it costs.
        threshold: magnitude of the strongest channel that went because it was weak.
        gone: channels in the order in which they went.
    """

    def __init__(
        self, reading: Channels, magnitudes: NDArray[np.float32], frozen: Alive, *, empties: bool
    ) -> None:
        self.reading = reading
        self.ledger = Ledger(reading)
        self.threshold = 0.0
        self.gone: list[int] = []
        self._magnitudes = magnitudes
        self._frozen = frozen
        self._empties = empties
        self._routes = Routes(reading)
        sizes = [len(group.rows) for group in reading.groups]
        self._group_of = np.repeat(np.arange(len(sizes)), sizes)
        self._left = list(sizes)
        places = np.concatenate([(np.arange(size) + 0.5) / size for size in sizes])
        order = np.lexsort((-places, magnitudes))
        self._next = iter([int(channel) for channel in order if not frozen[channel]])

    def until(self, limits: Limits) -> bool:
        """Whether the limits hold at last."""
        while not limits.hold(self.ledger.cost):
            channel = next(self._next, None)
            if channel is None:
                return False
            if not self.ledger.alive[channel]:
                continue  # it went with a branch
            if self._left[self._group_of[channel]] > 1:
                self._take(channel)
            elif not self._take_last(channel):
                continue  # without it no way would be left
            self.threshold = float(self._magnitudes[channel])
        return True

    def put_back(self, limits: Limits) -> None:
        """Puts the strongest of those that went back into groups that are still there, while they fit."""
        strongest_first = sorted(self.gone, key=lambda channel: -self._magnitudes[channel])
        for channel in strongest_first:
            if limits.share(self.ledger.cost) >= FULL:
                return
            if not self._left[self._group_of[channel]]:
                continue
            self.ledger.restore(channel)
            if not limits.hold(self.ledger.cost):
                self.ledger.remove(channel)

    def empty(self) -> list[str]:
        """Groups of which nothing is left."""
        return [group.name for group, left in zip(self.reading.groups, self._left, strict=True) if not left]

    def _take(self, channel: int) -> None:
        self.ledger.remove(channel)
        self.gone.append(channel)
        self._left[self._group_of[channel]] -= 1

    def _take_last(self, channel: int) -> bool:
        if not self._empties:
            return False
        without = self.ledger.alive.copy()
        without[channel] = False
        living = self._routes.living(without)
        if living is None:
            return False
        self._take(channel)
        for other in np.flatnonzero(without & ~living & ~self._frozen):
            self._take(int(other))
        return True


def _works(model: nn.Module, search: _Removal, *, channels: int, size: tuple[int, int]) -> bool:
    """Whether a network without the empty groups runs, and its answers depend on the image: see ``exactness``."""
    if not search.empty():
        return True
    try:
        small = with_channels(model, search.reading, search.ledger.alive, channels=channels, size=size)
        return answers_depend_on_image(small, channels=channels, size=size)
    except Exception:  # whatever a forward method of someone else's raises where there are no channels
        return False


def _sentences(search: _Removal, limits: Limits) -> list[str]:
    cost, whole = search.ledger.cost, search.reading.whole
    said = [
        f"{shown(what, spent)} of {shown(what, of)} ({spent / of:.1%})"
        for what, spent, of in (
            ("multiply_adds", cost.multiply_adds, whole.multiply_adds),
            ("parameters", cost.parameters, whole.parameters),
        )
    ]
    kept = int(search.ledger.alive.sum())
    sentences = [f"{kept:,} of {search.reading.count:,} channels are kept: {listed(said)}"]
    if limits.share(cost) < NEAR:
        sentences.append(f"{limits.share(cost):.1%} of the budget is the nearest below it that was found")
    if empty := search.empty():
        named = listed(empty[:3]) + (f" and {len(empty) - 3} more" if len(empty) > 3 else "")
        sentences.append(f"of {len(empty)} of {len(search.reading.groups)} groups nothing is left: {named}")
    return sentences


def _too_small(budget: Budget, limits: Limits, least: Cost, *, frozen: bool) -> BadInput:
    said = [
        f"{what} {getattr(budget, what)!r} ({shown(what, limit)}) is less than the network can be made: "
        f"{shown(what, getattr(least, what))} at least"
        for what, limit in (("multiply_adds", limits.multiply_adds), ("parameters", limits.parameters))
        if limit is not None and getattr(least, what) > limit
    ]
    why = ", as blocks of weight 0 keep their channels" if frozen else ""
    return BadInput(f"{'; '.join(said)}{why}. Give a larger budget or begin with a smaller network")
