"""A network in a file of ``torch.export.save``, run without unpickling anything.

``torch.export.load`` unpickles parts of the file and evaluates text in it, so a file can run any code. Here the archive
is read for what it documents: a list of operators as JSON, and tensors as raw bytes. The operators are carried out one
by one, and only those listed below, none of which reads or writes files.
"""

from __future__ import annotations

import io
import json
import math
import operator
import zipfile
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from understudy.errors import BadInput
from understudy.models.file_checks import check_answer, check_input
from understudy.models.weights import first_line

AGAIN = (
    'torch.export.save(torch.export.export(model.eval(), (images,), dynamic_shapes=({0: torch.export.Dim("batch")},)), '
    '"teacher.pt2")'
)
_SCHEMA = 8  # the major version of the JSON, the same from torch 2.6 to 2.13

# of torch.ops.aten, in any overload, and in place where they have such a form
_OPERATORS = frozenset(
    """
    abs adaptive_avg_pool1d adaptive_avg_pool2d adaptive_max_pool2d add addmm alias amax amin arange argmax avg_pool1d
    avg_pool2d baddbmm batch_norm bmm bitwise_not broadcast_to cat celu channel_shuffle chunk clamp clamp_max clamp_min
    clone concat constant_pad_nd contiguous conv1d conv2d convolution cos cumsum detach div dropout elu embedding eq erf
    exp expand expand_as feature_dropout flatten floor floor_divide full full_like ge gelu glu group_norm gt hardsigmoid
    hardswish hardtanh index index_select instance_norm layer_norm le leaky_relu lift_fresh_copy linalg_vector_norm linear
    log log_softmax logical_and logical_not lt masked_fill matmul max max_pool2d maximum mean min minimum mish mm movedim
    mul narrow native_batch_norm native_group_norm native_layer_norm ne neg new_ones new_zeros ones ones_like pad permute
    pixel_shuffle pixel_unshuffle pow prelu reciprocal reflection_pad2d relu relu6 remainder repeat repeat_interleave
    replication_pad2d reshape rms_norm roll rsqrt rsub scaled_dot_product_attention select selu sigmoid silu sin slice
    softmax softplus split split_with_sizes sqrt square squeeze stack std sub sum sym_size t tanh threshold tile to topk
    transpose tril triu type_as unbind unflatten unfold unsqueeze upsample_bicubic2d upsample_bilinear2d
    upsample_nearest2d var view view_as where zeros zeros_like _adaptive_avg_pool2d _assert_tensor_metadata _log_softmax
    _native_batch_norm_legit_no_training _softmax _to_copy _unsafe_view
    """.split()  # noqa: SIM905 - words are read more easily than a hundred strings
)
# of Python's operator module: sums and products of lengths that depend on the batch
_LENGTHS = {
    f"_operator.{name}": getattr(operator, name) for name in ("add", "sub", "mul", "floordiv", "neg", "mod")
}
_ASSERTIONS = ("_assert_tensor_metadata",)  # about the export's own batch; what is wrong here shows by itself
_DTYPES = {
    1: torch.uint8,
    2: torch.int8,
    3: torch.int16,
    4: torch.int32,
    5: torch.int64,
    6: torch.float16,
    7: torch.float32,
    8: torch.float64,
    12: torch.bool,
    13: torch.bfloat16,
}
_MEMORY = {
    1: torch.contiguous_format,
    2: torch.channels_last,
    4: torch.preserve_format,
}
_PLAIN = ("as_int", "as_ints", "as_float", "as_floats", "as_bool", "as_bools", "as_string")
_WORDS = ("none", "tanh", "floor", "trunc", "same", "valid", "constant", "reflect", "replicate", "circular")


class ExportedNetwork(nn.Module):
    """Images to logits, by the operators in the file; its weights are parameters and buffers of this module.

    Args:
        content: of the file.
        source: its name, for messages.
        classes: that the data have.
        channels: of the images.
        size: height and width of the images.

    Raises:
        BadInput: another or an older format, parts that would have to be unpickled, operators that are not known here,
            an export in training mode, another input or output than one batch of images and one of logits.
    """

    def __init__(
        self, content: bytes, *, source: str, classes: int, channels: int, size: tuple[int, int]
    ) -> None:
        super().__init__()
        self._source, self._classes = source, classes
        self._held: dict[str, str] = {}  # name in the graph to name in this module
        try:
            archive = zipfile.ZipFile(io.BytesIO(content))
            names = {name.partition("/")[2]: name for name in archive.namelist()}
        except zipfile.BadZipFile as error:
            raise BadInput(
                f"{source} is not a whole file of torch.export.save: {first_line(error)}."
            ) from error
        if "models/model.json" not in names:
            raise BadInput(
                f"{source} holds no exported program that is read here: it was saved by an older torch or by something "
                f"else, or is cut short. Save it again: {AGAIN}"
            )
        try:
            program = json.loads(archive.read(names["models/model.json"]))
            if program["schema_version"]["major"] != _SCHEMA:
                raise BadInput(
                    f"{source} has schema {program['schema_version']}; major version {_SCHEMA} is read."
                )
            self._read(program["graph_module"], archive, names)
            shape = [length.get("as_int") for length in self._sizes]
        except BadInput:
            raise
        except Exception as error:  # a JSON of another form, a damaged archive: whatever is missed first
            raise BadInput(
                f"{source} is a damaged or unknown file of torch.export.save ({type(error).__name__}: "
                f"{first_line(error)}). Save it again: {AGAIN}"
            ) from error
        check_input(shape, channels=channels, size=size, source=source, again=AGAIN)

    def forward(self, images: Tensor) -> Tensor:
        values: dict[str, Any] = {graph: getattr(self, own) for graph, own in self._held.items()}
        values[self._images] = images
        try:
            for node in self._nodes:
                _carry_out(node, values, images.device)
            logits = values[self._answer]
        except Exception as error:  # whatever an operator does with an argument that it cannot take
            raise BadInput(
                f"{self._source} cannot be run on images of shape {tuple(images.shape)}: {first_line(error)}"
            ) from error
        # on stand-ins without data, by which costs are counted, there is nothing to be finite
        finite = logits.is_meta or bool(torch.isfinite(logits).all())
        check_answer(
            tuple(logits.shape), images=len(images), classes=self._classes, finite=finite, source=self._source
        )
        answer: Tensor = logits.float()
        return answer

    def _read(self, module: Mapping[str, Any], archive: zipfile.ZipFile, names: Mapping[str, str]) -> None:
        """Takes tensors and operators out of the archive."""
        configs = {
            kind: json.loads(archive.read(names[f"data/{kind}/model_{kind}_config.json"]))["config"]
            for kind in ("weights", "constants")
        }
        images: list[str] = []
        for spec in module["signature"]["input_specs"]:
            ((kind, said),) = spec.items()
            if kind == "user_input":
                images.append(said["arg"]["as_tensor"]["name"])
                continue
            where = {
                "parameter": "parameter_name",
                "buffer": "buffer_name",
                "tensor_constant": "tensor_constant_name",
            }
            if kind not in where:
                raise BadInput(
                    f"{self._source} needs an input of kind {kind}; a teacher needs images and tensors only."
                )
            name = said[where[kind]]
            place = "weights" if name in configs["weights"] else "constants"
            tensor = self._tensor(name, configs[place][name], place, archive, names)
            own = f"tensor_{len(self._held)}"
            if kind == "parameter":
                self.register_parameter(own, nn.Parameter(tensor, requires_grad=False))
            else:
                self.register_buffer(own, tensor)
            self._held[said["arg"]["name"]] = own
        answers = [
            spec["user_output"]["arg"]["as_tensor"]["name"]
            for spec in module["signature"]["output_specs"]
            if "user_output" in spec
        ]
        if len(images) != 1 or len(answers) != 1 or len(module["signature"]["output_specs"]) != 1:
            raise BadInput(
                f"{self._source} has {len(images)} inputs and {len(module['signature']['output_specs'])} outputs (changed "
                f"buffers among them); a teacher in evaluation mode has one of each, images and logits."
            )
        self._images, self._answer = images[0], answers[0]
        self._sizes = module["graph"]["tensor_values"][self._images]["sizes"]
        self._nodes = module["graph"]["nodes"]
        given = {self._images, *self._held}
        for node in self._nodes:
            self._check(node, given)

    def _tensor(
        self,
        name: str,
        entry: Mapping[str, Any],
        place: str,
        archive: zipfile.ZipFile,
        names: Mapping[str, str],
    ) -> Tensor:
        if entry["use_pickle"] or entry.get("tensor_meta") is None:
            raise BadInput(
                f"{self._source} would have to run code to be read: {name} is pickled. "
                f"Export the network to ONNX instead, or give its weights as safetensors."
            )
        meta = entry["tensor_meta"]
        dtype = _DTYPES[meta["dtype"]]
        raw = bytearray(archive.read(names[f"data/{place}/{entry['path_name']}"]))
        sizes = [length["as_int"] for length in meta["sizes"]]
        if not math.prod(sizes):
            return torch.empty(sizes, dtype=dtype)
        flat = torch.frombuffer(raw, dtype=dtype)
        strides = [step["as_int"] for step in meta["strides"]]
        # as_strided refuses places outside of the bytes; clone lets go of them
        return flat.as_strided(sizes, strides, meta["storage_offset"]["as_int"]).clone()

    def _check(self, node: Mapping[str, Any], given: set[str]) -> None:
        """Refuses operators that are not listed, and what would make answers depend on the batch."""
        target = node["target"]
        if target not in _LENGTHS and not _is_known(target):
            raise BadInput(
                f"{self._source} needs the operator {target[:100]}, which is not known here. "
                f"Export the network to ONNX instead, or give its weights."
            )
        for position, argument in enumerate(node["inputs"]):
            ((kind, value),) = argument["arg"].items()
            if argument["name"] in ("train", "training") and value is True:
                raise BadInput(
                    f"{self._source} was exported in training mode. Export model.eval() instead: {AGAIN}"
                )
            if kind == "as_string" and value not in _WORDS:
                raise BadInput(
                    f"{self._source} gives {target} the word {value[:40]!r}; known are {', '.join(_WORDS)}."
                )
            changes = target.rpartition(".")[0].endswith("_") and position == 0
            if changes and kind == "as_tensor" and value["name"] in given:
                raise BadInput(
                    f"{self._source} changes its images or weights in place ({target}); a teacher stands still. "
                    f"Export model.eval(), without operations in place on the images: {AGAIN}"
                )


def _is_known(target: str) -> bool:
    """Whether ``target`` is an overload of a listed operator that this torch has, and not one that writes elsewhere."""
    if _name_of(target) not in _OPERATORS:
        return False
    _, _, _, name, overload = target.split(".")
    packet = getattr(torch.ops.aten, name, None)
    return packet is not None and overload in packet.overloads() and not overload.endswith("out")


def _name_of(target: str) -> str:
    """``relu`` of ``torch.ops.aten.relu_.default``; empty for what is not of aten."""
    parts = target.split(".")
    if len(parts) != 5 or parts[:3] != ["torch", "ops", "aten"]:
        return ""
    return parts[3] if parts[3] in _OPERATORS else parts[3].removesuffix("_")


def _carry_out(node: Mapping[str, Any], values: dict[str, Any], device: torch.device) -> None:
    """One operator; its answers join ``values`` by name."""
    target = node["target"]
    if _name_of(target) in _ASSERTIONS:
        return
    positional = [_value(one["arg"], values, device) for one in node["inputs"] if one["kind"] == 1]
    named = {one["name"]: _value(one["arg"], values, device) for one in node["inputs"] if one["kind"] == 2}
    if target in _LENGTHS:
        answer = _LENGTHS[target](*positional)
    else:
        _, _, _, name, overload = target.split(".")
        answer = getattr(getattr(torch.ops.aten, name), overload)(*positional, **named)
    outputs = node["outputs"]
    for output, one in zip(outputs, answer if len(outputs) > 1 else [answer], strict=True):
        ((kind, place),) = output.items()
        if kind == "as_tensors":
            values.update({inner["name"]: part for inner, part in zip(place, one, strict=True)})
        elif kind == "as_tensor":
            values[place["name"]] = one
        else:
            values[place["as_name"]] = int(one)


def _value(argument: Mapping[str, Any], values: Mapping[str, Any], device: torch.device) -> Any:
    """An argument of an operator as Python's own value or a tensor."""
    ((kind, value),) = argument.items()
    if kind == "as_none":
        return None
    if kind == "as_tensor":
        return values[value["name"]]
    if kind == "as_tensors":
        return [values[one["name"]] for one in value]
    if kind == "as_optional_tensors":
        return [_value(one, values, device) for one in value]
    if kind in ("as_sym_int", "as_sym_float"):
        return values[value["as_name"]] if "as_name" in value else next(iter(value.values()))
    if kind == "as_sym_ints":
        return [_value({"as_sym_int": one}, values, device) for one in value]
    if kind == "as_device":
        return device
    if kind == "as_scalar_type":
        return _DTYPES[value]
    if kind == "as_layout":
        return torch.strided
    if kind == "as_memory_format":
        return _MEMORY[value]
    if kind in _PLAIN:
        return value
    raise ValueError(f"an argument of kind {kind} is not known here")
