"""A kept scan of image files, so that loading the same folder again need not decode it all.

One JSON file for one folder and one way of reading it. An entry holds for a file while its size and its
time of last change do; whatever else is wrong with a manifest, it is ignored and written anew.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from understudy.data.scan import DIGEST_BYTES

VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Stamp:
    """What tells whether a file is still the one that was scanned: name below the root, bytes, nanoseconds."""

    name: str
    size: int
    mtime_ns: int


@dataclass(frozen=True, kw_only=True)
class Record:
    """Measurements of one decoded image.

    Attributes:
        height, width, channels: as decoded; channels is 1 for a grey image while none are asked for.
        digest: of the pixels.
        colour_digest: of the same pixels with the grey level three times; empty unless channels is 1.
        sums, squares: per channel, see ``understudy.data.scan.Scan``.
    """

    height: int
    width: int
    channels: int
    digest: bytes
    colour_digest: bytes
    sums: tuple[int, ...]
    squares: tuple[int, ...]


def manifest_path(cache: Path, *, root: str, size: tuple[int, int] | None, channels: int | None) -> Path:
    """Where the scan of ``root`` is kept: it depends on how images are read, the decoder's version too."""
    from PIL import __version__, features

    reading = [VERSION, root, size, channels, __version__, features.version("jpg")]
    return cache / f"scan-{hashlib.sha256(json.dumps(reading).encode()).hexdigest()[:24]}.json"


def _whole(value: object) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(value)
    return value


def _entry(values: list[object]) -> tuple[int, int, Record]:
    size, mtime_ns, height, width, channels, digest, colour_digest, sums, squares = values
    if not (isinstance(digest, str) and isinstance(colour_digest, str)):
        raise ValueError(digest)
    if not (isinstance(sums, list) and isinstance(squares, list)):
        raise ValueError(sums)
    record = Record(
        height=_whole(height),
        width=_whole(width),
        channels=_whole(channels),
        digest=bytes.fromhex(digest),
        colour_digest=bytes.fromhex(colour_digest),
        sums=tuple(map(_whole, sums)),
        squares=tuple(map(_whole, squares)),
    )
    lengths = len(record.digest), len(record.colour_digest), len(record.sums), len(record.squares)
    expected = {1: (DIGEST_BYTES, DIGEST_BYTES, 1, 1), 3: (DIGEST_BYTES, 0, 3, 3)}
    if lengths not in (expected.get(record.channels), (DIGEST_BYTES, 0, 1, 1)):
        raise ValueError(lengths)
    return _whole(size), _whole(mtime_ns), record


def _checksum(files: object) -> str:
    return hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()


def read_manifest(path: Path) -> dict[Stamp, Record]:
    """The records of a manifest; none where the file is missing, damaged or of another version."""
    try:
        content = json.loads(path.read_bytes())
        files = content["files"]
        if content["version"] != VERSION or content["sha256"] != _checksum(files):
            return {}
        found = {}
        for name, values in files.items():
            size, mtime_ns, record = _entry(values)
            found[Stamp(name=name, size=size, mtime_ns=mtime_ns)] = record
        return found
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}


def write_manifest(path: Path, records: Mapping[Stamp, Record]) -> None:
    """Writes a manifest whole, under another name first. Raises OSError where that is not possible."""
    files = {
        stamp.name: [
            stamp.size,
            stamp.mtime_ns,
            record.height,
            record.width,
            record.channels,
            record.digest.hex(),
            record.colour_digest.hex(),
            list(record.sums),
            list(record.squares),
        ]
        for stamp, record in records.items()
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        part.write_text(json.dumps({"version": VERSION, "sha256": _checksum(files), "files": files}))
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
