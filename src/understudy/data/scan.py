"""What is measured once of every image: a digest of its pixels and exact sums of its grey levels."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

DIGEST_BYTES = 16
_BLOCK = 512  # images a block: what is squared at once stays small


@dataclass(frozen=True, kw_only=True, eq=False)
class Scan:
    """Measurements of ``n`` images.

    Attributes:
        digests: ``(n, 16)`` uint8, BLAKE2b of each image's ``height * width * channels`` bytes.
        sums: ``(n, channels)`` int64, grey levels summed over the pixels of each image.
        squares: ``(n, channels)`` int64, squared grey levels summed likewise.
        pixels: height times width of one image.
    """

    digests: np.ndarray
    sums: np.ndarray
    squares: np.ndarray
    pixels: int

    def __len__(self) -> int:
        return len(self.digests)

    def select(self, rows: np.ndarray) -> Scan:
        """The measurements of some images."""
        return Scan(
            digests=self.digests[rows], sums=self.sums[rows], squares=self.squares[rows], pixels=self.pixels
        )


def digest(image: np.ndarray) -> bytes:
    """BLAKE2b, 16 bytes, of one image's pixels in ``(height, width, channels)`` order."""
    return hashlib.blake2b(np.ascontiguousarray(image).data, digest_size=DIGEST_BYTES).digest()


def sums_of(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """``(n, height, width, channels)`` uint8 to two ``(n, channels)`` int64: sums and sums of squares."""
    squares = np.square(images, dtype=np.uint16)  # 255 squared fits
    return images.sum(axis=(1, 2), dtype=np.int64), squares.sum(axis=(1, 2), dtype=np.int64)


def scan_pixels(pixels: np.ndarray, rows: np.ndarray) -> Scan:
    """Measures the images ``pixels[rows]``; ``pixels`` is ``(n, height, width, channels)`` uint8."""
    channels = pixels.shape[3]
    digests = np.zeros((len(rows), DIGEST_BYTES), dtype=np.uint8)
    sums = np.zeros((len(rows), channels), dtype=np.int64)
    squares = np.zeros_like(sums)
    for start in range(0, len(rows), _BLOCK):
        block = pixels[rows[start : start + _BLOCK]]
        stop = start + len(block)
        sums[start:stop], squares[start:stop] = sums_of(block)
        digests[start:stop] = np.frombuffer(b"".join(map(digest, block)), np.uint8).reshape(len(block), -1)
    return Scan(digests=digests, sums=sums, squares=squares, pixels=pixels.shape[1] * pixels.shape[2])


def mean_and_std(scan: Scan) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and population standard deviation of every channel, 1.0 = grey level 255.

    Whole-number sums, so the order of the images does not matter and only the last step rounds. A channel
    that never varies gets std 1/255 (one grey level) in place of 0, so that normalising stays finite.
    """
    total = len(scan) * scan.pixels
    means, stds = [], []
    for channel in range(scan.sums.shape[1]):
        first = sum(scan.sums[:, channel].tolist())  # Python's own integers cannot overflow
        second = sum(scan.squares[:, channel].tolist())
        means.append(first / (255 * total))
        variance = total * second - first * first  # times total squared
        stds.append(math.sqrt(variance / (255 * total) ** 2) if variance else 1 / 255)
    return tuple(means), tuple(stds)


def fingerprint(
    splits: Sequence[tuple[str, np.ndarray, Scan]], *, height: int, width: int, channels: int, classes: int
) -> str:
    """SHA-256 in hexadecimal of what decides a data set.

    Args:
        splits: ``(name, labels, scan)`` of each split, in a fixed order.
        height, width, channels: of every image.
        classes: how many.
    """
    shape = {"version": 1, "height": height, "width": width, "channels": channels, "classes": classes}
    whole = hashlib.sha256(json.dumps(shape, sort_keys=True).encode())
    for name, labels, scan in splits:
        whole.update(json.dumps([name, len(labels)]).encode())
        whole.update(labels.astype("<i8").tobytes())
        whole.update(scan.digests.tobytes())
    return whole.hexdigest()
