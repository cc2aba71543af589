"""Batch normalisation of a frozen network, folded into the layers before it."""

from __future__ import annotations

import copy
from collections import Counter, OrderedDict
from collections.abc import Iterable, Iterator, MutableMapping
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_weights
from torch.utils._python_dispatch import TorchDispatchMode  # where torch's own guide imports it from
from torch.utils.weak import WeakIdKeyDictionary

TOLERANCE = 1e-4  # largest difference between two answers, as a share of the largest answer

_LAYERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)


def folded(model: nn.Module, example: Tensor) -> nn.Module:
    """A copy of a frozen network in which layers do the work of the batch normalisations that follow them.

    With running mean ``m``, running variance ``v``, scale ``g`` and shift ``b``, a layer ``W x + c`` and its
    normalisation are one layer of weight ``W g / sqrt(v + eps)`` and bias ``(c - m) g / sqrt(v + eps) + b``, computed
    in float64 and kept in the layer's own number format and on its device.

    Folded is a normalisation with running statistics that alone reads what a convolution (1d, 2d, 3d) or linear layer
    gives, both being called once. In its place stands a container of the modules that it had, such as the activation
    in timm's; an empty one gives back what it is given. Everything else is as it was, its names and its forward
    methods too. Left alone are transposed convolutions, layers of other types (quantised, parametrised), calls of
    ``F.batch_norm``, normalisation with the statistics of the batch, and one that comes before its layer.

    What follows what is seen in a run over ``example``, not in a symbolic trace of torch.fx: that replaces
    ``nn.Module.__call__`` for all threads, and no other could run a network meanwhile. A network comes back unfolded
    where its way through its layers depends on values (on how many images there are, it must not); where it draws
    random numbers; where it has hooks, which are not called; where it does not take ``example`` or does not give one
    tensor; and where its answers would change by more than ``TOLERANCE`` of the largest one. They are compared on the
    CPU, where float32 is float32 under any setting of a GPU.

    Args:
        model: in eval mode, no parameter takes a gradient. It is not run and not changed.
        example: ``(batch, channels, height, width)`` float32 on the model's device, as the network takes its images;
            a few are enough. The copy is meant for images of this size.

    Returns:
        in eval mode, frozen, sharing nothing with ``model``; the same bits for the same arguments. ``model`` itself
        where it cannot be copied, such as one that holds a session of another library.

    References:
        Jacob et al. 2018, arXiv:1712.05877, section 3.2 and Eq. 14, which has no shift.
    """
    try:
        plain = copy.deepcopy(model).eval().requires_grad_(False)
    except Exception:  # whatever an object raises that is not made to be copied
        return model
    if _has_hooks(plain) or not any(isinstance(module, _BatchNorm) for module in plain.modules()):
        return plain
    try:
        pairs = foldable_pairs(plain, example)
    except Exception:  # whatever a forward method of someone else's raises
        return plain
    return with_folded(plain, pairs)


@torch.no_grad()
def foldable_pairs(model: nn.Module, example: Tensor) -> list[tuple[str, str]]:
    """Layers and normalisations that can be one, by name. Copies are run: a network may remember that it was."""
    with torch.autocast("cpu", enabled=False):
        images, watch = example.cpu(), _Watch()
        expected = watch.run(copy.deepcopy(model).cpu(), images)
        pairs = watch.pairs()
        answers = with_folded(copy.deepcopy(model).cpu(), pairs)(images)
    close = (answers - expected).abs().max() <= TOLERANCE * expected.abs().max()
    return pairs if bool(close) else []


class _Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes which normalisations alone read what a layer gives.

    Attributes:
        calls: of each layer and normalisation, by name.
        made: which layer made a tensor, while that is in use.
        readers: of each layer's output: normalisations, and None for anything else.
        follows: of each normalisation the layer that it reads, and whether it normalises and does nothing else.
        inside: the normalisation whose forward method runs.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls: Counter[str] = Counter()
        self.made: MutableMapping[Tensor, str] = WeakIdKeyDictionary()
        self.readers: dict[str, set[str | None]] = {}
        self.follows: dict[str, tuple[str, Tensor]] = {}
        self.inside: str | None = None

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # else the first operator imports torch's compiler, which takes a second

    def run(self, model: nn.Module, images: Tensor) -> Tensor:
        """Answers of a network that is thrown away afterwards."""
        for name, module in model.named_modules():
            if type(module) in _LAYERS and type(module.weight) is nn.Parameter:
                module.register_forward_hook(partial(self._after_layer, name))
            elif isinstance(module, _BatchNorm):
                module.register_forward_pre_hook(partial(self._before_normalisation, name))
                module.register_forward_hook(partial(self._after_normalisation, name))
        with self:
            answers: Tensor = model(images)
        return answers

    def pairs(self) -> list[tuple[str, str]]:
        """Each layer and normalisation that can be one, by name."""
        found = []
        for name, (layer, nothing_else) in self.follows.items():
            once = self.calls[layer] == self.calls[name] == 1
            if once and self.readers[layer] == {name} and bool(nothing_else):
                found.append((layer, name))
        return found

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        given = list(_tensors((*args, *kwargs.values())))
        if _may_differ_next_time(func, given):
            raise RuntimeError(f"{func}: one run does not show what the next will do")
        for tensor in given:
            if tensor in self.made:
                self.readers[self.made[tensor]].add(self.inside)
        return func(*args, **kwargs)

    def _after_layer(self, name: str, layer: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        self.calls[name] += 1
        # more after a linear layer that has seen sequences: those would be normalised, not its outputs
        if output.dim() == layer.weight.dim():
            self.made[output] = name
            self.readers[name] = set()

    def _before_normalisation(self, name: str, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        self.inside = name

    def _after_normalisation(self, name: str, module: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        self.calls[name] += 1
        layer = self.made.get(inputs[0]) if inputs else None
        if layer is not None and module.running_mean is not None and module.running_var is not None:
            statistics = module.running_mean, module.running_var, module.weight, module.bias
            alike: Tensor = rest_of(module)(F.batch_norm(inputs[0], *statistics, eps=module.eps))
            if alike.shape == output.shape:
                self.follows[name] = layer, (alike == output).all()
        self.inside = None


def _may_differ_next_time(func: Any, given: Iterable[Tensor]) -> bool:
    """Whether an operator draws random numbers, or gives Python something that depends on values."""
    if torch.Tag.nondeterministic_seeded in func.tags:
        # attention has the tag for its dropout, which on a CPU is an operator of its own where there is any
        return not func.name().startswith("aten::_scaled_dot_product")
    if func.name() == "aten::index.Tensor":
        # how many a mask picks depends on its values; positions are as many as they are
        return any(tensor.dtype in (torch.bool, torch.uint8) for tensor in given)
    return torch.Tag.data_dependent_output in func.tags or torch.Tag.dynamic_output_shape in func.tags


def _tensors(arguments: Iterable[Any]) -> Iterator[Tensor]:
    for argument in arguments:
        if isinstance(argument, Tensor):
            yield argument
        elif isinstance(argument, list | tuple):
            yield from _tensors(argument)


def _has_hooks(model: nn.Module) -> bool:
    return any(
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
        for module in model.modules()
    )


def with_folded(model: nn.Module, pairs: Iterable[tuple[str, str]]) -> nn.Module:
    """``model`` itself, changed: in each pair of names the layer does the work of the normalisation."""
    for layer, name in pairs:
        normalisation = model.get_submodule(name)
        _fold(model.get_submodule(layer), normalisation)
        rest = rest_of(normalisation)
        for each, module in list(model.named_modules(remove_duplicate=False)):
            if module is normalisation:
                model.set_submodule(each, rest)
    return model


def rest_of(normalisation: nn.Module) -> nn.Module:
    """What a normalisation does beside normalising: the modules in it, such as timm's activation."""
    return nn.Sequential(OrderedDict(normalisation.named_children())).eval()


def _fold(layer: Any, normalisation: Any) -> None:
    # right for linear layers too; what torch has for those takes no normalisation without scale and shift
    weight, bias = fuse_conv_bn_weights(
        _wide(layer.weight),
        _wide(layer.bias),
        _wide(normalisation.running_mean),
        _wide(normalisation.running_var),
        normalisation.eps,
        _wide(normalisation.weight),
        _wide(normalisation.bias),
    )
    like_bias = layer.weight if layer.bias is None else layer.bias
    layer.weight = nn.Parameter(weight.detach().to(layer.weight), requires_grad=False)
    layer.bias = nn.Parameter(bias.detach().to(like_bias), requires_grad=False)


def _wide(tensor: Any) -> Any:
    return None if tensor is None else tensor.detach().cpu().double()
