"""The operators of an ONNX file that round to 8 bits, and the layers of a file that they belong to."""

from __future__ import annotations

from typing import Any

import numpy as np

from understudy.deploy.onnx_export import PREPROCESSING

KINDS = ("Conv", "Gemm", "MatMul")  # operators that a layer of weights becomes
PASSING = ("MaxPool", "Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze")
"""Operators that give numbers as they are given: what is on the levels of 8 bits stays there."""


def weighted(described: Any) -> dict[str, list[Any]]:
    """Operators of every layer that multiplies by weights, by the layer's name, in the order of the file.

    A layer's name is what stands before the slash in ``stage1.0.conv1/Conv``, as ``write_onnx`` writes it; in files of
    others that of its weight, ``stage1.0.conv1.weight``; else that of the operator. What the preprocessing multiplies by is
    no layer.
    """
    constants = {tensor.name for tensor in described.graph.initializer}
    found: dict[str, list[Any]] = {}
    for node in described.graph.node:
        if node.op_type in KINDS and node.input[1] in constants:
            layer = _layer(node)
            if layer != PREPROCESSING:
                found.setdefault(layer, []).append(node)
    return found


def round_trip(
    tensor: str, scale: np.ndarray, zero_point: np.ndarray, name: str
) -> tuple[list[Any], list[Any]]:
    """QuantizeLinear and DequantizeLinear of ``tensor``, and their constants.

    Args:
        tensor: what they read; the second gives ``name``.
        scale: float32 scalar.
        zero_point: scalar of the integer type.
    """
    from onnx import helper, numpy_helper

    constants = [f"{name}_scale", f"{name}_zero_point"]
    nodes = [
        helper.make_node(
            "QuantizeLinear", [tensor, *constants], [f"{name}_integers"], name=f"{name}/QuantizeLinear"
        ),
        helper.make_node(
            "DequantizeLinear", [f"{name}_integers", *constants], [name], name=f"{name}/DequantizeLinear"
        ),
    ]
    initializers = [
        numpy_helper.from_array(np.asarray(scale, np.float32), constants[0]),
        numpy_helper.from_array(np.asarray(zero_point), constants[1]),
    ]
    return nodes, initializers


def dequantised(integers: np.ndarray, scale: np.ndarray, axis: int, name: str) -> tuple[Any, list[Any]]:
    """DequantizeLinear of integer constants with one scale for each entry along ``axis``, and its constants."""
    from onnx import helper, numpy_helper

    given = [f"{name}_integers", f"{name}_scale", f"{name}_zero_point"]
    node = helper.make_node("DequantizeLinear", given, [name], name=f"{name}/DequantizeLinear", axis=axis)
    values = integers, scale.astype(np.float32), np.zeros(len(scale), integers.dtype)
    return node, [
        numpy_helper.from_array(np.ascontiguousarray(value), key)
        for key, value in zip(given, values, strict=True)
    ]


def drop_unused(graph: Any) -> None:
    """Takes constants away that no operator reads any more, and notes of shapes, which others may have by now."""
    read = {name for node in graph.node for name in node.input} | {one.name for one in graph.output}
    kept = [tensor for tensor in graph.initializer if tensor.name in read]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    del graph.value_info[:]


def _layer(node: Any) -> str:
    before, slash, _ = str(node.name).partition("/")
    if slash:
        return before.partition("@")[0]
    weight = str(node.input[1])
    if weight.endswith(".weight"):
        return weight.removesuffix(".weight")
    return str(node.name or node.output[0])
