"""What every source of images gives, before anything is split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np

from understudy.data.dataset import UNLABELLED, Images
from understudy.data.scan import Scan
from understudy.errors import BadInput, listed

Part = Literal["train", "validation", "test"]
Memory = Literal["auto", "memory", "stream"]
Chosen = Mapping[Part, tuple[Part, np.ndarray]]
"""For each split, which part of the source it is taken from and the rows of that part, sorted."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Prepared:
    """The chosen images, all of one shape, with their measurements."""

    splits: Mapping[Part, tuple[Images, Scan]]
    height: int
    width: int
    channels: int
    notes: tuple[str, ...] = ()


class Source(Protocol):
    """Labels at once, images when it is known which of them are wanted."""

    @property
    def name(self) -> str: ...

    @property
    def class_names(self) -> tuple[str, ...]: ...

    @property
    def labels(self) -> Mapping[Part, np.ndarray]:
        """``(n,)`` int64 for each part that the source has; ``train`` always."""
        ...

    @property
    def notes(self) -> tuple[str, ...]: ...

    def where(self, part: Part, row: int) -> str:
        """Names one image for an error message."""
        ...

    def prepare(
        self,
        chosen: Chosen,
        *,
        size: tuple[int, int] | None,
        channels: int | None,
        memory: Memory,
        cache: Path | None,
    ) -> Prepared:
        """Reads, checks and measures the chosen images.

        Args:
            chosen: see ``Chosen``.
            size: ``(height, width)`` to which every image is brought; None keeps them, and all must agree.
            channels: 1 or 3; None is 1 when every chosen image is grey, otherwise 3.
            memory: whether images are kept decoded; ``auto`` keeps up to 2 GiB.
            cache: a folder for scan manifests, or None.

        Raises:
            BadInput: an image cannot be read, or the images do not have one shape.
        """
        ...


def whole_labels(labels: np.ndarray, *, source: str, name: str, count: int, unlabelled: bool) -> np.ndarray:
    """One label per image as int64.

    Args:
        labels: as found in a file.
        source: the file, for messages.
        name: the array or column, for messages.
        count: how many images there are.
        unlabelled: whether -1 is allowed.

    Raises:
        BadInput: not whole numbers, another length, a negative label.
    """
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1:
        raise BadInput(
            f"{source}: {name} has shape {labels.shape}; labels are one whole number per image, shape ({count},)"
        )
    if labels.dtype.kind not in "iu":
        raise BadInput(
            f"{source}: {name} holds {labels.dtype} values; labels are whole numbers 0, 1, 2, … (save them as int64)"
        )
    if len(labels) != count:
        raise BadInput(f"{source}: {name} has {len(labels)} labels for {count} images; each image needs one")
    low = UNLABELLED if unlabelled else 0
    outside = np.flatnonzero((labels < low) | (labels > np.int64(2**31 - 1)))
    if outside.size:
        row = int(outside[0])
        kinds = (
            "0, 1, 2, … or -1 for unlabelled" if unlabelled else "0, 1, 2, … (only training images may be -1)"
        )
        raise BadInput(f"{source}: {name}[{row}] is {labels[row]}; labels are {kinds}")
    return labels.astype(np.int64)


def checked_names(
    labels: Mapping[str, np.ndarray], names: Sequence[str] | None, *, source: str
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Class names that fit the labels.

    Args:
        labels: of each part by the name that messages use, training first; already whole numbers.
        names: one per class; None makes them from the labels, which then must count without gaps.
        source: the file, for messages.

    Returns:
        The names, and notes.

    Raises:
        BadInput: a label has no name, a class occurs in another part but not in training, or there are
            fewer than two classes.
    """
    (first, train), *others = labels.items()
    known = np.unique(train[train != UNLABELLED])
    if not known.size:
        raise BadInput(f"{source}: {first} has no labelled image; at least two classes need some")
    notes: list[str] = []
    if names is None:
        gaps = np.setdiff1d(np.arange(min(int(known[-1]) + 1, len(known) + 1)), known)
        if gaps.size:
            raise BadInput(
                f"{source}: {first} goes up to label {known[-1]} but never has label {gaps[0]}; "
                f"number the classes 0, 1, 2, … without gaps, or give their names"
            )
        names = [str(label) for label in known.tolist()]
    for part, values in labels.items():
        if values.size and values.max() >= len(names):
            row = int(values.argmax())
            raise BadInput(
                f"{source}: {part}[{row}] is {values[row]}, and there are {len(names)} classes: "
                f"labels are 0 .. {len(names) - 1}"
            )
    for part, values in others:
        strange = np.setdiff1d(values[values != UNLABELLED], known)
        if strange.size:
            raise BadInput(
                f"{source}: {part} has classes that {first} never has: "
                f"{listed(names[label] for label in strange[:5].tolist())}; a student cannot learn them"
            )
    if len(names) < 2:
        raise BadInput(f"{source}: there is one class, {names[0]!r}; a classifier needs at least two")
    empty = np.setdiff1d(np.arange(len(names)), known)
    if empty.size:
        notes.append(
            f"{empty.size} of {len(names)} classes have no training image: "
            f"{listed(names[label] for label in empty[:5].tolist())}{', …' if empty.size > 5 else ''}."
        )
    return tuple(names), tuple(notes)
