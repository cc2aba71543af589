"""A network that is trained as the integers it will be exported as: quantisation-aware training."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from understudy.errors import BadInput, listed, suggestion
from understudy.models.fake_quantised_layers import (
    WEIGHT_LIMITS,
    FakeQuantisedConv2d,
    FakeQuantisedLinear,
    Integers,
    TrackedRange,
    calibrating,
    fake_quantised_layers,
    integers_of,
    read_range,
)
from understudy.models.folding import foldable_pairs, rest_of, with_folded
from understudy.models.readers import outputs_to_round


def fake_quantised(
    model: nn.Module, example: Tensor, *, keep_float: Sequence[str] = (), weight_bits: int = 8
) -> nn.Module:
    """A trainable copy of a float network that computes in float32 what its 8-bit integer form will answer.

    Batch normalisations are folded into the layers before them (``understudy.models.folding``); one that has no layer
    before it becomes a trainable scale and shift for each channel. Every convolution (2d) and linear layer rounds its
    input to 8 bits, unsigned with a zero point, over a range that is tracked in train mode; its weights to 8 bits,
    signed, symmetric, one scale for each output channel; and its bias to 32 bits. A convolution also rounds its output
    where something reads it that does not round: sums, means, SiLU. What linear layers give, the logits among it, and
    everything between layers, the residual stream among it, stays in float32. Gradients pass through all rounding as
    if it were not there, and are zero for what is clipped.

    Which modules the copy has follows from the modules of ``model`` and the shape of ``example``, not from weights or
    pixels. So a network that was just built is wrapped in the same form, and takes the state of a trained one:
    ranges are part of it. Build, give it the float weights, wrap, ``calibrate``, train; later build, wrap, load.

    Not for mixed precision: train it in float32, and gently. Without batch normalisation it diverges at learning rates
    that the float network took: a hundredth of those is safe, or a tenth with gradients clipped to norm 1.

    Args:
        model: a float32 network, in any mode. Not changed.
        example: ``(batch, channels, height, width)`` float32 images of the size that it will see.
        keep_float: names of layers that are left as they are, folding apart.
        weight_bits: 8, or 7 for x86 processors without VNNI instructions, where onnxruntime's sums of two products of
            8 bits may overflow.

    Returns:
        in eval mode, all parameters trainable, sharing nothing with ``model``; on the device of ``example``.

    Raises:
        BadInput: no layer to quantise, a name in ``keep_float`` that is none, other ``weight_bits``, a network that
            cannot be copied or cannot be run on ``example``.

    References:
        Jacob et al. 2018, arXiv:1712.05877, sections 2.1 and 3. Different here: per-channel weights as in
        Krishnamoorthi 2018, arXiv:1806.08342, section 3.1; statistics of batch norm are those of the float network
        from the first step on.
    """
    if weight_bits not in WEIGHT_LIMITS:
        raise BadInput(f"weight_bits is {listed(WEIGHT_LIMITS)}, got {weight_bits}")
    try:
        plain, probe = (copy.deepcopy(model).eval().requires_grad_(False) for _ in range(2))
    except Exception as error:  # whatever an object raises that is not made to be copied
        raise BadInput(
            f"{type(model).__name__} cannot be quantised: it cannot be copied ({error}). Give a plain PyTorch network."
        ) from error
    probe, images = _without_values(probe), _drawn(example.shape)
    try:
        pairs = foldable_pairs(probe, images)
    except Exception:  # its way depends on values, say: nothing is folded, as in ``folded``
        pairs = []
    for network in (plain, probe):
        with_folded(network, pairs)
        _with_affine(network)
    try:
        names = _plain_layers(copy.deepcopy(probe), images)
        _check_kept(keep_float, names)
        chosen = [name for name in names if name not in keep_float]
        to_round = outputs_to_round(probe, images, chosen)
    except BadInput:
        raise
    except Exception as error:  # whatever a forward method of someone else's raises
        raise BadInput(
            f"{type(model).__name__} cannot be run on images of shape {tuple(example.shape)}: {error}"
        ) from error
    if not chosen:
        raise BadInput(
            f"{type(model).__name__} has no convolution (2d) or linear layer that could be quantised: "
            f"leave it in float"
        )
    made = {name: TrackedRange(floor=one.floor, ceiling=one.ceiling) for name, one in to_round.items()}
    sources = {reader: made[name] for name, one in to_round.items() for reader in one.readers}
    for name, layer in [(name, plain.get_submodule(name)) for name in chosen]:
        source = sources.get(name)
        if isinstance(layer, nn.Linear):
            rounding: nn.Module = FakeQuantisedLinear(layer, weight_bits=weight_bits, source=source)
        else:
            assert isinstance(layer, nn.Conv2d)
            rounding = FakeQuantisedConv2d(
                layer, weight_bits=weight_bits, source=source, output_range=made.get(name)
            )
        plain = _replace(plain, layer, rounding)
    return plain.to(example.device).requires_grad_(True).eval()


@torch.no_grad()
def calibrate(model: nn.Module, images: Iterable[Tensor]) -> None:
    """Sets every range anew: the mean over batches of the lowest and highest value, the network computing in float32.

    Args:
        model: from ``fake_quantised``; in the mode it was in afterwards.
        images: batches as the network takes them, of training images: some hundred images are enough.

    Raises:
        BadInput: there is no image, or the model is not from ``fake_quantised``.
    """
    layers = [layer for _, layer in _fake_layers(model)]
    for module in model.modules():
        if isinstance(module, TrackedRange):
            module.low.fill_(torch.nan)
            module.high.fill_(torch.nan)
    was_training, batch = model.training, 0
    model.eval()
    try:
        for batch, some in enumerate(images, start=1):
            with calibrating(layers, batch):
                model(some)
    finally:
        model.train(was_training)
    if not batch:
        raise BadInput("calibration needs images, and there are none: give some hundred of the training set")


def integers(model: nn.Module) -> dict[str, Integers]:
    """Every quantised layer of a model from ``fake_quantised`` as integers, by name.

    Raises:
        BadInput: it has seen no images yet, or is not from ``fake_quantised``.
    """
    found = {}
    for name, layer in _fake_layers(model):
        if not all(each.known() for each in (read_range(layer), layer.output_range) if each is not None):
            raise BadInput(f"layer {name} has no range yet: calibrate the network on training images first")
        found[name] = integers_of(layer)
    return found


def float_twin(model: nn.Module) -> nn.Module:
    """A frozen copy of a model from ``fake_quantised`` with the plain layers that it was made of, by the same names."""
    twin = copy.deepcopy(model).eval().requires_grad_(False)
    for _, layer in _fake_layers(twin):
        plain: Any
        if isinstance(layer, FakeQuantisedConv2d):
            plain = nn.Conv2d(
                layer.in_channels,
                layer.out_channels,
                layer.kernel_size,  # type: ignore[arg-type]
                stride=layer.stride,  # type: ignore[arg-type]
                padding=layer.padding,  # type: ignore[arg-type]
                dilation=layer.dilation,  # type: ignore[arg-type]
                groups=layer.groups,
                padding_mode=layer.padding_mode,
                bias=layer.bias is not None,
                device="meta",
            )
        else:
            plain = nn.Linear(
                layer.in_features, layer.out_features, bias=layer.bias is not None, device="meta"
            )
        plain.weight, plain.bias = layer.weight, layer.bias
        twin = _replace(twin, layer, plain.eval())
    return twin


class ChannelAffine(nn.Module):
    """``scale * x + shift`` for each channel: a batch normalisation whose statistics stand still."""

    def __init__(self, normalisation: Any) -> None:
        super().__init__()
        scale = torch.rsqrt(normalisation.running_var.double() + normalisation.eps)
        if normalisation.weight is not None:
            scale = scale * normalisation.weight.detach().double()
        shift = -normalisation.running_mean.double() * scale
        if normalisation.bias is not None:
            shift = shift + normalisation.bias.detach().double()
        self.scale = nn.Parameter(scale.float())
        self.shift = nn.Parameter(shift.float())

    def forward(self, features: Tensor) -> Tensor:
        """``(batch, channels, ...)``."""
        shape = -1, *[1] * (features.dim() - 2)
        return features * self.scale.view(shape) + self.shift.view(shape)


def _fake_layers(model: nn.Module) -> list[tuple[str, FakeQuantisedConv2d | FakeQuantisedLinear]]:
    layers = list(fake_quantised_layers(model))
    if not layers:
        raise BadInput(
            f"{type(model).__name__} has no quantised layer: make it with fake_quantised(model, example)"
        )
    return layers


@torch.no_grad()
def _plain_layers(model: nn.Module, images: Tensor) -> list[str]:
    """Convolutions and linear layers that are called, and that do what torch's own do, their subclasses' too.

    Of others only the weights are used, or the subclass computes something else, such as another padding.
    """
    calls: dict[str, bool] = {}

    def look(name: str, module: nn.Conv2d | nn.Linear, inputs: tuple[Tensor], output: Tensor) -> None:
        own = nn.Linear.forward if isinstance(module, nn.Linear) else nn.Conv2d.forward
        plain: Any = own  # of another class than the module, perhaps
        try:
            calls[name] = calls.get(name, True) and torch.equal(plain(module, *inputs), output)
        except Exception:  # torch's own does not take what this one takes
            calls[name] = False

    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear) and type(module.weight) is nn.Parameter:
            module.register_forward_hook(partial(look, name))
    model(images)
    return [name for name, _ in model.named_modules() if calls.get(name)]


def _check_kept(keep_float: Sequence[str], layers: Sequence[str]) -> None:
    for name in keep_float:
        if name not in layers:
            raise BadInput(
                f"there is no layer {name!r} to keep in float.{suggestion(name, layers)} Layers: {listed(layers)}"
            )


def _replace(model: nn.Module, old: nn.Module, new: nn.Module) -> nn.Module:
    """``model`` with another module in every place of ``old``, which may be the model itself."""
    if model is old:
        return new
    for name, module in list(model.named_modules(remove_duplicate=False)):
        if module is old:
            model.set_submodule(name, new)
    return model


def _with_affine(model: nn.Module) -> None:
    """Takes the normalisations away that could not be folded: with statistics of batches they would be no constants."""
    for module in list(model.modules()):
        if (
            isinstance(module, _BatchNorm)
            and module.running_mean is not None
            and module.running_var is not None
        ):
            stands_in = nn.Sequential(OrderedDict(affine=ChannelAffine(module), rest=rest_of(module)))
            _replace(model, module, stands_in)


def _without_values(model: nn.Module) -> nn.Module:
    """``model`` with made-up weights and statistics, the same ones for every network of its structure."""
    generator = torch.Generator().manual_seed(0)
    model = model.cpu()
    for parameter in model.parameters():
        drawn = torch.randn(parameter.shape, generator=generator)
        fan_in = parameter[0].numel() if parameter.dim() > 1 else 1
        parameter.data = (drawn / fan_in**0.5 if parameter.dim() > 1 else 1.0 + 0.1 * drawn).to(
            parameter.dtype
        )
    for module in model.modules():
        if (
            isinstance(module, _BatchNorm)
            and module.running_mean is not None
            and module.running_var is not None
        ):
            module.running_mean.zero_()
            module.running_var.fill_(1.0)
    return model


def _drawn(shape: Sequence[int]) -> Tensor:
    return torch.randn(tuple(shape), generator=torch.Generator().manual_seed(0))
