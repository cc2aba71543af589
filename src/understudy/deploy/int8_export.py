"""A network that was trained as integers, as an ONNX file of these integers."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from understudy.deploy.int8_nodes import dequantised, drop_unused, round_trip, weighted
from understudy.deploy.onnx_export import require_onnx, write_onnx
from understudy.errors import BadInput
from understudy.models.fake_quantisation import float_twin, integers
from understudy.models.fake_quantised_layers import Grid, Integers
from understudy.models.preprocessing import Preprocessing
from understudy.store import files

if TYPE_CHECKING:
    from torch import nn


def export_int8(
    model: nn.Module,
    path: Path,
    *,
    channels: int,
    size: tuple[int, int],
    preprocessing: Preprocessing | None = None,
    class_names: Sequence[str] = (),
) -> None:
    """Writes a network from ``fake_quantised`` as ONNX with QuantizeLinear and DequantizeLinear operators.

    Weights are int8 in the file and biases int32; scales and zero points are those that the network computed with.
    What onnxruntime answers differs from it in the order of float32 sums alone: a number that lies between two levels
    may fall to the other one.

    Args:
        model: calibrated, or trained. Not changed.
        path: of the file, written whole or not at all.
        channels: of the images. size: their height and width. preprocessing, class_names: as of ``write_onnx``.

    Raises:
        BadInput: not from ``fake_quantised``, not calibrated, or a network that ONNX cannot express.
        MissingExtra: onnx or onnxscript are not installed.
        CannotWrite: no space or right to write.
    """
    require_onnx()
    import onnx

    layers = integers(model)
    twin = float_twin(model)
    with files.explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=files.PART) as folder:
            plain = Path(folder) / "float.onnx"
            write_onnx(
                twin,
                plain,
                channels=channels,
                size=size,
                preprocessing=preprocessing,
                class_names=class_names,
            )
            described = onnx.load(plain)
    with_integers(described, layers)
    onnx.checker.check_model(described)
    files.write_bytes(path, described.SerializeToString(deterministic=True))


def with_integers(described: Any, layers: Mapping[str, Integers]) -> None:
    """Puts integers into the place of a file's float weights, and rounding before and after its layers.

    Args:
        described: ``ModelProto`` of the float network; changed.
        layers: by name; all others stay as they are.

    Raises:
        BadInput: a layer that the file has not, or with weights of another shape.
    """
    graph, places = described.graph, weighted(described)
    for name in layers:
        if name not in places:
            raise BadInput(
                f"the exported file has no layer {name!r} with weights of its own, so its integers have no place. "
                f"Keep it in float: fake_quantised(..., keep_float=[{name!r}])"
            )
    layer_of = {id(node): name for name in layers for node in places[name]}
    shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    nodes: list[Any] = []
    constants: dict[str, Any] = {}
    rounded: set[str] = set()

    def add(made: Sequence[Any], values: Sequence[Any]) -> None:
        nodes.extend(made)
        constants.update({value.name: value for value in values})

    for node in graph.node:
        if id(node) not in layer_of:
            nodes.append(node)
            continue
        name = layer_of[id(node)]
        own = layers[name]
        tensor = f"{node.input[0]}_for_{name}"
        if tensor not in rounded:  # a layer may read a tensor twice
            add(*round_trip(node.input[0], *_numbers(own.input), tensor))
            rounded.add(tensor)
        node.input[0] = tensor
        weight, axis = _oriented(own.weight, node, shapes[node.input[1]], name)
        if f"{name}.weight_values" not in rounded:
            made, values = dequantised(weight, own.weight_scale, axis, f"{name}.weight_values")
            add([made], values)
            rounded.add(f"{name}.weight_values")
        node.input[1] = f"{name}.weight_values"
        if own.bias is not None and len(node.input) > 2:
            if f"{name}.bias_values" not in rounded:
                scale = np.float32(own.input.scale) * own.weight_scale
                made, values = dequantised(own.bias, scale, 0, f"{name}.bias_values")
                add([made], values)
                rounded.add(f"{name}.bias_values")
            node.input[2] = f"{name}.bias_values"
        nodes.append(node)
        if own.output is not None:
            given = node.output[0]
            node.output[0] = f"{given}_of_{name}"
            add(*round_trip(node.output[0], *_numbers(own.output), given))
    del graph.node[:]
    graph.node.extend(nodes)
    graph.initializer.extend(constants.values())
    drop_unused(graph)


def _numbers(grid: Grid) -> tuple[np.ndarray, np.ndarray]:
    return np.asarray(grid.scale, np.float32), np.asarray(grid.zero_point, np.uint8)


def _oriented(weight: np.ndarray, node: Any, shape: tuple[int, ...], name: str) -> tuple[np.ndarray, int]:
    """The weight as ``node`` reads it, and the axis of output channels in that."""
    turned = any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
    if node.op_type != "Conv" and not turned:
        weight, axis = weight.T, 1
    else:
        axis = 0
    if weight.shape != shape:
        raise BadInput(
            f"layer {name!r} has weights of shape {weight.shape}, and its place in the exported file is for {shape}. "
            f"Keep it in float: fake_quantised(..., keep_float=[{name!r}])"
        )
    return weight, axis
