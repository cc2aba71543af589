"""Images from a folder of class folders."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from understudy.data.decoding import SUFFIXES, shown
from understudy.data.encoded import EncodedSource
from understudy.data.manifest import Stamp
from understudy.data.source import Part
from understudy.errors import BadInput, listed

PART_FOLDERS: dict[str, Part] = {
    "train": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
}
_CLUTTER = ("thumbs.db", "desktop.ini")  # what a file manager leaves behind


@dataclass(frozen=True)
class Files:
    """Image files by position, see ``understudy.data.encoded.Encoded``."""

    root: str
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.names)

    def _path(self, row: int) -> Path:
        return Path(self.root, self.names[row])

    def open(self, row: int) -> BinaryIO:
        """The opened file."""
        return self._path(row).open("rb")

    def where(self, row: int) -> str:
        """The path."""
        return shown(self._path(row))

    def stamp(self, row: int) -> Stamp:
        """Name, bytes and time of last change."""
        found = self._path(row).stat()
        return Stamp(name=self.names[row], size=found.st_size, mtime_ns=found.st_mtime_ns)


def natural_order(name: str) -> tuple[list[str | int], str]:
    """A sort key that puts ``image_9`` before ``image_10``.

    >>> sorted(["b10.png", "b9.png", "a.png"], key=natural_order)
    ['a.png', 'b9.png', 'b10.png']
    """
    pieces = re.split(r"([0-9]+)", name)
    return [int(piece) if place % 2 else piece for place, piece in enumerate(pieces)], name


def _entries(folder: Path) -> tuple[list[str], list[str]]:
    """Names of the folders and of the files in a folder, without hidden ones."""
    folders: list[str] = []
    files: list[str] = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith(".") or entry.name.lower() in _CLUTTER:
                    continue
                try:
                    (folders if entry.is_dir() else files).append(entry.name)
                except OSError as error:
                    raise BadInput(f"{shown(entry.path)} cannot be read: {error.strerror or error}") from None
    except OSError as error:
        raise BadInput(f"{shown(folder)} cannot be read: {error.strerror or error}") from None
    return sorted(folders), sorted(files, key=natural_order)


def _images_below(folder: Path, above: tuple[Path, ...] = ()) -> list[Path]:
    """The images of a class folder, those of folders in it too, in natural order."""
    try:
        real = folder.resolve(strict=True)
    except (OSError, RuntimeError) as error:  # RuntimeError: a loop of links, up to Python 3.12
        raise BadInput(f"{shown(folder)} cannot be read: {_reason(error)}") from None
    if real in above:
        raise BadInput(f"{shown(folder)} is a link to a folder that contains it; remove the link")
    folders, files = _entries(folder)
    found = []
    for name in files:
        path = folder / name
        if not name.lower().endswith(SUFFIXES):
            raise BadInput(
                f"{shown(path)} is not an image file by its name ({listed(SUFFIXES)} are read); "
                f"move it out of the class folder"
            )
        try:
            kind = path.stat().st_mode
        except OSError as error:
            raise BadInput(f"{shown(path)} cannot be read: {_reason(error)}") from None
        if not stat.S_ISREG(kind):  # opening a pipe would wait for ever
            raise BadInput(f"{shown(path)} is not a regular file; move it out of the class folder")
        found.append(path)
    for name in sorted(folders, key=natural_order):
        found += _images_below(folder / name, (*above, real))
    return found


def _reason(error: OSError | RuntimeError) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def _class_folders(folder: Path) -> dict[str, list[Path]]:
    """Class name to its images, for a folder of class folders, in alphabetical order of the names."""
    folders, files = _entries(folder)
    beside = [name for name in files if name.lower().endswith(SUFFIXES)]
    if not folders:
        holds = "only files" if files else "nothing"
        raise BadInput(
            f"{shown(folder)} holds {holds}; it needs one folder for each class, with that class's images in it"
        )
    if beside:
        raise BadInput(
            f"{shown(folder / beside[0])} lies beside the class folders; move it into the folder of its class"
        )
    classes = {}
    for name in folders:
        images = _images_below(folder / name)
        if not images:
            raise BadInput(f"{shown(folder / name)} holds no image; add some or remove the folder")
        classes[shown(name)] = images
    return classes


def _part_folders(root: Path) -> tuple[dict[Part, Path], list[str]]:
    """Which folder holds which part, and the names of folders that hold none."""
    folders, _ = _entries(root)
    if "train" in folders and _entries(root / "train")[0]:
        found: dict[Part, Path] = {}
        for name in folders:
            part = PART_FOLDERS.get(name)
            if part is None:
                continue
            if part in found:
                raise BadInput(
                    f"{shown(root)} has {found[part].name} and {name}, both of which name a validation split; "
                    f"keep one"
                )
            found[part] = root / name
        if "validation" in found and "test" not in found:
            found["test"] = found.pop("validation")
        return found, [name for name in folders if name not in PART_FOLDERS]
    parts = [name for name in folders if name in PART_FOLDERS]
    if folders and len(parts) == len(folders):
        raise BadInput(
            f"{shown(root)} holds {listed(folders)}, but no class folders in {shown(root / 'train')}; "
            f"training images go into train/<class>/"
        )
    return {"train": root}, []


def folder_source(root: Path) -> EncodedSource:
    """Reads the layout of a folder of class folders; images are decoded later.

    Either ``train/<class>/*`` with ``val``, ``valid`` or ``validation``, or ``test``, or both beside it, or
    ``<class>/*`` right away. With both, each is what it is called; with one of them, it is the test split.
    Labels are the alphabetical order of the training class folders; images are in natural order of their
    names. Hidden files are ignored.

    Raises:
        BadInput: no class folders, an empty one, a file in one that is no image, one that cannot be read.
    """
    if (root / "wnids.txt").is_file() and (root / "val" / "val_annotations.txt").is_file():
        raise BadInput(
            f"{shown(root)} is the Tiny-ImageNet download, whose validation images have no class folders; "
            f"understudy.data.tiny_imagenet.make_tinyimagenet100_32 makes a set from it"
        )
    if any((root / name).is_file() for name in ("dataset_dict.json", "dataset_info.json", "state.json")):
        raise BadInput(
            f"{shown(root)} was written by the `datasets` package; give it as hub: instead of path:"
        )
    folders, unused = _part_folders(root)
    found: dict[Part, dict[str, list[Path]]] = {}
    order: Sequence[Part] = ("train", "validation", "test")
    for part in order:
        if part in folders:
            found[part] = _class_folders(folders[part])
    class_names = tuple(found["train"])
    if len(class_names) < 2:
        raise BadInput(
            f"{shown(folders['train'])} holds one class folder, {class_names[0]!r}; a classifier needs at least two"
        )
    names: list[str] = []
    labels: dict[Part, np.ndarray] = {}
    parts: dict[Part, tuple[int, int]] = {}
    for part, classes in found.items():
        strange = [name for name in classes if name not in class_names]
        if strange:
            raise BadInput(
                f"{shown(folders[part])} has classes that {shown(folders['train'])} never has: "
                f"{listed(strange[:5])}; a student cannot learn them"
            )
        start = len(names)
        numbers = []
        for name, paths in classes.items():
            names += [str(path.relative_to(root)) for path in paths]
            numbers += [class_names.index(name)] * len(paths)
        labels[part] = np.array(numbers, dtype=np.int64)
        parts[part] = start, len(names)
    notes = (f"Folders that were not used: {listed(unused)}.",) if unused else ()
    return EncodedSource(
        name=shown(root.resolve().name),
        class_names=class_names,
        labels=labels,
        encoded=Files(str(root), tuple(names)),
        parts=parts,
        root=str(root.resolve()),
        notes=notes,
    )
