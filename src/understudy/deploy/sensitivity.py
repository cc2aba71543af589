"""Which layers an int8 file should leave in float: those whose rounding changes the answers most."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from understudy.deploy.calibration import first_images
from understudy.deploy.int8_nodes import KINDS, drop_unused, round_trip, weighted
from understudy.deploy.onnx_answers import answers

ASKED = 256  # images that layers are compared on


@dataclass(frozen=True, kw_only=True)
class LayerChange:
    """What rounding one layer alone does.

    Attributes:
        layer: its name.
        change: KL divergence in nats of the softmax answers from those of the float network, mean over images.
    """

    layer: str
    change: float


@dataclass(frozen=True, kw_only=True)
class Score:
    """What an int8 file gets right.

    Attributes:
        correct: images classified as labelled. labelled: those that have a label.
        differing: images classified otherwise than by the float network. images: all.
    """

    correct: int
    labelled: int
    differing: int
    images: int

    @property
    def accuracy(self) -> float:
        """A fraction of the labelled images."""
        return self.correct / self.labelled


@dataclass(frozen=True, kw_only=True)
class Try:
    """One file that was tried: the layers left in float, and its score."""

    kept_float: tuple[str, ...]
    score: Score


def layer_changes(float_onnx: Path, int8_onnx: Path, images: Iterable[np.ndarray]) -> list[LayerChange]:
    """Every int8 layer by what its rounding does to the answers, the worst first; equals in the order of the file.

    Each is tried alone: in the float network its weights, its input and its output are rounded as in the int8 file,
    and everything else is as it was.

    Args:
        float_onnx: and ``int8_onnx`` made of it by ``quantised``.
        images: batches as the files take them; the first ``ASKED`` images are used.
    """
    import onnx

    plain, rounded = onnx.load(float_onnx), onnx.load(int8_onnx)
    asked = first_images(images, ASKED)
    expected = _log_softmax(answers(plain.SerializeToString(), asked))
    found = []
    for layer in weighted(plain):
        variant = _with_one_rounded(plain, rounded, layer)
        if variant is None:
            continue
        other = _log_softmax(answers(variant.SerializeToString(), asked))
        change = float((np.exp(expected) * (expected - other)).sum(1).mean())
        found.append(LayerChange(layer=layer, change=max(0.0, change)))
    return sorted(found, key=lambda one: -one.change)


def keep_until(
    ranking: Sequence[LayerChange],
    attempt: Callable[[tuple[str, ...]], Score],
    enough: Callable[[Score], bool],
    *,
    most: int,
) -> list[Try]:
    """Leaves one layer more in float after the other, the most sensitive first, until the score is good enough.

    Args:
        ranking: of ``layer_changes``.
        attempt: makes the file with these layers in float, and scores it.
        enough: when to stop.
        most: layers to leave in float at most, and files to make.

    Returns:
        every try, the last one being good enough or the last allowed.
    """
    tries: list[Try] = []
    for count in range(1, min(most, len(ranking)) + 1):
        kept = tuple(one.layer for one in ranking[:count])
        tries.append(Try(kept_float=kept, score=attempt(kept)))
        if enough(tries[-1].score):
            break
    return tries


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits.astype(np.float64) - logits.max(1, keepdims=True)
    rows: np.ndarray = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    return rows


def _with_one_rounded(plain: Any, rounded: Any, layer: str) -> Any:
    """The float network with one layer as in the int8 file; None where that has it in float."""
    from onnx import numpy_helper

    constants = {tensor.name: tensor for tensor in rounded.graph.initializer}
    maker = {name: node for node in rounded.graph.node for name in node.output}
    grids = {
        node.input[0]: [numpy_helper.to_array(constants[name]) for name in node.input[1:3]]
        for node in rounded.graph.node
        if node.op_type == "QuantizeLinear"
    }
    as_integers = {node.name: node for node in rounded.graph.node if node.op_type in KINDS}
    variant = copy.deepcopy(plain)
    nodes, added, changed = [], {}, False
    own = {node.name for node in weighted(variant)[layer]}
    for node in variant.graph.node:
        twin = as_integers.get(node.name) if node.name in own else None
        weight = None if twin is None else maker.get(twin.input[1])
        read = None if twin is None else maker.get(twin.input[0])
        if twin is None or weight is None or read is None:
            nodes.append(node)
            continue
        changed = True
        name = f"{node.name}.weight"
        added[name] = numpy_helper.from_array(_values(weight, constants), name)
        node.input[1] = name
        scale, zero_point = (numpy_helper.to_array(constants[key]) for key in read.input[1:3])
        made, values = round_trip(node.input[0], scale, zero_point, f"{node.name}.input")
        node.input[0] = f"{node.name}.input"
        nodes += [*made, node]
        given = node.output[0]
        if given in grids:
            node.output[0] = f"{node.name}.output"
            after, more = round_trip(node.output[0], grids[given][0], grids[given][1], given)
            nodes += after
            values = [*values, *more]
        added |= {value.name: value for value in values}
    if not changed:
        return None
    del variant.graph.node[:]
    variant.graph.node.extend(nodes)
    variant.graph.initializer.extend(added.values())
    drop_unused(variant.graph)
    return variant


def _values(dequantise: Any, constants: dict[str, Any]) -> np.ndarray:
    """Of a DequantizeLinear of constants, in float32."""
    from onnx import numpy_helper

    integers, scale, zero_point = (numpy_helper.to_array(constants[name]) for name in dequantise.input)
    axis = next((attribute.i for attribute in dequantise.attribute if attribute.name == "axis"), 1)
    if scale.ndim:
        shape = [-1 if place == axis else 1 for place in range(integers.ndim)]
        scale, zero_point = scale.reshape(shape), zero_point.reshape(shape)
    values: np.ndarray = ((integers.astype(np.float32) - zero_point) * scale).astype(np.float32)
    return values
