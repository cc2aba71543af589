"""A teacher's logits in an ``.npz`` file: what it said of each image, without the teacher."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from understudy.errors import BadInput, listed
from understudy.models.file_checks import content_of


def read_logits(
    path: Path, *, classes: int, images: Mapping[str, int], sha256: str | None = None
) -> dict[str, np.ndarray[Any, Any]]:
    """Logits for each part of a data set, in the order in which its source gives the images.

    Args:
        path: an ``.npz`` file with an array ``(images, classes)`` of float16, float32 or float64 for each part.
        classes: of the data.
        images: how many images each needed part has (``train``, ``test``, ``validation``), before anything is carved
            from it or left out. Other arrays in the file are not looked at.
        sha256: see ``understudy.models.file_checks.content_of``.

    Returns:
        ``(images, classes)`` float32 by part.

    Raises:
        BadInput: no such file, not an ``.npz`` of arrays, a part that is missing, rows or classes that do not fit,
            another type, or values that are not finite.
    """
    content = content_of(path, sha256=sha256)
    found: dict[str, np.ndarray[Any, Any]] = {}
    try:
        if not zipfile.is_zipfile(io.BytesIO(content)):
            raise BadInput(
                f"{path} is not an .npz file, or only a part of one; np.savez(path, train=..., test=...) writes one."
            )
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            missing = [part for part in images if part not in file.files]
            if missing:
                counts = listed(f"{part} ({count} images)" for part, count in images.items())
                raise BadInput(
                    f"{path} has no array {listed(missing)}; it holds {listed(file.files)}. "
                    f"These data need one for each of: {counts}."
                )
            found = {part: file[part] for part in images}
    except BadInput:
        raise
    except Exception as error:  # a damaged table of contents raises whatever its decoder raises
        reason = " ".join(str(error).split()) or type(error).__name__
        raise BadInput(f"{path} is a damaged .npz file, or holds more than arrays: {reason}") from None
    return {
        part: _fitting(array, f"{path}: {part}", images=images[part], classes=classes, part=part)
        for part, array in found.items()
    }


def _fitting(
    array: np.ndarray[Any, Any], source: str, *, images: int, classes: int, part: str
) -> np.ndarray[Any, Any]:
    if array.dtype not in (np.float16, np.float32, np.float64):
        raise BadInput(f"{source} holds {array.dtype} values; logits are float16, float32 or float64.")
    if array.ndim != 2:
        raise BadInput(
            f"{source} has shape {array.shape}; logits are one row an image, ({images}, {classes})."
        )
    if array.shape[1] != classes:
        raise BadInput(
            f"{source} has logits of {array.shape[1]} classes, and the data have {classes}. "
            f"Give a teacher of these classes, in this order."
        )
    if len(array) != images:
        carved = ", before a validation split is carved from them" if part == "train" else ""
        raise BadInput(
            f"{source} has {len(array)} rows, and the data have {images} {part} images{carved}. "
            f"Give one row for each, in the order of the source."
        )
    with np.errstate(over="ignore"):
        logits = array.astype(np.float32)
    strange = np.flatnonzero(~np.isfinite(logits).all(axis=1))
    if strange.size:
        raise BadInput(
            f"{source} has {strange.size} row{'s' if strange.size > 1 else ''} with NaN or infinite values, "
            f"the first of image {strange[0]}. Logits are finite numbers."
        )
    return logits
