"""A network as an ExecuTorch program, its operators handed to XNNPACK: for phones, boards, and C++ without PyTorch."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

from understudy.deploy.capture import captured, deployable, layer_of, node_of, operator_of, quiet, shown
from understudy.errors import BadInput, MissingExtra
from understudy.models.preprocessing import Preprocessing
from understudy.models.weights import first_line
from understudy.store import files


def write_executorch(
    model: nn.Module,
    path: Path,
    *,
    channels: int,
    size: tuple[int, int],
    preprocessing: Preprocessing | None = None,
    class_names: Sequence[str] = (),
) -> None:
    """Writes a network alone, for one image at a time: memory is planned beforehand, so the batch is fixed.

    The arguments and the folding are as in ``understudy.deploy.onnx_export.write_onnx``; class names have no place in
    this format and are not kept.

    Raises:
        BadInput: a network that cannot be captured, or an operator that ExecuTorch lacks; the layer is named.
        MissingExtra: executorch is not installed.
        CannotWrite: no space or right to write.
    """
    require_executorch()
    ready = deployable(model, channels=channels, size=size, preprocessing=preprocessing)
    program = captured(ready, channels=channels, size=size, any_batch=False)
    with quiet():
        from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
        from executorch.exir import to_edge_transform_and_lower
    try:
        with quiet():
            lowered = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()])
            content = bytes(lowered.to_executorch().buffer)
    except Exception as error:  # its passes raise errors of a dozen kinds
        raise BadInput(_in_words(error, program)) from error
    files.write_bytes(path, content)


def _in_words(error: Exception, program: Any) -> str:
    """Which operator of which layer cannot be lowered, as far as the error tells."""
    node = node_of(error)
    named = re.search(r"\b((?:aten|prims|[a-z_]+)\.\w+)\.\w+ is not in Core ATen", str(error))
    if named is not None:
        with quiet():
            nodes = [*program.graph.nodes, *program.run_decompositions().graph.nodes]
        node = next((one for one in nodes if operator_of(one) == named[1]), None)
    if node is None:
        return f"ExecuTorch cannot lower this network: {first_line(error)}"
    return (
        f"ExecuTorch cannot express {operator_of(node)}, which {shown(layer_of(node))} uses. "
        f"Use another operator there, or --to torch, which knows them all."
    )


def require_executorch() -> None:
    """Raises MissingExtra where ExecuTorch programs cannot be written."""
    try:
        with quiet():
            import executorch.exir
    except ImportError as error:
        raise MissingExtra("an ExecuTorch program", "executorch") from error
    del executorch
