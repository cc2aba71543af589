"""What of a network will be trouble as int8, said while another one can still be chosen."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from understudy.errors import listed

# by the lower-case name of a layer's class, so that timm's own forms of them are known too
_SMOOTH = ("silu", "swish", "hardswish", "gelu", "gelutanh", "quickgelu", "mish", "hardmish")
_NORMS = (
    "layernorm",
    "layernorm2d",
    "layernormact2d",
    "groupnorm",
    "groupnorm1",
    "instancenorm2d",
    "rmsnorm",
)
_GATES = ("sigmoid", "hardsigmoid")
_RESIZING = ("upsample", "upsamplingbilinear2d", "upsamplingnearest2d", "gridsample")

_MEANING = {
    "smooth": "of a short negative tail int8 shows a few steps only; networks with ReLU lose less",
    "norm": "int8 runtimes leave statistics of each image to float, or compute them badly; batch norm folds away",
    "gate": "gates of channels, as in squeeze and excitation: small ones are rounded to zero",
    "same": "padding='same' cannot be quantised by some runtimes; give the padding in numbers",
    "depthwise": "depthwise, with channels of very different size; beware of runtimes with one scale for all of them",
    "resizing": "many int8 runtimes leave values between pixels to float, or lack them",
}
_SHOWN = 3


def warnings_on_quantising(model: nn.Module) -> list[str]:
    """Sentences about layers that tend to lose accuracy or speed as int8, with their names; none where all is well.

    Layers are told by their classes. What a forward method computes by functions (``F.gelu``, ``F.interpolate``) is
    not seen: no warning is no proof, a measured int8 file is.

    >>> warnings_on_quantising(nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU()))
    []
    >>> warnings_on_quantising(nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.GELU()))
    ['GELU (1): of a short negative tail int8 shows a few steps only; networks with ReLU lose less.']
    """
    found: dict[str, dict[str, str]] = {kind: {} for kind in _MEANING}
    for name, module in model.named_modules():
        for kind in _kinds(module):
            found[kind][name] = type(module).__name__
    return [_sentence(kind, layers) for kind, layers in found.items() if layers]


def _kinds(module: nn.Module) -> list[str]:
    name = type(module).__name__.lower()
    kinds = [
        kind
        for kind, names in (("smooth", _SMOOTH), ("norm", _NORMS), ("gate", _GATES), ("resizing", _RESIZING))
        if name in names
    ]
    if isinstance(module, nn.Conv2d):
        if module.padding == "same" or name == "conv2dsame":
            kinds.append("same")
        if module.groups == module.in_channels > 1:
            kinds.append("depthwise")
    return kinds


def _sentence(kind: str, layers: Mapping[str, str]) -> str:
    """Of layers of one kind, from name to class."""
    names = list(layers)
    shown = listed(names[:_SHOWN]) + (", …" if len(names) > _SHOWN else "")
    return f"{'/'.join(sorted(set(layers.values())))} ({shown}): {_MEANING[kind]}."
