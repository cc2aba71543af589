"""What an ONNX file answers to images, by onnxruntime on the CPU."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from understudy.deploy.onnx_sessions import images_of, onnx_session
from understudy.errors import BadInput
from understudy.models.weights import first_line


def answers(file: Path | bytes, images: Iterable[np.ndarray], *, threads: int = 1) -> np.ndarray:
    """Logits ``(images, classes)`` float32, in the order of the images.

    Args:
        file: a path, or the content of a file.
        images: batches ``(batch, channels, height, width)`` as the file takes them.
        threads: that onnxruntime may use.

    Raises:
        BadInput: not a file that onnxruntime runs on these images, or no images.
        MissingExtra: onnxruntime is not installed.
    """
    source = "the file" if isinstance(file, bytes) else str(file)
    session = onnx_session(file, source=source, threads=threads)
    name, shape = images_of(session, source=source)
    found = []
    for batch in images:
        for some in np.split(batch, len(batch)) if shape[0] == 1 and len(batch) else [batch]:
            try:
                found += session.run(None, {name: np.ascontiguousarray(some, np.float32)})
            except Exception as error:  # onnxruntime's exceptions have no base of their own
                raise BadInput(
                    f"{source} cannot be run on images of shape {some.shape}: {first_line(error)}"
                ) from error
    if not found:
        raise BadInput(f"there are no images to ask {source} about: give those of the validation set")
    return np.concatenate(found)
