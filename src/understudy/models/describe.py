"""A network in plain words and JSON: enough to rebuild it with torch.nn alone and load its weights strictly."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from understudy.models import (
    allcnn,
    bottleneck_resnet,
    densenet,
    mobilenet_v2,
    okd_vgg,
    plain_cnn,
    resnet,
    vgg,
    wide_resnet,
)
from understudy.models.names import FAMILIES, is_built_in, parse_name
from understudy.models.peers import PeerNetwork, steps_of

_WIRING: dict[str, str] = {
    "plain_cnn": plain_cnn.WIRING,
    "plain_cnn_narrow": plain_cnn.WIRING,
    "resnet": resnet.WIRING,
    "wrn": wide_resnet.WIRING,
    "vgg": vgg.WIRING,
    "mobilenet_v2": mobilenet_v2.WIRING,
    "allcnn": allcnn.WIRING,
    "densenet": densenet.WIRING,
    "densenet_bc": densenet.WIRING,
    "bottleneck_resnet": bottleneck_resnet.WIRING,
    "okd_wrn": bottleneck_resnet.WIRING,
    "okd_vgg": okd_vgg.WIRING,
}
assert _WIRING.keys() == FAMILIES.keys()


def architecture_of(model: nn.Module, name: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Describes a network as it stands, its widths read from its own layers.

    Args:
        name: what it was built as, such as ``plain_cnn-10``; any other text for a module of the user's own.
        arguments: what it was built with (``classes``, ``channels``, ``size``, ``width``); JSON-able.

    Returns:
        ``name``, ``arguments``, ``layers`` and ``wiring``. ``layers`` is in module order; each has ``name`` (dotted,
        the prefix of its tensors in the file of weights), ``type`` (of torch.nn, dotted where from elsewhere) and
        ``arguments`` for that type's constructor. A module with tensors of its own beside its children is listed with
        their shapes under ``tensors``. ``wiring`` says how the layers of a built-in network are connected; for one
        from elsewhere, which call builds it.

    >>> described = architecture_of(nn.Sequential(nn.Linear(4, 2)), "mine", {})
    >>> described["layers"]
    [{'name': '0', 'type': 'Linear', 'arguments': {'in_features': 4, 'out_features': 2, 'bias': True}}]
    """
    layers: list[dict[str, Any]] = []
    for dotted, module in model.named_modules():
        own = {
            key: list(tensor.shape)
            for key, tensor in (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False))
        }
        has_children = next(module.children(), None) is not None
        if has_children and own:
            layers.append({"name": dotted, "type": _type_of(module), "arguments": {}, "tensors": own})
        elif not has_children and not _is_empty_sequential(module):
            layers.append({"name": dotted, "type": _type_of(module), "arguments": _arguments_of(module)})
    return {
        "name": name,
        "arguments": _jsonable(dict(arguments)),
        "layers": layers,
        "wiring": _of_peers(model, name, arguments)
        if isinstance(model, PeerNetwork)
        else _wiring(name, arguments),
    }


def _of_peers(model: PeerNetwork, name: str, arguments: Mapping[str, Any]) -> str:
    count = len(model.peers)
    return (
        f"{count} networks that share their first layers, the trunk: features_j = peers.j(trunk(images)) without the layer "
        f"'{_head(model)}', for j = 0 to {count - 1}; the logits are ensemble(concatenate(features_0, ..., "
        f"features_{count - 1})). The trunk and peers.0 with its '{_head(model)}' are one such network alone, whose wiring is: "
        f"{_wiring(name, arguments)}"
    )


def _head(model: PeerNetwork) -> str:
    """What the classifier of each peer is called, below ``peers.0``."""
    return steps_of(model.peers[0])[-1][0]


def _wiring(name: str, arguments: Mapping[str, Any]) -> str:
    if is_built_in(name):
        return _WIRING[parse_name(name).family]
    source, _, rest = name.partition("/")
    classes = arguments.get("classes")
    if source == "timm" and rest:
        return (
            f"timm.create_model({rest!r}, num_classes={classes!r}, in_chans={arguments.get('channels', 3)!r})"
        )
    if source == "torchvision" and rest:
        return f"torchvision.models.get_model({rest!r}, num_classes={classes!r})"
    return "as in the forward method of the module that was given"


def _type_of(module: nn.Module) -> str:
    name = type(module).__name__
    return name if getattr(nn, name, None) is type(module) else f"{type(module).__module__}.{name}"


def _is_empty_sequential(module: nn.Module) -> bool:
    return type(module) is nn.Sequential and len(module) == 0


def _arguments_of(module: nn.Module) -> dict[str, Any]:
    """The constructor's arguments, read back from attributes of the same name, as torch.nn layers keep them."""
    found: dict[str, Any] = {}
    for argument in inspect.signature(type(module)).parameters:
        if argument in ("device", "dtype") or argument not in dir(module):
            continue
        value = getattr(module, argument)
        if argument == "bias" and (value is None or isinstance(value, Tensor)):
            value = value is not None
        try:
            found[argument] = _jsonable(value)
        except TypeError:  # a module, a function, a tensor: not what a constructor is told in plain text
            continue
    return found


def _jsonable(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)  # JSON has no infinity
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        return {str(key): _jsonable(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_jsonable(entry) for entry in value]
    raise TypeError(f"{type(value).__name__} has no place in JSON")
