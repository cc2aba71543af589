"""Images from arrays: an ``.npz`` file, or arrays that a program already holds."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from understudy.data.dataset import MemoryImages
from understudy.data.decoding import fit_array, shown, to_channels
from understudy.data.scan import scan_pixels
from understudy.data.source import Chosen, Memory, Part, Prepared, checked_names, whole_labels
from understudy.errors import BadInput, listed

WANTED = ("x_train", "y_train", "x_test", "y_test")


@dataclass(frozen=True, kw_only=True, eq=False)
class ArraySource:
    """A source whose images are arrays, ``(n, height, width, channels)`` uint8 for each part."""

    name: str
    class_names: tuple[str, ...]
    labels: Mapping[Part, np.ndarray]
    pixels: Mapping[Part, np.ndarray]
    notes: tuple[str, ...] = ()

    def where(self, part: Part, row: int) -> str:
        """Names one image for an error message."""
        return f"{self.name}: {part} image {row}"

    def prepare(
        self,
        chosen: Chosen,
        *,
        size: tuple[int, int] | None,
        channels: int | None,
        memory: Memory,
        cache: Path | None,
    ) -> Prepared:
        """See ``understudy.data.source.Source``; arrays stay in memory and need no cache."""
        if channels is None:
            channels = max(pixels.shape[3] for pixels in self.pixels.values())
            grey = [part for part, pixels in self.pixels.items() if pixels.shape[3] != channels]
            if grey:
                raise BadInput(
                    f"{self.name}: the {listed(grey)} images are grey, the others are colour; say channels: 1 or 3"
                )
        if size is None and len({pixels.shape[1:3] for pixels in self.pixels.values()}) > 1:
            shapes = [f"{part} {p.shape[1]}x{p.shape[2]}" for part, p in self.pixels.items()]
            raise BadInput(
                f"{self.name}: images differ in size ({listed(shapes)}, height x width); "
                f"say size: to bring all to one"
            )
        kept, splits = {}, {}
        for part in {part for part, _ in chosen.values()}:
            rows = np.unique(np.concatenate([rows for other, rows in chosen.values() if other == part]))
            pixels = self.pixels[part]
            if len(rows) < len(pixels):
                pixels = pixels[rows]
            kept[part] = rows, fit_array(to_channels(pixels, channels), size)
        for split, (part, rows) in chosen.items():
            all_rows, pixels = kept[part]
            here = np.searchsorted(all_rows, rows)
            splits[split] = MemoryImages(pixels, here), scan_pixels(pixels, here)
        height, width = size or next(iter(self.pixels.values())).shape[1:3]
        notes = ("Arrays are always held in memory; memory: stream changes nothing.",)
        return Prepared(
            splits=splits,
            height=height,
            width=width,
            channels=channels,
            notes=notes if memory == "stream" else (),
        )


def whole_images(images: np.ndarray, *, source: str, name: str) -> np.ndarray:
    """Images as ``(n, height, width, channels)`` uint8, channels 1 or 3.

    Args:
        images: ``(n, h, w)``, ``(n, h, w, 1)``, ``(n, h, w, 3)``, or channels first, ``(n, 1, h, w)`` and
            ``(n, 3, h, w)``, where the last axis cannot be taken for channels.
        source: the file, for messages.
        name: the array, for messages.

    Raises:
        BadInput: another type or shape, a shape that can be read both ways, or no image.
    """
    if images.dtype != np.uint8:
        raise BadInput(
            f"{source}: {name} holds {images.dtype} values; images are uint8 grey levels 0 .. 255 "
            f"(scale if need be, then save {name}.astype('uint8'))"
        )
    shape = images.shape
    if images.ndim not in (3, 4) or 0 in shape:
        empty = "is empty" if 0 in shape else f"has {images.ndim} axes"
        raise BadInput(
            f"{source}: {name} {empty}, shape {shape}; images are (n, height, width) or (n, height, width, 1 or 3)"
        )
    if images.ndim == 3:
        return images[..., None]
    first, last = shape[1] in (1, 3), shape[3] in (1, 3)
    if first and last:
        raise BadInput(
            f"{source}: {name} has shape {shape}, in which axis 1 and axis 3 could both be channels; "
            f"save it as (n, height, width, channels) with a height other than 1 and 3"
        )
    if last:
        return images
    if first:
        return np.ascontiguousarray(images.transpose(0, 2, 3, 1))
    raise BadInput(
        f"{source}: {name} has shape {shape}, that is {shape[3]} channels; images have 1 (grey) or 3 (colour), "
        f"(n, height, width, 1 or 3)"
    )


def _names(array: np.ndarray, *, source: str) -> list[str]:
    if array.ndim != 1 or array.dtype.kind not in "US":
        raise BadInput(
            f"{source}: names has type {array.dtype} and shape {array.shape}; it is one text per class, "
            f"np.array(['cat', 'dog'])"
        )
    try:
        return [n.decode("utf-8") if isinstance(n, bytes) else str(n) for n in array.tolist()]
    except UnicodeDecodeError:
        raise BadInput(f"{source}: names holds bytes that are not UTF-8; save it as text") from None


def _read(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an ``.npz`` file; whatever is wrong with it is one line that names file and array."""
    source = shown(path)
    try:
        with path.open("rb") as stream:  # ours to close: numpy leaves a damaged file open
            if not zipfile.is_zipfile(stream):
                raise BadInput(
                    f"{source} is not an .npz file, or only a part of one; "
                    f"np.savez(path, x_train=…, y_train=…, x_test=…, y_test=…) writes one"
                )
            stream.seek(0)
            with np.load(stream, allow_pickle=False) as file:
                return _read_members(file, source=source)
    except BadInput:
        raise
    except OSError as error:
        raise BadInput(f"{source} cannot be read: {error.strerror or error}") from None
    except Exception as error:  # a damaged table of contents raises whatever its decoder raises
        reason = " ".join(str(error).split()) or type(error).__name__
        raise BadInput(f"{source} is a damaged .npz file: {reason}") from None


def _read_members(file: np.lib.npyio.NpzFile, *, source: str) -> dict[str, np.ndarray]:
    missing = [name for name in WANTED if name not in file.files]
    if missing:
        raise BadInput(
            f"{source} has no array {listed(missing)}; it holds {listed(file.files)} and needs {listed(WANTED)}"
        )
    found: dict[str, np.ndarray] = {}
    for name in (*WANTED, *(["names"] if "names" in file.files else [])):
        try:
            found[name] = file[name]
        except Exception as error:  # a damaged member raises whatever its decoder raises
            if "allow_pickle" in str(error):
                raise BadInput(
                    f"{source}: {name} is an array of Python objects (a pickle), which is never read; "
                    f"save it with a plain type"
                ) from None
            reason = " ".join(str(error).split()) or type(error).__name__
            raise BadInput(f"{source}: {name} is damaged: {reason}") from None
        if not isinstance(found[name], np.ndarray):  # numpy hands out bytes that it cannot read as they are
            raise BadInput(f"{source}: {name} is damaged: it does not begin like an array")
    found["unused"] = np.array([name for name in file.files if name not in (*WANTED, "names")], dtype=str)
    return found


def npz_source(path: Path) -> ArraySource:
    """Reads an ``.npz`` file with ``x_train``, ``y_train``, ``x_test``, ``y_test`` and perhaps ``names``.

    Images are as ``whole_images`` says, labels one whole number per image, -1 in ``y_train`` =
    unlabelled, ``names`` one text per class. Nothing pickled is read.

    Raises:
        BadInput: anything else, naming the file and the array.
    """
    source = shown(path)
    arrays = _read(path)
    pixels: dict[Part, np.ndarray] = {}
    labels: dict[Part, np.ndarray] = {}
    parts: tuple[Part, ...] = ("train", "test")
    for part in parts:
        pixels[part] = whole_images(arrays[f"x_{part}"], source=source, name=f"x_{part}")
        labels[part] = whole_labels(
            arrays[f"y_{part}"],
            source=source,
            name=f"y_{part}",
            count=len(pixels[part]),
            unlabelled=part == "train",
        )
    names = _names(arrays["names"], source=source) if "names" in arrays else None
    class_names, notes = checked_names(
        {f"y_{part}": values for part, values in labels.items()}, names, source=source
    )
    if arrays["unused"].size:
        notes += (f"Arrays that were not used: {listed(arrays['unused'].tolist())}.",)
    return ArraySource(name=path.stem, class_names=class_names, labels=labels, pixels=pixels, notes=notes)
