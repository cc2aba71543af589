"""A network as a file of ``torch.export.save``, which torch alone runs."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from understudy.deploy.capture import captured, deployable, quiet
from understudy.models.preprocessing import Preprocessing
from understudy.store import files


def write_torch(
    model: nn.Module,
    path: Path,
    *,
    channels: int,
    size: tuple[int, int],
    preprocessing: Preprocessing | None = None,
    class_names: Sequence[str] = (),
) -> None:
    """Writes a network alone, for batches of any length; ``torch.export.load(path).module()`` runs it.

    The arguments, the folding and what is in the file are as in ``understudy.deploy.onnx_export.write_onnx``; class
    names are kept as the extra file ``class_names.json``.

    Raises:
        BadInput: a network that cannot be captured; the layer is named.
        CannotWrite: no space or right to write.
    """
    ready = deployable(model, channels=channels, size=size, preprocessing=preprocessing)
    program = captured(ready, channels=channels, size=size)
    program._example_inputs = None  # else the images that it was captured with would be kept, as a pickle
    named = {"class_names.json": json.dumps(list(class_names), ensure_ascii=False)} if class_names else None
    content = io.BytesIO()
    with quiet():
        torch.export.save(program, content, extra_files=named)
    files.write_bytes(path, content.getvalue())
