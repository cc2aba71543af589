"""Channels that have been shown to be removable: with half of them gone the network computes what it should."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from understudy.errors import BadInput, UnderstudyError
from understudy.structure.channels import Alive, Channels, Group, read_channels
from understudy.structure.cost import cost
from understudy.structure.shrinking import with_channels, with_zeros

TOLERANCE = 1e-9  # of the largest answer; float64 leaves 1e-14


def removable_channels(model: nn.Module, *, channels: int, size: tuple[int, int]) -> Channels:
    """Reads the channels of a network, and keeps those groups that can be made smaller exactly.

    Tracing shows how layers are connected, not what code between them does with a number of channels that is written
    into it, or that mixes channels. So a copy in float64 with random norms and biases loses half of each group: the
    smaller network must answer as the large one with these channels at zero, and cost what was counted. Groups that do
    not pass are taken as fixed.

    Args:
        model: left as it is.
        size: height and width of the image in pixels.

    Raises:
        BadInput: the network cannot be run or traced, or no channel of it can be removed; the first layer is named.
        MissingExtra: torch-pruning is not installed.
    """
    reading = read_channels(model, channels=channels, size=size)
    kind = type(model).__name__
    if not reading.groups:
        raise BadInput(
            f"{kind} has no channels that can be removed: its layers are in groups, normalised over channels, or give "
            "the classes. Choose a convolutional network with batch norm"
        )
    trial = _Trial(model, reading, channels=channels, size=size)
    failing = trial.failing(reading.groups)
    if len(failing) == len(reading.groups):
        raise BadInput(
            f"the channels of {kind} cannot be grouped: without some of those that {failing[0].name} writes, "
            f"{trial.reasons[failing[0].name]}. Choose a network whose layers take any number of channels"
        )
    return reading.without(group.name for group in failing) if failing else reading


@torch.no_grad()
def answers_depend_on_image(model: nn.Module, *, channels: int, size: tuple[int, int]) -> bool:
    """Whether two images give two answers, once nothing but missing connections can keep them from it.

    In a copy in float64 all weights are positive, rows sum to 1, and norms and biases do nothing, so that two positive
    images pass all layers that let anything pass.

    Args:
        model: left as it is.
        size: height and width of the image in pixels.

    Raises:
        Exception: whatever its forward method raises.
    """
    plain = copy.deepcopy(model).cpu().double().eval()
    draws = torch.Generator().manual_seed(0)
    for module in plain.modules():
        weight, bias = getattr(module, "weight", None), getattr(module, "bias", None)
        if isinstance(bias, Tensor):
            bias.zero_()
        if isinstance(weight, Tensor) and weight.ndim > 1:
            weight.copy_(torch.rand(weight.shape, generator=draws, dtype=torch.float64) + 0.5)
            weight /= weight.flatten(1).sum(1).view(-1, *[1] * (weight.ndim - 1))
        elif isinstance(weight, Tensor):
            weight.fill_(1.0)
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.reset_running_stats()
    images = 0.01 * torch.rand(2, channels, *size, generator=draws, dtype=torch.float64)
    with torch.random.fork_rng(devices=[]):
        first, second = plain(images)
    return not torch.equal(first, second)


class _Trial:
    """Tries what happens without half of the channels of some groups.

    Attributes:
        reasons: why a group by itself did not pass.
    """

    def __init__(self, model: nn.Module, reading: Channels, *, channels: int, size: tuple[int, int]) -> None:
        self.reasons: dict[str, str] = {}
        self._reading = reading
        self._shape = channels, *size
        draws = torch.Generator().manual_seed(0)
        self._model = _shaken(model, draws)
        self._example = torch.randn(1, channels, *size, generator=draws, dtype=torch.float64)

    def failing(self, groups: Sequence[Group]) -> list[Group]:
        """Those of ``groups`` that do not pass; all, where each half passes and both together do not."""
        if self._passes(groups):
            return []
        if len(groups) == 1:
            return list(groups)
        middle = len(groups) // 2
        found = self.failing(groups[:middle]) + self.failing(groups[middle:])
        return found or list(groups)

    def _passes(self, groups: Sequence[Group]) -> bool:
        reason = self._reason_against(_half(self._reading.count, groups))
        for group in groups:
            self.reasons[group.name] = reason
        return not reason

    @torch.no_grad()
    def _reason_against(self, alive: Alive) -> str:
        channels, size = self._shape[0], (self._shape[1], self._shape[2])
        try:
            small = with_channels(self._model, self._reading, alive, channels=channels, size=size)
            with torch.random.fork_rng(devices=[]):
                answers: Tensor = small(self._example)
                expected: Tensor = with_zeros(self._model, self._reading, alive)(self._example)
            counted = cost(small, channels=channels, size=size)
        except UnderstudyError as error:
            return str(error)
        except Exception as error:  # whatever a forward method of someone else's raises
            return f"it does not run ({next(iter(str(error).splitlines()), type(error).__name__)})"
        if not (answers - expected).abs().max() <= TOLERANCE * expected.abs().max():
            return "it computes something else than with these channels at zero"
        return "" if counted == self._reading.cost_of(alive) else "it costs something else than was counted"


def _half(count: int, groups: Sequence[Group]) -> Alive:
    """All channels but a random half of each group; always the same ones."""
    alive = np.ones(count, dtype=bool)
    for group in groups:
        lives = np.random.Generator(np.random.PCG64(group.start)).permutation(len(group.rows)) % 2 == 0
        alive[group.start : group.start + len(group.rows)] = lives
    return alive


@torch.no_grad()
def _shaken(model: nn.Module, draws: torch.Generator) -> nn.Module:
    """A float64 copy on the CPU whose norms and biases are random: a fresh network hides much behind zeros."""
    shaken = copy.deepcopy(model).cpu().double().eval()
    for module in shaken.modules():
        bias = getattr(module, "bias", None)
        if isinstance(bias, Tensor):
            bias.copy_(torch.randn(bias.shape, generator=draws, dtype=torch.float64) / 4)
        if not isinstance(module, nn.modules.batchnorm._BatchNorm):
            continue
        for tensor in (module.weight, module.running_var):
            if tensor is not None:
                tensor.copy_(torch.rand(tensor.shape, generator=draws, dtype=torch.float64) + 0.5)
        if module.running_mean is not None:
            mean = module.running_mean
            mean.copy_(torch.randn(mean.shape, generator=draws, dtype=torch.float64) / 4)
    return shaken
