"""Layers of an int8 file that stay in float: what they read is not rounded either."""

from __future__ import annotations

import copy
from typing import Any

from understudy.deploy.int8_nodes import PASSING

_ABSORBED = ("Relu", "Clip")


def read_unrounded(rounded: Any, plain: Any, kept: set[str]) -> None:
    """Lets operators read what other layers hand on before it is rounded.

    onnxruntime rounds what an int8 layer gives, whoever reads it, so that leaving the reader in float would save its
    weights alone. Where it has put an activation into the rounding, the activation is put back.

    Args:
        rounded: ``ModelProto`` with QuantizeLinear and DequantizeLinear operators; changed.
        plain: the float ``ModelProto`` that it was made from.
        kept: names of the operators that are to read float32.
    """
    graph = rounded.graph
    maker = {name: node for node in graph.node for name in node.output}
    float_maker = {name: node for node in plain.graph.node for name in node.output}
    put_back: list[tuple[Any, Any]] = []  # an operator, and the activation that comes after it

    def unrounded(tensor: str) -> str:
        node = maker.get(tensor)
        if node is not None and node.op_type == "DequantizeLinear":
            rounding = maker.get(node.input[0])
            if rounding is None or rounding.op_type != "QuantizeLinear":
                return tensor  # integers of the file
            tensor = rounding.input[0]
            node = maker.get(tensor)
        if node is None:
            return tensor
        before = float_maker.get(tensor)
        if node.op_type in (*PASSING, *_ABSORBED):
            node.input[0] = unrounded(node.input[0])
        elif before is not None and before.op_type in _ABSORBED:
            activation = copy.deepcopy(before)
            place = list(node.output).index(tensor)
            node.output[place] = before.input[0]
            maker[before.input[0]], maker[tensor] = node, activation
            put_back.append((node, activation))
        return tensor

    for node in graph.node:
        if node.name in kept:
            node.input[0] = unrounded(node.input[0])
    after = {id(node): activation for node, activation in put_back}
    nodes = []
    for node in graph.node:
        nodes += [node, *([after[id(node)]] if id(node) in after else [])]
    nodes = _alive(nodes, {one.name for one in graph.output})
    # copies: clearing the list takes away what its members are made of
    nodes = [copy.deepcopy(node) for node in nodes]
    del graph.node[:]
    graph.node.extend(nodes)


def _alive(nodes: list[Any], outputs: set[str]) -> list[Any]:
    """Without operators that nobody reads any more."""
    while True:
        read = outputs.union(*(node.input for node in nodes))
        alive = [node for node in nodes if read.intersection(node.output)]
        if len(alive) == len(nodes):
            return nodes
        nodes = alive
