"""What a network costs: parameters, multiply-adds and memory for one image."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from understudy.errors import BadInput
from understudy.models.limits import check_shapes

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn


@dataclass(frozen=True)
class Cost:
    """``parameters`` of the whole network, frozen ones too; ``multiply_adds`` (MACs) of one image."""

    parameters: int
    multiply_adds: int


@dataclass(frozen=True)
class LayerCost:
    """One module that computes something itself.

    Attributes:
        name: as in ``model.named_modules()``; empty for the network's own forward method.
        kind: the name of its class.
        output: shape of what it gave last for one image, without the batch; None where that is not one tensor.
        parameters: its own, without those of modules inside it. A shared one counts where it is met first.
        multiply_adds: MACs of one image, of all times that it is called.
    """

    name: str
    kind: str
    output: tuple[int, ...] | None
    parameters: int
    multiply_adds: int


@dataclass(frozen=True)
class Costs:
    """``total`` of a network, its ``layers`` in the order of their first call, and the memory that one image takes.

    ``peak_activation_bytes`` is the largest sum at any moment of the tensors that one image's way through the
    network keeps alive, the image among them, parameters not, in the number format of the parameters. It is that of
    PyTorch's plain way to run a network, one operator after another; a runtime that fuses operators needs less.
    """

    total: Cost
    layers: tuple[LayerCost, ...]
    peak_activation_bytes: int


def cost(model: nn.Module, *, channels: int, size: tuple[int, int]) -> Cost:
    """Counts parameters, and the multiply-adds of one image with torch's own formulas.

    Counted are convolutions and matrix products, attention among them; biases, normalisation, activations and
    pooling are not, as usual in the field. A paper that says FLOPs mostly means these, or twice these.
    One image of zeros passes in eval mode, where the model lies: that takes less than stand-ins without data (the
    meta device), for which torch loads its compiler. The model's modes, buffers and gradients and torch's global
    generator are left as they were; forward hooks on the model do run.

    Args:
        size: height and width of the image in pixels.

    Raises:
        BadInput: the network cannot be run on such an image.

    >>> from torch import nn
    >>> cost(nn.Conv2d(3, 8, 3, padding=1), channels=3, size=(32, 32))
    Cost(parameters=224, multiply_adds=221184)
    """
    return layer_costs(model, channels=channels, size=size).total


def layer_costs(model: nn.Module, *, channels: int, size: tuple[int, int]) -> Costs:
    """As :func:`cost`, layer by layer, and how much memory one image takes.

    Raises:
        BadInput: the network cannot be run on such an image.

    >>> from torch import nn
    >>> costs = layer_costs(nn.Sequential(nn.Conv2d(1, 4, 1), nn.ReLU()), channels=1, size=(2, 2))
    >>> [(layer.name, layer.output, layer.multiply_adds) for layer in costs.layers]
    [('0', (4, 2, 2), 16), ('1', (4, 2, 2), 0)]
    >>> costs.peak_activation_bytes  # the results of both layers; the caller's image stays as well
    144
    """
    import torch

    check_shapes(classes=2, channels=channels, size=size)
    shape = (1, channels, size[0], size[1])
    own = next(iter(model.parameters()), torch.empty(0)).device
    modes = [(module, module.training) for module in model.modules()]
    try:
        model.eval()
        seen = _run(model, shape, own)
    except Exception as error:  # whatever a forward method does with an image of the wrong shape
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise BadInput(
            f"{type(model).__name__} cannot be run on one {channels}-channel image of {size[0]}x{size[1]}: {reason}. "
            "Give the size and channels it was made for"
        ) from error
    finally:
        for module, training in modes:
            module.training = training
    parameters = sum(parameter.numel() for parameter in model.parameters())
    total = Cost(parameters=parameters, multiply_adds=sum(seen.flops.values()) // 2)
    return Costs(total=total, layers=tuple(_layers(model, seen)), peak_activation_bytes=seen.peak)


def _layers(model: nn.Module, seen: Any) -> Iterator[LayerCost]:
    own_parameters: dict[str, int] = {}
    counted: set[int] = set()
    for name, module in model.named_modules():
        mine = [parameter for parameter in module.parameters(recurse=False) if id(parameter) not in counted]
        counted.update(id(parameter) for parameter in mine)
        own_parameters[name] = sum(parameter.numel() for parameter in mine)
    modules = dict(model.named_modules())
    for name in seen.order:
        inner = any(True for _ in modules[name].children())
        if inner and not seen.flops[name] and not own_parameters[name]:
            continue  # it only passes on what others compute
        yield LayerCost(
            name=name,
            kind=type(modules[name]).__name__,
            output=seen.outputs.get(name),
            parameters=own_parameters[name],
            multiply_adds=seen.flops[name] // 2,
        )


def _run(model: nn.Module, shape: tuple[int, ...], device: torch.device) -> Any:
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel

    dtype = next((tensor.dtype for tensor in model.parameters() if tensor.is_floating_point()), torch.float32)
    # a module may write to its buffers in eval mode too: it gets copies
    stand_ins = {name: buffer.detach().clone() for name, buffer in model.named_buffers()}
    counter = _counter()()
    # the fused attention of the CPU has no formula; the plain one is made of matrix products
    plain_attention = sdpa_kernel(SDPBackend.MATH)
    drawn_from = [device] if device.type == "cuda" else []
    # inference mode would show operators before they are taken apart into those that have a formula
    usual = torch.inference_mode(False), torch.no_grad()
    with torch.random.fork_rng(devices=drawn_from), usual[0], usual[1], plain_attention:
        image = torch.zeros(shape, device=device, dtype=dtype)
        counter.keep((image,))
        with counter.watching(model), counter:
            torch.func.functional_call(model, stand_ins, (image,))
    return counter


@cache
def _counter() -> type[Any]:
    """The class that counts: a function, as torch is imported when it is first needed."""
    from contextlib import contextmanager
    from functools import partial

    from torch import Tensor
    from torch.multiprocessing.reductions import StorageWeakRef
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves
    from torch.utils.flop_counter import flop_registry

    class _Counter(TorchDispatchMode):  # type: ignore[no-untyped-call]
        """Sums torch's formulas over every operator, by the innermost module that runs.

        Attributes:
            flops: by the name of the module; two for each multiply-add.
            order: names of modules in the order of their first call.
            outputs: shape of what each gave last, without the batch.
            peak: of the bytes that tensors took at one time.
        """

        def __init__(self) -> None:
            super().__init__()  # type: ignore[no-untyped-call]
            self.flops: Counter[str] = Counter()
            self.order: dict[str, None] = {}
            self.outputs: dict[str, tuple[int, ...] | None] = {}
            self.peak = 0
            self._running: list[str] = []
            self._alive: dict[int, tuple[Any, int]] = {}

        @classmethod
        def _should_skip_dynamo(cls) -> bool:
            return False  # else the first operator imports torch's compiler, which takes seconds

        def __torch_dispatch__(
            self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
        ) -> Any:
            kwargs = kwargs or {}
            formula = flop_registry.get(func._overloadpacket)
            out = func(*args, **kwargs)
            if formula is not None:
                self.flops[self._running[-1] if self._running else ""] += formula(
                    *args, **kwargs, out_val=out
                )
            given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
            old = {leaf.untyped_storage()._cdata for leaf in given}
            self.keep(
                leaf
                for leaf in tree_leaves(out)
                if isinstance(leaf, Tensor) and leaf.untyped_storage()._cdata not in old
            )
            return out

        def keep(self, made: Iterable[Tensor]) -> None:
            for tensor in made:
                storage = tensor.untyped_storage()
                self._alive[storage._cdata] = (StorageWeakRef(storage), storage.nbytes())  # type: ignore[no-untyped-call]
            self._alive = {key: kept for key, kept in self._alive.items() if not kept[0].expired()}
            self.peak = max(self.peak, sum(nbytes for _, nbytes in self._alive.values()))

        @contextmanager
        def watching(self, model: nn.Module) -> Iterator[None]:
            hooks = []
            try:
                for name, module in model.named_modules():
                    hooks.append(module.register_forward_pre_hook(partial(self._before, name), prepend=True))
                    hooks.append(module.register_forward_hook(partial(self._after, name), always_call=True))
                yield
            finally:
                for hook in hooks:
                    hook.remove()

        def _before(self, name: str, module: nn.Module, inputs: Any) -> None:
            self.order.setdefault(name)
            self._running.append(name)

        def _after(self, name: str, module: nn.Module, inputs: Any, output: Any) -> None:
            self._running.pop()
            self.outputs[name] = tuple(output.shape[1:]) if isinstance(output, Tensor) else None

    return _Counter
