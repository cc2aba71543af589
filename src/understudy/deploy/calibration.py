"""Images for a quantiser: those that show it which values a network computes with, and those that prove its file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from understudy.data.batches import batches
from understudy.data.dataset import Split
from understudy.data.views import PLAIN
from understudy.errors import BadInput
from understudy.models.preprocessing import Preprocessing
from understudy.models.weights import first_line

IMAGES = 512  # as many as are usual; more change little
_BATCH = 64


class SplitImages:
    """Plain images of a split as a file takes them, in batches; may be gone through any number of times.

    Args:
        split: of a data set.
        preprocessing: the student's.
        most: images, evenly spaced over the split, so that sorted classes are all among them; None: every one.
        inside: the file does the preprocessing itself and takes pixels, 0 to 255.
    """

    def __init__(
        self, split: Split, preprocessing: Preprocessing, *, most: int | None = None, inside: bool = False
    ) -> None:
        count = len(split) if most is None else min(most, len(split))
        self._rows = np.linspace(0, max(0, len(split) - 1), num=count).astype(np.int64)
        self._split, self._preprocessing, self._inside = split, preprocessing, inside

    @property
    def labels(self) -> np.ndarray:
        """``(images,)`` int64, -1 for unlabelled images, in the order of the images."""
        found: np.ndarray = self._split.labels[self._rows]
        return found

    def __iter__(self) -> Iterator[np.ndarray]:
        orders = [self._rows[start : start + _BATCH] for start in range(0, len(self._rows), _BATCH)]
        for batch in batches(self._split, PLAIN, orders):
            pixels = batch.pixels.float()
            images = pixels if self._inside else self._preprocessing(pixels)
            yield images.contiguous().numpy()


class CalibrationImages:
    """Gives images to onnxruntime's calibration, some at a time, and checks them on the way.

    Args:
        images: batches ``(batch, channels, height, width)`` or single images ``(channels, height, width)``, float32,
            as the file takes them; read once.
        name: of the file's input. shape: its shape, with names or None where any length is right.

    Attributes:
        count: images given so far.
    """

    def __init__(self, images: Iterable[np.ndarray], *, name: str, shape: list[Any]) -> None:
        self._name, self._shape = name, shape
        self._pieces = self._checked(images)
        self.count = 0

    def get_next(self) -> dict[str, np.ndarray] | None:
        """What onnxruntime's ``CalibrationDataReader`` asks for: the next inputs, None at the end."""
        piece = next(self._pieces, None)
        if piece is None:
            return None
        self.count += len(piece)
        return {self._name: piece}

    def _checked(self, images: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        batch = 1 if self._shape[0] == 1 else _BATCH
        for given in images:
            some = np.asarray(given)
            some = some[None] if some.ndim == 3 else some
            fits = some.ndim == 4 and all(
                not isinstance(wanted, int) or wanted == length
                for wanted, length in zip(self._shape[1:], some.shape[1:], strict=True)
            )
            if not fits:
                raise BadInput(
                    f"the file takes images of shape {tuple(self._shape)}, and a calibration image has shape "
                    f"{tuple(np.shape(given))}: give them as the file takes them"
                )
            if not np.isfinite(some).all():
                raise BadInput("a calibration image has values that are not finite numbers: leave it out")
            for start in range(0, len(some), batch):
                yield np.ascontiguousarray(some[start : start + batch], np.float32)


def first_images(images: Iterable[np.ndarray], count: int) -> list[np.ndarray]:
    """The first ``count`` images of batches, as batches."""
    found: list[np.ndarray] = []
    for batch in images:
        if count <= 0:
            break
        found.append(batch[:count])
        count -= len(batch)
    return found


def in_words(error: Exception) -> str:
    """What onnxruntime's quantiser said, in one line."""
    return first_line(error).rstrip(".")
