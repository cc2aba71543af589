"""A network in an ONNX file, run by onnxruntime on the CPU."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from understudy.errors import BadInput, MissingExtra, listed
from understudy.models.file_checks import check_answer, check_input
from understudy.models.weights import first_line

AGAIN = (
    'torch.onnx.export(model.eval(), (images,), "teacher.onnx", dynamo=True, external_data=False, '
    'dynamic_shapes=({0: "batch"},))'
)
_DOMAINS = ("", "ai.onnx", "ai.onnx.ml")
_FLOATS = {1, 10, 11, 16}  # FLOAT, FLOAT16, DOUBLE, BFLOAT16 of onnx.proto's TensorProto.DataType


class OnnxNetwork(nn.Module):
    """Images to logits, in float32 on the CPU whatever the student trains in and on.

    Args:
        content: of the file.
        source: its name, for messages.
        classes: that the data have.
        channels: of the images.
        size: height and width of the images.
        threads: that onnxruntime may use.

    Attributes:
        weights: numbers in its floating-point tensors, statistics of normalisation among them where the export kept
            them apart.
        multiply_adds: of one image, counted over convolutions and matrix products; 0 where shapes inside are unknown.

    Raises:
        BadInput: not ONNX, data that lie in other files, operators that ONNX does not define, another input or output
            than one batch of images and one of logits.
        MissingExtra: onnx or onnxruntime are not installed.
    """

    def __init__(
        self, content: bytes, *, source: str, classes: int, channels: int, size: tuple[int, int], threads: int
    ) -> None:
        super().__init__()
        try:
            import onnx
            import onnxruntime
        except ImportError as error:
            raise MissingExtra("a teacher in an ONNX file", "export") from error
        self._source, self._classes = source, classes
        try:
            described = onnx.load_model_from_string(content)  # reads nothing but these bytes
        except Exception as error:  # protobuf's DecodeError, in one of its several implementations
            raise BadInput(
                f"{source} is not an ONNX file ({first_line(error)}): it is cut short, damaged or of another format."
            ) from error
        _check_inside(described, source)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.log_severity_level = (
            4  # what goes wrong is raised; the rest is not for the person at the keyboard
        )
        try:
            self._session = onnxruntime.InferenceSession(
                content, sess_options=options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime's exceptions have no base of their own
            raise BadInput(f"onnxruntime cannot run {source}: {first_line(error)}") from error
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        if len(inputs) != 1 or len(outputs) != 1:
            raise BadInput(
                f"{source} has {len(inputs)} inputs and {len(outputs)} outputs "
                f"({listed(one.name for one in (*inputs, *outputs))}); a teacher has one of each, images and logits."
            )
        for what, one in (("takes", inputs[0]), ("gives", outputs[0])):
            if one.type != "tensor(float)":
                raise BadInput(f"{source} {what} {one.type}; a teacher takes and gives tensor(float).")
        shape = [length if isinstance(length, int) else None for length in inputs[0].shape]
        check_input(shape, channels=channels, size=size, source=source, again=AGAIN)
        self._input, self._output = inputs[0].name, outputs[0].name
        self.weights = sum(
            math.prod(tensor.dims) for tensor in described.graph.initializer if tensor.data_type in _FLOATS
        )
        self.multiply_adds = _multiply_adds(described, self._input, (1, channels, *size))

    def forward(self, images: Tensor) -> Tensor:
        pixels = images.detach().to("cpu", torch.float32).contiguous().numpy()
        try:
            (answer,) = self._session.run([self._output], {self._input: pixels})
        except Exception as error:
            raise BadInput(
                f"{self._source} cannot be run on images of shape {tuple(images.shape)}: {first_line(error)}. "
                f"Export it again: {AGAIN}"
            ) from error
        logits = torch.from_numpy(answer)
        finite = bool(torch.isfinite(logits).all())
        check_answer(
            tuple(logits.shape), images=len(images), classes=self._classes, finite=finite, source=self._source
        )
        return logits.to(images.device)


def _check_inside(described: Any, source: str) -> None:
    """Refuses data in other files and operators of other makers, wherever in the file they stand."""
    own = {function.domain for function in described.functions}
    for message in _messages(described):
        kind = message.DESCRIPTOR.name
        if kind == "TensorProto" and (message.data_location or message.external_data):
            place = next(
                (entry.value for entry in message.external_data if entry.key == "location"), "another file"
            )
            raise BadInput(
                f"{source} keeps the data of {message.name!r} outside, in {place[:100]!r}; only files that are whole "
                f"are read. Save it with its data inside: onnx.save(onnx.load(path), new_path)"
            )
        if kind == "NodeProto" and message.domain not in _DOMAINS and message.domain not in own:
            raise BadInput(
                f"{source} needs the operator {message.op_type} of {message.domain!r}, which is not one of ONNX's own. "
                f"Export it with standard operators."
            )


def _messages(message: Any) -> Iterator[Any]:
    """A protobuf message and every one inside it."""
    yield message
    for field, value in message.ListFields():
        if field.message_type is not None:
            for inner in value if hasattr(value, "__len__") else (value,):
                yield from _messages(inner)


def _multiply_adds(described: Any, name: str, shape: tuple[int, ...]) -> int:
    """Multiply-adds of convolutions and matrix products for one image; 0 where a shape cannot be found out."""
    import onnx

    model = type(described)()
    model.CopyFrom(described)
    del model.graph.value_info[:]  # with the batch that the export was made for
    for one in model.graph.input:
        if one.name == name:
            for place, length in enumerate(shape):
                one.type.tensor_type.shape.dim[place].dim_value = length
    for one in model.graph.output:
        one.type.tensor_type.ClearField("shape")
    try:
        inferred = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    except Exception:  # of what it cannot infer, the cost is unknown; that it runs is tried elsewhere
        return 0
    shapes = {tensor.name: list(tensor.dims) for tensor in inferred.initializer}
    for one in (*inferred.input, *inferred.value_info, *inferred.output):
        dims = one.type.tensor_type.shape.dim
        if all(dim.HasField("dim_value") for dim in dims):
            shapes[one.name] = [dim.dim_value for dim in dims]
    total = 0
    for node in inferred.node:
        if node.op_type not in ("Conv", "ConvTranspose", "Gemm", "MatMul"):
            continue
        first, second, out = (shapes.get(key) for key in (node.input[0], node.input[1], node.output[0]))
        if not first or not second or not out:
            return 0
        if node.op_type == "Conv":  # each output number is a sum over one filter
            total += math.prod(out) * math.prod(second[1:])
        elif node.op_type == "ConvTranspose":  # each input number is spread by one filter
            total += math.prod(first) * math.prod(second[1:])
        else:
            turned = node.op_type == "Gemm" and any(a.name == "transA" and a.i for a in node.attribute)
            total += math.prod(out) * first[0 if turned else -1]
    return total
