"""int8 after training: a float ONNX file to one of integers, by onnxruntime's static quantisation."""

from __future__ import annotations

import contextlib
import logging
import tempfile
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from understudy.deploy.calibration import CalibrationImages, in_words
from understudy.deploy.int8_kept import read_unrounded
from understudy.deploy.int8_nodes import PASSING, drop_unused, weighted
from understudy.errors import BadInput, MissingExtra, listed, suggestion
from understudy.store import files

WEIGHT_BITS = (8, 7)
_ROUNDED = ("Conv", "Gemm", "MatMul", "Add")


@dataclass(frozen=True, kw_only=True)
class Quantised:
    """What quantising a file came to.

    Attributes:
        path: of the int8 file. bytes: its size.
        layers: in int8, by name, in the order of the file.
        kept_float: layers that have weights and were left in float32.
        images: that it was calibrated on.
    """

    path: Path
    bytes: int
    layers: tuple[str, ...]
    kept_float: tuple[str, ...]
    images: int


def quantised(
    float_onnx: Path,
    target: Path,
    images: Iterable[np.ndarray],
    *,
    keep_float: Sequence[str] = (),
    weight_bits: int = 8,
) -> Quantised:
    """Writes ``target``, the int8 form of ``float_onnx``, with QuantizeLinear and DequantizeLinear operators.

    Weights are int8, symmetric, one scale for each output channel; activations uint8 with a zero point, over the
    range from the lowest to the highest value on ``images``. In integers are convolutions, linear layers, what they
    hand on through ReLU, pooling and reshaping, and sums that convolutions feed. Means, other activations and the
    logits stay in float32: 256 levels of logits would make ties.

    Args:
        float_onnx: as ``write_onnx`` writes it, with batch normalisation folded.
        target: written whole or not at all.
        images: of the training set, as the file takes them, batches ``(batch, channels, height, width)`` float32 or
            single ones; some hundred are enough. Read once.
        keep_float: names of layers, as ``stage1.0.conv1``: neither their weights nor what they read is rounded.
        weight_bits: 8, or 7 for x86 processors without VNNI instructions: there onnxruntime adds two products of 8
            bits in 16, which may overflow; with 7 it cannot.

    Returns:
        what was written; the same bytes for the same arguments on the same machine.

    Raises:
        BadInput: no calibration images, images of another shape, an unknown layer, a file that cannot be quantised.
        MissingExtra: onnx or onnxruntime are not installed.
        CannotWrite: no space or right to write.
    """
    if weight_bits not in WEIGHT_BITS:
        raise BadInput(f"weight_bits is {listed(WEIGHT_BITS)}, got {weight_bits}")
    try:
        import onnx
        from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
    except ImportError as error:
        raise MissingExtra("an int8 file", "export") from error
    described = _read(float_onnx)
    layers = weighted(described)
    for name in keep_float:
        if name not in layers:
            raise BadInput(
                f"{float_onnx} has no layer {name!r} to keep in float.{suggestion(name, layers)} "
                f"Layers: {listed(layers)}"
            )
    if not layers:
        raise BadInput(f"{float_onnx} has no convolution or linear layer, so nothing to quantise")
    _name_operators(described)
    (given,) = described.graph.input
    shape = [dim.dim_value if dim.HasField("dim_value") else None for dim in given.type.tensor_type.shape.dim]
    reader = CalibrationImages(_some(images), name=given.name, shape=shape)
    with files.explained(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=files.PART) as folder:
            before, after = Path(folder) / "float.onnx", Path(folder) / "int8.onnx"
            onnx.save(described, before)
            try:
                with _quiet():
                    quantize_static(
                        str(before),
                        str(after),
                        reader,
                        quant_format=QuantFormat.QDQ,
                        op_types_to_quantize=[*_ROUNDED, "Relu", "Clip", *PASSING],
                        nodes_to_exclude=_excluded(described, layers, keep_float),
                        per_channel=True,
                        reduce_range=weight_bits == 7,
                        activation_type=QuantType.QUInt8,
                        weight_type=QuantType.QInt8,
                        extra_options={
                            "MatMulConstBOnly": True,
                            "OpTypesToExcludeOutputQuantization": ["Gemm", "MatMul"],
                        },
                    )
            except (BadInput, OSError):
                raise
            except Exception as error:  # its exceptions have no base of their own
                raise BadInput(f"onnxruntime cannot quantise {float_onnx}: {in_words(error)}") from error
            result = onnx.load(after)
    read_unrounded(result, described, {node.name for name in keep_float for node in layers[name]})
    _tidy(result, described)
    content = result.SerializeToString(deterministic=True)
    files.write_bytes(target, content)
    return Quantised(
        path=target,
        bytes=len(content),
        layers=tuple(name for name in layers if name not in keep_float),
        kept_float=tuple(name for name in layers if name in keep_float),
        images=reader.count,
    )


def _read(path: Path) -> Any:
    import onnx

    try:
        described = onnx.load_model_from_string(path.read_bytes())
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror or error}") from error
    except Exception as error:  # protobuf's DecodeError, in one of its several implementations
        raise BadInput(f"{path} is not an ONNX file ({in_words(error)})") from error
    if len(described.graph.input) != 1:
        raise BadInput(
            f"{path} has {len(described.graph.input)} inputs; a file that can be quantised has one, the images"
        )
    return described


def _some(images: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """The same, and an error at the end where there were none."""
    seen = 0
    for batch in images:
        seen += len(batch)
        yield batch
    if not seen:
        raise BadInput("calibration needs images, and there are none: give some hundred of the training set")


def _name_operators(described: Any) -> None:
    """Every operator gets a name of its own: layers are kept in float by name."""
    used: set[str] = set()
    for number, node in enumerate(described.graph.node):
        if not node.name or node.name in used:
            node.name = f"{node.op_type}_{number}"
        used.add(node.name)


def _excluded(described: Any, layers: dict[str, list[Any]], keep_float: Sequence[str]) -> list[str]:
    """Operators that onnxruntime would quantise and that stay in float."""
    kept = {id(node) for name in keep_float for node in layers[name]}
    chosen = {id(node) for nodes in layers.values() for node in nodes} - kept
    constants = {tensor.name for tensor in described.graph.initializer}
    maker = {name: node for node in described.graph.node for name in node.output}
    excluded = []
    for node in described.graph.node:
        if node.op_type == "Add":
            makers = [maker[name] for name in node.input if name in maker]
            fed = [id(one) in chosen for one in makers if one.op_type == "Conv"]
            if not fed or not all(fed) or constants.intersection(node.input):
                excluded.append(node.name)
        elif node.op_type in _ROUNDED and id(node) not in chosen:
            excluded.append(node.name)
    return excluded


def _tidy(result: Any, described: Any) -> None:
    """Leaves the file's own notes, and none of the quantiser's."""
    result.producer_name, result.producer_version = described.producer_name, described.producer_version
    del result.metadata_props[:]
    result.metadata_props.extend(described.metadata_props)
    drop_unused(result.graph)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The quantiser recommends steps that are taken already, by the root logger, which it also sets up."""
    root, nobody = logging.getLogger(), logging.NullHandler()

    def ours(record: logging.LogRecord) -> bool:
        return "onnxruntime" not in record.pathname

    root.addHandler(nobody)  # or logging.warning would install a handler of its own for the whole program
    root.addFilter(ours)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        root.removeFilter(ours)
        root.removeHandler(nobody)
