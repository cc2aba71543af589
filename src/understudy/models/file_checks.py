"""Whether a file is there and is the one that was meant, and whether the network in it fits the images and classes."""

from __future__ import annotations

import hashlib
from pathlib import Path

from understudy.errors import BadInput


def content_of(path: Path, *, sha256: str | None = None) -> bytes:
    """All bytes of a file.

    Args:
        path: of the file.
        sha256: what its bytes must hash to; None: whatever they are.

    Raises:
        BadInput: it cannot be read, is empty, or is not the file that ``sha256`` was taken of.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise BadInput(f"{path} cannot be read ({error.strerror or error}). Check the path.") from error
    if not content:
        raise BadInput(f"{path} is empty: write it again.")
    if sha256 is not None and hashlib.sha256(content).hexdigest() != sha256:
        raise BadInput(
            f"{path} is not the file any more that this run began with. Run the same command again."
        )
    return content


def sha256_of(path: Path) -> str:
    """SHA-256 in hexadecimal of a file's bytes: what the file is known by, whatever it is called.

    Raises:
        BadInput: see ``content_of``.
    """
    return hashlib.sha256(content_of(path)).hexdigest()


def check_answer(shape: tuple[int, ...], *, images: int, classes: int, finite: bool, source: str) -> None:
    """Whether a network in a file answered with one finite number for each image and class.

    Raises:
        BadInput: it did not.
    """
    if len(shape) == 2 and shape[0] == images and shape[1] != classes:
        raise BadInput(
            f"{source} answers for {shape[1]} classes, and the data have {classes}. "
            f"Give a teacher of these classes, in this order."
        )
    if shape != (images, classes):
        raise BadInput(
            f"{source} answers {images} images with an array of shape {shape}; a teacher answers with one of "
            f"({images}, {classes}), logits of each class."
        )
    if not finite:
        raise BadInput(
            f"{source} answers with numbers that are NaN or infinite. Check its mean, std and size, and that it was "
            f"exported in evaluation mode."
        )


def check_input(
    shape: list[int | None], *, channels: int, size: tuple[int, int], source: str, again: str
) -> None:
    """Whether a network in a file takes the images it will be given.

    Args:
        shape: of its input; None where any length will do.
        channels: of the images.
        size: height and width of the images.
        source: the file, for messages.
        again: how to export it with a batch of any length.

    Raises:
        BadInput: it takes other images, or batches of one length only.
    """
    wanted = f"(batch, {channels}, {size[0]}, {size[1]})"
    shown = "(" + ", ".join("any" if length is None else str(length) for length in shape) + ")"
    if len(shape) != 4 or shape[1] not in (None, channels):
        raise BadInput(
            f"{source} takes input of shape {shown}; the images are {wanted}. Export it for images like these; "
            f"data.channels brings images to 1 or 3 channels."
        )
    if any(length not in (None, side) for length, side in zip(shape[2:], size, strict=True)):
        own = ", ".join(
            str(side if length is None else length) for length, side in zip(shape[2:], size, strict=True)
        )
        raise BadInput(
            f"{source} takes input of shape {shown}; the images are {wanted}. Write size: [{own}] beside file: to have "
            f"them resized for it."
        )
    if shape[0] is not None:
        raise BadInput(
            f"{source} takes batches of {shape[0]} only; teaching needs batches of any length. Export it again: {again}"
        )
