"""Tiny-ImageNet-100 at 32x32: a set of CIFAR-100's size made from the public Tiny-ImageNet download.

The first 100 of its 200 classes by WordNet id, 500 training and 50 test images each, halved from 64x64 by
averaging. It is not CIFAR, and results on it are not comparable with results on CIFAR.

Source: Le & Yang 2015, "Tiny ImageNet Visual Recognition Challenge", Stanford CS231n; a subset of ImageNet,
Deng et al. 2009. ImageNet's terms hold (research and education, not commercial).
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from understudy.data.decoding import decode, shown
from understudy.errors import BadInput

FILE_NAME = "tinyimagenet100-32.npz"
SIDE = 64  # pixels of an image of the download

CHECKSUMS = {
    "x_train": "6f153789c9386f9f1f3e360f1b5085dd732380ef575b996b047db8eb70139e31",
    "y_train": "ac1fc6f67f41e276cbeebcd46daa93fcb61bfea4800008f7ed155d60f08efe57",
    "x_test": "a2100543348cb0874a5e0750ea925e754a7acfd3fdc79be53f55abdd4d03625f",
    "y_test": "8050fa8d3ab65f14f5b00820f41064d9d218adc1f4f56d4a04d7ec46e774323d",
}
"""SHA-256 of the bytes of each array, labels as little-endian int64."""


def make_tinyimagenet100_32(
    source: Path,
    out: Path,
    *,
    classes: int = 100,
    per_class: int = 500,
    say: Callable[[str], None] = print,
) -> Path:
    """Makes ``tinyimagenet100-32.npz`` from the unpacked download.

    The arrays: ``x_train`` ``(50000, 32, 32, 3)`` uint8 by class, then file number; ``x_test``
    ``(5000, 32, 32, 3)`` in the order of the file numbers; ``y_train``, ``y_test`` int64; ``names`` as in
    ``words.txt``, UTF-8 bytes. A pixel is the mean of 2x2 pixels, rounded half up.

    Args:
        source: the folder ``tiny-imagenet-200``, with ``wnids.txt``, ``words.txt``, ``train`` and ``val``.
        out: the folder to write into, or a path that ends in ``.npz``.
        classes: how many, from the first by WordNet id.
        per_class: training images of each class, file numbers 0 .. per_class - 1.
        say: told in a sentence whether the arrays are the known ones (of the full set only).

    Returns:
        The file that was written.

    Raises:
        BadInput: a file of the download is missing or damaged, or ``out`` cannot be written.
    """
    target = out if out.suffix == ".npz" else out / FILE_NAME
    every = sorted(_lines(source / "wnids.txt"))
    if len(every) < classes:
        raise BadInput(
            f"{shown(source / 'wnids.txt')} lists {len(every)} classes; {classes} are needed: download the set again"
        )
    wanted = {wnid: label for label, wnid in enumerate(every[:classes])}
    words = dict(line.partition("\t")[::2] for line in _lines(source / "words.txt"))
    lost = [wnid for wnid in every if wnid not in words]
    if lost:
        raise BadInput(f"{shown(source / 'words.txt')} has no line for {lost[0]}; download the set again")

    train = [
        source / "train" / wnid / "images" / f"{wnid}_{number}.JPEG"
        for wnid in wanted
        for number in range(per_class)
    ]
    test: list[tuple[int, Path, int]] = []
    annotations = source / "val" / "val_annotations.txt"
    for line in _lines(annotations):
        file, _, rest = line.partition("\t")
        wnid = rest.partition("\t")[0]
        number = file.removeprefix("val_").removesuffix(".JPEG")
        if not number.isdecimal() or wnid not in words:
            raise BadInput(
                f"{shown(annotations)} has a line that names no image and class ({shown(line[:60])!r}); "
                f"download the set again"
            )
        if wnid in wanted:
            test.append((int(number), source / "val" / "images" / file, wanted[wnid]))
    test.sort()

    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _not_written(target, error) from None
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        x_train = _halved(train, pool)
        x_test = _halved([path for _, path, _ in test], pool)
    arrays: dict[str, Any] = {
        "x_train": x_train,
        "y_train": np.repeat(np.arange(classes, dtype=np.int64), per_class),
        "x_test": x_test,
        "y_test": np.array([label for _, _, label in test], dtype=np.int64),
        "names": np.array([words[wnid].encode() for wnid in every])[:classes],
    }
    part = target.with_name(f"{target.stem}.{os.getpid()}.part.npz")
    try:
        np.savez(part, **arrays)
        part.replace(target)
    except OSError as error:
        raise _not_written(target, error) from None
    finally:
        part.unlink(missing_ok=True)
    if (classes, per_class) == (100, 500):
        say(verdict(arrays))
    return target


def verdict(arrays: dict[str, np.ndarray]) -> str:
    """One sentence: whether ``x_train``, ``y_train``, ``x_test``, ``y_test`` are the known arrays."""
    other = [name for name, known in CHECKSUMS.items() if checksum(arrays[name]) != known]
    if not other:
        return f"{FILE_NAME}: all four arrays have the known checksums."
    if all(name.startswith("x_") for name in other):
        return (
            f"{FILE_NAME}: the labels have the known checksums, the pixels ({', '.join(other)}) have not; another "
            f"JPEG decoder rounds differently, which is harmless unless results are compared bit for bit."
        )
    return (
        f"{FILE_NAME}: {', '.join(other)} do not have the known checksums; "
        f"the download is probably another version of the set."
    )


def checksum(array: np.ndarray) -> str:
    """SHA-256 of an array's bytes in little-endian C order."""
    little = np.ascontiguousarray(array.astype(array.dtype.newbyteorder("<"), copy=False))
    return hashlib.sha256(little.data).hexdigest()


def _not_written(target: Path, error: OSError) -> BadInput:
    return BadInput(f"{shown(target)} cannot be written: {error.strerror or error}")


def _lines(path: Path) -> list[str]:
    try:
        return [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except OSError as error:
        raise BadInput(
            f"{shown(path)} cannot be read ({error.strerror or error}); "
            f"give the unpacked folder tiny-imagenet-200 with wnids.txt, words.txt, train and val"
        ) from None
    except UnicodeDecodeError:
        raise BadInput(f"{shown(path)} is not UTF-8 text; download the set again") from None


def _halved(paths: list[Path], pool: ThreadPoolExecutor) -> np.ndarray:
    """``(n, 32, 32, 3)`` uint8, each pixel the mean of 2x2, rounded half up."""
    half = SIDE // 2
    images = np.zeros((len(paths), half, half, 3), dtype=np.uint8)
    for start in range(0, len(paths), 512):
        for place, image in enumerate(pool.map(_image, paths[start : start + 512]), start):
            sums = image.reshape(half, 2, half, 2, 3).sum(axis=(1, 3), dtype=np.uint16)
            images[place] = (sums + 2) // 4
    return images


def _image(path: Path) -> np.ndarray:
    try:
        with path.open("rb") as file:
            image = decode(file, where=shown(path), channels=3)
    except OSError as error:
        raise BadInput(
            f"{shown(path)} cannot be read ({error.strerror or error}); is the download complete?"
        ) from None
    if image.shape != (SIDE, SIDE, 3):
        raise BadInput(f"{shown(path)} is {image.shape[0]}x{image.shape[1]}; Tiny-ImageNet images are 64x64")
    return image
