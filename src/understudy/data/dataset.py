"""What every source of images becomes: three splits of uint8 images with labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

UNLABELLED = -1
"""The label of a training image whose class nobody knows."""


class Images(Protocol):
    """Images by position; the same position gives the same bytes in every process."""

    @property
    def in_memory(self) -> bool:
        """Whether a fetch copies from memory (True) or decodes (False)."""
        ...

    def __len__(self) -> int: ...

    def fetch(self, index: np.ndarray) -> np.ndarray:
        """Images at ``index``.

        Args:
            index: ``(n,)`` int64, each in ``0 .. len(self) - 1``; repeats are allowed.

        Returns:
            ``(n, height, width, channels)`` uint8, C-contiguous, the caller's own copy.

        Raises:
            IndexError: a position lies outside.
        """
        ...


def check_index(index: np.ndarray, length: int) -> np.ndarray:
    """``index`` as int64 ``(n,)``; a position outside ``0 .. length - 1`` raises IndexError, -1 too."""
    index = np.asarray(index)
    if index.ndim != 1 or (index.size and index.dtype.kind not in "iu"):
        raise IndexError(f"an index is a row of whole numbers; got shape {index.shape}, type {index.dtype}")
    if index.size and (index.min() < 0 or index.max() >= length):
        outside = index.min() if index.min() < 0 else index.max()
        raise IndexError(f"position {outside} is outside 0 .. {length - 1}")
    return index.astype(np.int64, copy=False)


class MemoryImages:
    """Images in one uint8 array, or some rows of it without a copy.

    Args:
        pixels: ``(n, height, width, channels)`` uint8; made read-only here.
        rows: ``(m,)`` int64, which rows of ``pixels`` these images are; all of them when None.
    """

    in_memory = True

    def __init__(self, pixels: np.ndarray, rows: np.ndarray | None = None) -> None:
        if pixels.dtype != np.uint8 or pixels.ndim != 4:
            raise ValueError(
                f"pixels must be uint8 (n, height, width, channels); got {pixels.dtype} {pixels.shape}"
            )
        self.pixels = pixels.view()
        self.pixels.flags.writeable = False
        self.rows = np.arange(len(pixels)) if rows is None else check_index(rows, len(pixels))

    def __len__(self) -> int:
        return len(self.rows)

    def fetch(self, index: np.ndarray) -> np.ndarray:
        """See ``Images``."""
        return np.ascontiguousarray(self.pixels[self.rows[check_index(index, len(self))]])


@dataclass(frozen=True, kw_only=True, eq=False)
class Origin:
    """Where the samples of a split stand in the source, so that what is kept for the source's images can be found.

    Attributes:
        part: of the source: ``train``, ``validation`` or ``test``; a carved split is from ``train``.
        rows: ``(n,)`` int64, the place of each sample in that part, as the source gives it before anything is carved
            from it or left out.
        images: in that part, in all.
    """

    part: Literal["train", "validation", "test"]
    rows: np.ndarray
    images: int


@dataclass(frozen=True, kw_only=True, eq=False)
class Split:
    """Images with labels.

    Attributes:
        images: by position, see ``Images``.
        labels: ``(n,)`` int64, read-only; -1 = unlabelled, in training splits only.
        origin: where they stand in the source; None where nobody said so. The fingerprint does not hold it.
    """

    images: Images
    labels: np.ndarray
    origin: Origin | None = None

    def __post_init__(self) -> None:
        if self.labels.dtype != np.int64 or self.labels.shape != (len(self.images),):
            raise ValueError(
                f"labels must be int64 of shape ({len(self.images)},); got {self.labels.dtype} {self.labels.shape}"
            )
        labels = self.labels.view()
        labels.flags.writeable = False
        object.__setattr__(self, "labels", labels)

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, kw_only=True, eq=False)
class Dataset:
    """A data set, split, with what a model needs to know of it.

    Attributes:
        name: how messages and reports call it.
        train, validation, test: the splits; ``validation`` may be empty.
        class_names: one for each label 0, 1, 2, ...
        height, width: of every image, in pixels.
        channels: 1 (grey) or 3 (red, green, blue).
        mean, std: one per channel, 1.0 = grey level 255; of the training split, unless given.
        fingerprint: SHA-256 in hexadecimal of pixels, labels, split membership and order, and the number
            of classes. Names of files, folders and classes do not enter.
        notes: sentences worth telling the user.
    """

    name: str
    train: Split
    validation: Split
    test: Split
    class_names: tuple[str, ...]
    height: int
    width: int
    channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    fingerprint: str
    notes: tuple[str, ...] = ()
