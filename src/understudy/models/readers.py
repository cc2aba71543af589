"""Who reads what a convolution gives: which outputs have to be rounded to 8 bits, and over which range."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, MutableMapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode  # where torch's own guide imports it from
from torch.utils.weak import WeakIdKeyDictionary

# they give the numbers that they are given, or some of them: the same range
_PASSING = {
    "alias", "clone", "detach", "expand", "max_pool2d", "max_pool2d_with_indices", "permute", "_reshape_alias",
    "_reshape_copy", "slice", "squeeze", "t", "transpose", "unsqueeze", "_unsafe_view", "view",
}  # fmt: skip
_CLIPPING = {"relu", "relu_", "hardtanh", "hardtanh_", "clamp", "clamp_", "clamp_min", "clamp_min_"}


_OTHER, _ANSWER = "(other)", "(answer)"  # no module has such a name


@dataclass(frozen=True, kw_only=True)
class Rounded:
    """An output that has to be rounded where it is made.

    Attributes:
        floor: lowest value that any reader tells apart: 0 where all see it through ReLU.
        ceiling: the highest: 6 where all see it through ReLU6.
        readers: layers that read this and nothing else.
    """

    floor: float
    ceiling: float
    readers: tuple[str, ...]


@dataclass(frozen=True)
class _Origin:
    """The convolution that a tensor comes from, and the range that is left of its values."""

    layer: str
    floor: float = -math.inf
    ceiling: float = math.inf


def outputs_to_round(model: nn.Module, example: Tensor, layers: Iterable[str]) -> dict[str, Rounded]:
    """Convolutions whose output is read by something that does not round it itself, such as a sum or a mean.

    Where only layers of ``layers`` read an output, through ReLU, pooling and reshaping, each rounds its input, and
    rounding twice would lose twice. Of an output that is the network's answer nothing is lost by rounding it later.

    Args:
        model: in eval mode, run once and thrown away afterwards.
        example: ``(batch, channels, height, width)``; its values do not matter.
        layers: names of the convolutions and linear layers that round their inputs.

    Returns:
        by name of the convolution.
    """
    watch = _Watch(model, frozenset(layers))
    with torch.no_grad(), watch:
        answer = model(example)
    watch.read(answer, _ANSWER)
    found = {}
    for layer, reads in watch.reads.items():
        if any(reader == _OTHER for _, reader in reads):
            found[layer] = Rounded(
                floor=min(origin.floor for origin, _ in reads),
                ceiling=max(origin.ceiling for origin, _ in reads),
                readers=tuple(dict.fromkeys(one for _, one in reads if watch.inputs.get(one) == {layer})),
            )
    return found


class _Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __init__(self, model: nn.Module, layers: frozenset[str]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.reads: dict[str, list[tuple[_Origin, str]]] = {}
        self.inputs: dict[str, set[str | None]] = {}  # of each layer, where they come from
        self._origins: MutableMapping[Tensor, _Origin] = WeakIdKeyDictionary()
        self._inside = False
        for name, module in model.named_modules():
            if name in layers:
                module.register_forward_pre_hook(partial(self._before_layer, name))
                module.register_forward_hook(partial(self._after_layer, name))

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # else the first operator imports torch's compiler, which takes a second

    def read(self, value: Any, reader: str) -> None:
        for tensor in _tensors([value]):
            origin = self._origins.get(tensor)
            if origin is not None:
                self.reads.setdefault(origin.layer, []).append((origin, reader))

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        given = args[0] if args and isinstance(args[0], Tensor) else None
        origin = None if given is None or self._inside else self._origins.get(given)
        name = func._schema.name.removeprefix("aten::")
        passed = origin if name in _PASSING else _clipped(origin, func, args, kwargs)
        if passed is None and not self._inside:
            for tensor in _tensors((*args, *kwargs.values())):
                self.read(tensor, _OTHER)
        out = func(*args, **kwargs)
        if passed is not None:
            self._origins[out[0] if isinstance(out, tuple | list) else out] = passed
        else:
            for tensor in _tensors([out]):  # written over: it is no convolution's output any more
                self._origins.pop(tensor, None)
        return out

    def _before_layer(self, name: str, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        self.read(inputs, name)
        origin = self._origins.get(inputs[0])
        self.inputs.setdefault(name, set()).add(None if origin is None else origin.layer)
        self._inside = True

    def _after_layer(self, name: str, module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
        self._inside = False
        if isinstance(module, nn.Conv2d):
            self._origins[output] = _Origin(name)


def _clipped(
    origin: _Origin | None, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> _Origin | None:
    """What is left of the range after an operator that clips to two numbers; None where it does something else."""
    name = func._schema.name.removeprefix("aten::")
    if origin is None or name not in _CLIPPING or func._overloadname not in ("default", ""):
        return None
    bounds = {
        argument.name: argument.default_value if argument.has_default_value() else None
        for argument in func._schema.arguments[1:]
    }
    bounds |= dict(zip(bounds, args[1:], strict=False)) | kwargs
    lowest = 0.0 if name.startswith("relu") else bounds.get("min_val", bounds.get("min"))
    highest = bounds.get("max_val", bounds.get("max"))
    floor = origin.floor if lowest is None else max(origin.floor, float(lowest))
    ceiling = origin.ceiling if highest is None else min(origin.ceiling, float(highest))
    return _Origin(origin.layer, floor, ceiling) if floor <= 0.0 <= ceiling else None


def _tensors(values: Iterable[Any]) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(value)
        elif isinstance(value, dict):
            yield from _tensors(value.values())
