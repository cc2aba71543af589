"""Files of ``torch.export.save``, run without unpickling anything: what they take, and what is computed inside."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from understudy.errors import BadInput
from understudy.models.exported_programs import ExportedNetwork, _carry_out
from understudy.models.weights import first_line


def shapes_of(content: bytes, *, source: str) -> tuple[list[int | None], list[int | None]]:
    """Shapes of the images that a file takes and of its answer; None where any length will do.

    Raises:
        BadInput: not a whole file of ``torch.export.save``, or not of one input and one output.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            place = next(name for name in archive.namelist() if name.endswith("models/model.json"))
            module = json.loads(archive.read(place))["graph_module"]
        (images,) = (one["user_input"] for one in module["signature"]["input_specs"] if "user_input" in one)
        (answer,) = (
            one["user_output"] for one in module["signature"]["output_specs"] if "user_output" in one
        )
        values = module["graph"]["tensor_values"]
        taken, given = (values[one["arg"]["as_tensor"]["name"]]["sizes"] for one in (images, answer))
        return [length.get("as_int") for length in taken], [length.get("as_int") for length in given]
    except Exception as error:  # a damaged archive, a JSON of another form: whatever is missed first
        raise BadInput(
            f"{source} is not a whole file of torch.export.save with one input and one output "
            f"({type(error).__name__}: {first_line(error)}). Write it again."
        ) from error


class TorchRun:
    """A file of ``torch.export.save``, its operators carried out one by one, without unpickling anything."""

    def __init__(
        self, content: bytes, *, source: str, classes: int, channels: int, size: tuple[int, int]
    ) -> None:
        self._source, self._classes = source, classes
        self._network = ExportedNetwork(content, source=source, classes=classes, channels=channels, size=size)

    def __call__(self, images: Tensor) -> Tensor:
        last = images
        for name, value in self.values(images):
            last = value if name == self._network._answer else last
        return checked(last, images, classes=self._classes, source=self._source)

    @torch.no_grad()
    def values(self, images: Tensor) -> Iterator[tuple[str, Tensor]]:
        network = self._network
        values: dict[str, Any] = {name: getattr(network, own) for name, own in network._held.items()}
        values[network._images] = images
        for node in network._nodes:
            before = set(values)
            try:
                _carry_out(node, values, images.device)
            except Exception as error:  # whatever an operator does with an argument that it cannot take
                raise BadInput(
                    f"{self._source} cannot be run on images of shape {tuple(images.shape)}: {first_line(error)}"
                ) from error
            for name in values.keys() - before:
                if isinstance(values[name], Tensor) and values[name].is_floating_point():
                    yield name, values[name]


def checked(answer: Tensor, images: Tensor, *, classes: int, source: str) -> Tensor:
    """The answer of a file as float32.

    Raises:
        BadInput: it is not one row of ``classes`` for each image.
    """
    if answer.shape != (len(images), classes):
        counted = f"for {answer.shape[1]} classes" if answer.ndim == 2 else f"with {tuple(answer.shape)}"
        raise BadInput(
            f"{source} answers {len(images)} images {counted}, and the student has {classes} classes. "
            f"Compare a file with the student that it was made from."
        )
    return answer.float()
