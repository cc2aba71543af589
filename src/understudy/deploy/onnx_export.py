"""A network as an ONNX file that onnxruntime runs."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

from understudy.deploy.capture import (
    IMAGES,
    LOGITS,
    captured,
    deployable,
    layer_of,
    node_of,
    operator_of,
    quiet,
    shown,
)
from understudy.deploy.prepared import INSIDE
from understudy.deploy.targets import require_onnx as require_onnx
from understudy.errors import BadInput
from understudy.models.preprocessing import Preprocessing
from understudy.models.weights import first_line
from understudy.store import files

OPSET = 18
"""Read by onnxruntime 1.14 and later, so by what boards have had since 2023; nothing later is needed."""
_IR = 8  # the format of files that goes with it
PREPROCESSING = "preprocessing"


def write_onnx(
    model: nn.Module,
    path: Path,
    *,
    channels: int,
    size: tuple[int, int],
    preprocessing: Preprocessing | None = None,
    class_names: Sequence[str] = (),
) -> None:
    """Writes a network alone, for batches of any length; ``model`` is not changed.

    Batch normalisation is folded into the layers before it where that changes nothing
    (``understudy.models.folding``), so that the file is smaller and can be quantised as it is. The input is called
    ``images``, the output ``logits``. Every operator is named after its layer, such as ``stage1.0.conv1/Conv``.

    Args:
        path: of the file, written whole or not at all.
        channels: of the images.
        size: height and width of the images that the file takes; with ``preprocessing``, before they are resized.
        preprocessing: to be a part of the file, which then takes pixels, float32 0 to 255; None: the file takes
            normalised images.
        class_names: kept as ``class_names`` in the file's metadata, as JSON; none: nothing is.

    Raises:
        BadInput: a network that cannot be captured, or an operator that ONNX lacks; the layer is named.
        MissingExtra: onnx or onnxscript are not installed.
        CannotWrite: no space or right to write.
    """
    require_onnx()
    ready = deployable(model, channels=channels, size=size, preprocessing=preprocessing)
    described = _translated(captured(ready, channels=channels, size=size))
    _tidy(described, name=type(model).__name__, own="" if preprocessing is None else PREPROCESSING)
    if class_names:
        described.metadata_props.add(
            key="class_names", value=json.dumps(list(class_names), ensure_ascii=False)
        )
    files.write_bytes(path, described.SerializeToString(deterministic=True))


def _translated(program: Any) -> Any:
    """The program as onnx's ``ModelProto``."""
    import torch

    try:
        with quiet():
            made = torch.onnx.export(
                program,
                (),
                dynamo=True,
                verbose=False,
                opset_version=OPSET,
                input_names=[IMAGES],
                output_names=[LOGITS],
            )
    except Exception as error:  # the exporter's own errors are many, and none of them is public
        node = node_of(error)
        if node is None:
            raise BadInput(f"torch.onnx cannot write this network: {first_line(error)}") from error
        raise BadInput(
            f"ONNX cannot express {operator_of(node)}, which {shown(layer_of(node))} uses. "
            f"Use another operator there, or --to torch, which knows them all."
        ) from error
    assert made is not None
    return made.model_proto


def _tidy(described: Any, *, name: str, own: str) -> None:
    """Names operators after layers, and drops what the exporter says of the machine that it ran on.

    Args:
        name: of the network.
        own: what to call the layer of operators that stand in the outermost forward method.
    """
    graph = described.graph
    described.ir_version = min(described.ir_version, _IR)
    described.producer_name, described.doc_string, graph.doc_string, graph.name = "understudy", "", "", name
    batch = graph.input[0].type.tensor_type.shape.dim[0].dim_param
    for one in (*graph.input, *graph.output, *graph.value_info):
        for dim in one.type.tensor_type.shape.dim:
            if batch and dim.dim_param == batch:
                dim.dim_param = "batch"
        one.ClearField("metadata_props")
    used: Counter[str] = Counter()
    for node in graph.node:
        layer = _layer(node)
        layer = own if layer == "" else (layer or "").removeprefix(INSIDE).removesuffix(INSIDE.rstrip("."))
        called = f"{layer}/{node.op_type}" if layer else node.op_type
        used[called] += 1
        node.name = called if used[called] == 1 else f"{called}_{used[called]}"
        node.ClearField("metadata_props")
        node.ClearField("doc_string")
    for tensor in graph.initializer:
        tensor.ClearField("metadata_props")
        tensor.ClearField("doc_string")
    graph.ClearField("metadata_props")


def _layer(node: Any) -> str | None:
    """The layer that an operator was made from: the last scope but the operator itself, as the exporter notes it.

    None of an operator that the exporter added.
    """
    import ast

    noted = next(
        (entry.value for entry in node.metadata_props if entry.key == "pkg.torch.onnx.name_scopes"), ""
    )
    try:
        scopes = ast.literal_eval(noted)
        return str(scopes[-2])
    except (ValueError, SyntaxError, IndexError, TypeError):
        return None
