"""From a structure to the smaller network, and to the large one with the same channels switched off."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from understudy.errors import BadInput
from understudy.structure.channels import Alive, Channels, kept, read_channels
from understudy.structure.dropped import NoChannels, NoInputs
from understudy.structure.structures import Structure
from understudy.structure.tracing import Part


def shrunk(model: nn.Module, structure: Structure, *, channels: int, size: tuple[int, int]) -> nn.Module:
    """A network of the kept channels alone, with the weights that ``model`` has for them.

    Modules keep their names and classes. Where no channel of a group is left, the layers that it went through become
    modules that compute nothing (``understudy.structure.dropped``); what is left of such a branch is a constant, its
    last bias or batch norm. Names and shapes follow from the network's architecture, the structure, ``channels`` and
    ``size`` alone, so that weights can be loaded into a network that is built anew. A fresh network gives a fresh
    smaller one: its initial weights are those of the kept channels, drawn for the width before. That is our choice.

    Args:
        model: left as it is; it is copied with its modes.
        size: height and width of the image in pixels.

    Raises:
        BadInput: the structure does not fit the network, or the network cannot be run, traced or made smaller.
        MissingExtra: torch-pruning is not installed.
    """
    reading = read_channels(model, channels=channels, size=size)
    return with_channels(model, reading, reading.alive(structure.kept), channels=channels, size=size)


def silenced(model: nn.Module, structure: Structure, *, channels: int, size: tuple[int, int]) -> nn.Module:
    """A copy of the network as large as it is, in which the channels that are not kept are zero and unread.

    Their rows, biases, norms' scales and shifts, and the columns that read them are 0. In eval mode it computes what
    ``shrunk`` does.

    Args:
        model: left as it is; it is copied with its modes.
        size: height and width of the image in pixels.

    Raises:
        BadInput: the structure does not fit the network, or that cannot be run.
        MissingExtra: torch-pruning is not installed.
    """
    reading = read_channels(model, channels=channels, size=size)
    return with_zeros(model, reading, reading.alive(structure.kept))


def with_channels(
    model: nn.Module, reading: Channels, alive: Alive, *, channels: int, size: tuple[int, int]
) -> nn.Module:
    """As ``shrunk``, for channels by number.

    Raises:
        BadInput: a layer does not take fewer channels.
    """
    small = copy.deepcopy(model)
    empty = False
    for layer in reading.layers:
        if layer.part.kind == "other":
            continue
        module = small.get_submodule(layer.part.name)
        replaced = _cut(module, layer.part, alive)
        if replaced is not module:
            small.set_submodule(layer.part.name, replaced)
        empty = empty or isinstance(replaced, NoChannels)
    if empty:
        _let_pass(small, channels=channels, size=size)
    return small


@torch.no_grad()
def with_zeros(model: nn.Module, reading: Channels, alive: Alive) -> nn.Module:
    """As ``silenced``, for channels by number."""
    quiet = copy.deepcopy(model)
    for layer in reading.layers:
        if layer.part.kind == "other":
            continue
        module = quiet.get_submodule(layer.part.name)
        dead = torch.from_numpy(~kept(layer.part.out, alive))
        for parameter in module.parameters(recurse=False):
            parameter[dead.to(parameter.device)] = 0
        if layer.part.kind == "dense":
            weight = module.get_parameter("weight")
            weight[:, torch.from_numpy(~kept(layer.part.into, alive)).to(weight.device)] = 0
    return quiet


def _cut(module: Any, part: Part, alive: Alive) -> nn.Module:
    out, into = kept(part.out, alive), kept(part.into, alive)
    if out.all() and into.all():
        whole: nn.Module = module
        return whole
    if not out.any():
        return NoChannels(module)
    rows = torch.from_numpy(out.nonzero()[0])
    for name, parameter in list(module.named_parameters(recurse=False)):
        cut = _taken(parameter, rows)
        if part.kind == "dense" and name == "weight":
            cut = _taken(cut, torch.from_numpy(into.nonzero()[0]), dim=1)
        setattr(module, name, nn.Parameter(cut, requires_grad=parameter.requires_grad))
    if part.kind == "norm":
        for name, buffer in list(module.named_buffers(recurse=False)):
            if buffer.ndim:  # not the number of batches
                setattr(module, name, _taken(buffer, rows))
    count = len(rows)
    if part.kind == "norm":
        module.num_features = count
    elif part.kind == "slope":
        module.num_parameters = count
    elif part.kind == "depthwise":
        module.in_channels = module.out_channels = module.groups = count
    elif isinstance(module, nn.Linear):
        module.in_features, module.out_features = int(into.sum()), count
    else:
        module.in_channels, module.out_channels = int(into.sum()), count
    return NoInputs(module) if part.kind == "dense" and not into.any() else module


def _taken(tensor: Tensor, indices: Tensor, dim: int = 0) -> Tensor:
    return tensor.detach().index_select(dim, indices.to(tensor.device))


def _let_pass(model: nn.Module, *, channels: int, size: tuple[int, int]) -> None:
    """Wraps layers without parameters, poolings mostly, that do not take a tensor without channels."""
    while True:
        failed = _stops_at(model, channels=channels, size=size)
        if failed is None:
            return
        model.set_submodule(failed, NoChannels(model.get_submodule(failed)))


def _stops_at(model: nn.Module, *, channels: int, size: tuple[int, int]) -> str | None:
    """Runs a copy on one image of zeros: the layer without parameters that stops at a tensor without channels."""
    probe = copy.deepcopy(model).eval()
    entered: list[tuple[str, bool]] = []
    for name, module in probe.named_modules():
        leaf = not any(True for _ in module.children()) and not any(True for _ in module.parameters())
        if leaf and not isinstance(module, NoChannels | NoInputs):

            def enter(module: nn.Module, inputs: tuple[Any, ...], name: str = name) -> None:
                first = inputs[0] if inputs else None
                entered.append((name, isinstance(first, Tensor) and first.ndim > 1 and not first.shape[1]))

            module.register_forward_pre_hook(enter)
            module.register_forward_hook(lambda *_: entered.pop() and None)
    like = next(probe.parameters())
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            probe(torch.zeros(1, channels, *size, device=like.device, dtype=like.dtype))
    except Exception as error:  # whatever a forward method of someone else's raises
        if entered and entered[-1][1]:
            return entered[-1][0]
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise BadInput(
            f"{type(model).__name__} does not run without the channels that the structure drops ({reason}). "
            "Keep at least one channel of each group"
        ) from error
    return None
