"""Images that are kept encoded (files of a folder, rows of a hub data set): scanned once, then held or streamed."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

import numpy as np

from understudy.data.dataset import MemoryImages, check_index
from understudy.data.decoding import decode
from understudy.data.manifest import Record, Stamp, manifest_path, read_manifest, write_manifest
from understudy.data.scan import DIGEST_BYTES, Scan, digest, sums_of
from understudy.data.source import Chosen, Memory, Part, Prepared
from understudy.errors import BadInput

MEMORY_LIMIT = 2 * 1024**3
"""Bytes of decoded images up to which ``memory: auto`` holds them."""

_BLOCK = 256  # images decoded between two looks at the results


class Encoded(Protocol):
    """Image files by position. Holds no open file, so that it can be sent to other processes."""

    def __len__(self) -> int: ...

    def open(self, row: int) -> BinaryIO:
        """The file's bytes, to be closed by the caller. Raises OSError."""
        ...

    def where(self, row: int) -> str:
        """Names the file for a message."""
        ...

    def stamp(self, row: int) -> Stamp | None:
        """What tells whether the file has changed, or None where nothing does. Raises OSError."""
        ...


def read_image(
    encoded: Encoded, row: int, *, size: tuple[int, int] | None, channels: int | None
) -> np.ndarray:
    """One image, ``(height, width, channels)`` uint8. Raises BadInput that names the file."""
    try:
        with encoded.open(row) as file:
            return decode(file, where=encoded.where(row), size=size, channels=channels)
    except OSError as error:
        raise BadInput(f"{encoded.where(row)} cannot be read: {error.strerror or error}") from None


class EncodedImages:
    """Images that are decoded when they are fetched.

    Args:
        encoded: the files; holds nothing open, so these images can be pickled for worker processes.
        rows: ``(n,)`` int64, which of the files.
        shape: ``(height, width, channels)`` that the scan found or that was asked for.
        resize: whether images are brought to that height and width; otherwise they must have it.
    """

    in_memory = False

    def __init__(
        self, encoded: Encoded, rows: np.ndarray, *, shape: tuple[int, int, int], resize: bool
    ) -> None:
        self.encoded = encoded
        self.rows = rows
        self.shape = shape
        self.resize = resize

    def __len__(self) -> int:
        return len(self.rows)

    def fetch(self, index: np.ndarray) -> np.ndarray:
        """See ``understudy.data.dataset.Images``; raises BadInput where a file has changed or gone."""
        height, width, channels = self.shape
        rows = self.rows[check_index(index, len(self))]
        images = np.empty((len(rows), *self.shape), dtype=np.uint8)
        for place, row in enumerate(rows.tolist()):
            image = read_image(
                self.encoded, row, size=(height, width) if self.resize else None, channels=channels
            )
            if image.shape != self.shape:
                raise BadInput(
                    f"{self.encoded.where(row)} is {image.shape[0]}x{image.shape[1]} and was {height}x{width} when it "
                    f"was scanned (height x width); do not change a data set while it is in use"
                )
            images[place] = image
        return images


@dataclass(frozen=True, kw_only=True, eq=False)
class EncodedSource:
    """A source whose images are encoded files.

    Attributes:
        parts: for each part, its rows of ``encoded``: ``(start, stop)``.
        root: names the folder for the scan manifest.
    """

    name: str
    class_names: tuple[str, ...]
    labels: Mapping[Part, np.ndarray]
    encoded: Encoded
    parts: Mapping[Part, tuple[int, int]]
    root: str
    notes: tuple[str, ...] = ()

    def where(self, part: Part, row: int) -> str:
        """Names one image for an error message."""
        return self.encoded.where(self.parts[part][0] + row)

    def prepare(
        self,
        chosen: Chosen,
        *,
        size: tuple[int, int] | None,
        channels: int | None,
        memory: Memory,
        cache: Path | None,
    ) -> Prepared:
        """See ``understudy.data.source.Source``."""
        rows = {split: self.parts[part][0] + taken for split, (part, taken) in chosen.items()}
        everything = np.concatenate(list(rows.values()))
        kept = manifest_path(cache, root=self.root, size=size, channels=channels) if cache else None
        known = read_manifest(kept) if kept else {}
        records, pixels = scan_files(
            self.encoded, everything, size=size, channels=channels, memory=memory, known=known
        )
        notes: tuple[str, ...] = ()
        if kept:
            notes = self._keep(kept, everything, records, known)
        if channels is None:
            channels = 1 if all(record.channels == 1 for record in records) else 3
        scan = _as_scan(records, channels)
        shape = (records[0].height, records[0].width, channels)
        splits: dict[Part, tuple[MemoryImages | EncodedImages, Scan]] = {}
        start = 0
        for split, taken in rows.items():
            here = np.arange(start, start + len(taken))
            start += len(taken)
            images: MemoryImages | EncodedImages
            if pixels is None:
                images = EncodedImages(self.encoded, taken, shape=shape, resize=size is not None)
            else:
                images = MemoryImages(pixels, here)
            splits[split] = images, scan.select(here)
        if pixels is None and memory == "auto":
            notes += (
                f"The images take {scan.pixels * channels * len(scan) / 1024**3:.1f} GiB decoded, more than "
                f"{MEMORY_LIMIT / 1024**3:g}: they are decoded from disk for every batch.",
            )
        return Prepared(splits=splits, height=shape[0], width=shape[1], channels=channels, notes=notes)

    def _keep(
        self, path: Path, rows: np.ndarray, records: Sequence[Record], known: Mapping[Stamp, Record]
    ) -> tuple[str, ...]:
        try:
            stamps = [self.encoded.stamp(row) for row in rows.tolist()]
            new = {s: r for s, r in zip(stamps, records, strict=True) if s is not None}
            if new and any(known.get(stamp) != record for stamp, record in new.items()):
                names = {stamp.name for stamp in new}
                write_manifest(path, {s: r for s, r in known.items() if s.name not in names} | new)
        except OSError as error:
            return (
                f"The scan of {self.root} could not be kept in {path.parent}: {error.strerror or error}.",
            )
        return ()


def _measure(image: np.ndarray, *, automatic: bool) -> Record:
    sums, squares = sums_of(image[None])
    grey = automatic and image.shape[2] == 1
    return Record(
        height=image.shape[0],
        width=image.shape[1],
        channels=image.shape[2],
        digest=digest(image),
        colour_digest=digest(np.repeat(image, 3, axis=2)) if grey else b"",
        sums=tuple(sums[0].tolist()),
        squares=tuple(squares[0].tolist()),
    )


def scan_files(
    encoded: Encoded,
    rows: np.ndarray,
    *,
    size: tuple[int, int] | None,
    channels: int | None,
    memory: Memory,
    known: Mapping[Stamp, Record],
) -> tuple[list[Record], np.ndarray | None]:
    """Decodes every file once, in several threads; the result does not depend on how many.

    Args:
        encoded: the files.
        rows: ``(n,)`` int64, which of them, n > 0.
        size, channels, memory: see ``understudy.data.source.Source``.
        known: records from an earlier scan; those files are decoded again only to be held.

    Returns:
        One record for each row, and the images ``(n, height, width, channels)`` uint8 if they are to be held.

    Raises:
        BadInput: naming the first file that cannot be read or that differs in size from the first.
    """
    pixels: np.ndarray | None = None
    holds = memory != "stream"

    def fits(record: Record) -> bool:
        return (
            memory == "memory" or record.height * record.width * record.channels * len(rows) <= MEMORY_LIMIT
        )

    def read(row: int) -> tuple[np.ndarray | None, Record]:
        if known and not holds:
            try:
                stamp = encoded.stamp(row)
            except OSError as error:
                raise BadInput(f"{encoded.where(row)} cannot be read: {error.strerror or error}") from None
            if stamp is not None and stamp in known:
                return None, known[stamp]
        image = read_image(encoded, row, size=size, channels=channels)
        record = _measure(image, automatic=channels is None)
        return (image if holds else None), record  # a block of large images must not pile up

    records: list[Record] = []
    with warnings.catch_warnings(), ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        # a bomb is refused by name (see decode); anything else that a decoder warns of does not change pixels
        warnings.simplefilter("ignore")
        for start in range(0, len(rows), _BLOCK):
            for image, record in pool.map(read, rows[start : start + _BLOCK].tolist()):
                first = records[0] if records else record
                if (record.height, record.width) != (first.height, first.width):
                    raise BadInput(
                        f"images differ in size (height x width): {encoded.where(int(rows[0]))} is "
                        f"{first.height}x{first.width}, {encoded.where(int(rows[len(records)]))} is "
                        f"{record.height}x{record.width}; say size: to bring all to one"
                    )
                if holds and image is not None:
                    if pixels is None or record.channels > pixels.shape[3]:
                        if fits(record):
                            pixels = _room(pixels, record, len(rows))
                        else:
                            holds, pixels = False, None
                    if pixels is not None:
                        pixels[len(records)] = (
                            image  # a grey image among colour ones fills all three channels
                        )
                records.append(record)
    return records, pixels


def _room(pixels: np.ndarray | None, record: Record, count: int) -> np.ndarray:
    """An array for all images; one that held grey images so far becomes colour."""
    if pixels is None:
        return np.zeros((count, record.height, record.width, record.channels), dtype=np.uint8)
    return np.repeat(pixels, record.channels, axis=3)


def _as_scan(records: Sequence[Record], channels: int) -> Scan:
    digests = b"".join(r.digest if r.channels == channels else r.colour_digest for r in records)
    repeat = [channels // r.channels for r in records]
    return Scan(
        digests=np.frombuffer(digests, np.uint8).reshape(-1, DIGEST_BYTES),
        sums=np.array([r.sums * n for r, n in zip(records, repeat, strict=True)], dtype=np.int64),
        squares=np.array([r.squares * n for r, n in zip(records, repeat, strict=True)], dtype=np.int64),
        pixels=records[0].height * records[0].width,
    )
