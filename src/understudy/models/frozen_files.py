"""Teachers that are files: a network as ONNX or ``torch.export`` program, or an array of its logits."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from understudy.errors import BadInput, listed
from understudy.models.file_checks import content_of

if TYPE_CHECKING:
    from torch import nn

Format = Literal["onnx", "torch.export", "logits"]

FORMATS: dict[str, Format] = {".onnx": "onnx", ".pt2": "torch.export", ".npz": "logits"}
_WEIGHTS = (".safetensors", ".pt", ".pth", ".bin", ".ckpt")


def format_of(path: Path) -> Format:
    """What kind of teacher a file is, by its name's ending.

    Raises:
        BadInput: none of ``FORMATS``.

    >>> format_of(Path("teacher.onnx"))
    'onnx'
    """
    found = FORMATS.get(path.suffix.lower())
    if found is not None:
        return found
    possible = listed(f"{ending} ({what})" for ending, what in FORMATS.items())
    hint = ""
    if path.suffix.lower() in _WEIGHTS:
        hint = " Weights go with the name of their network: {name: resnet-56, weights: " + path.name + "}."
    raise BadInput(f"{path} is no teacher in a file; possible: {possible}.{hint}")


def open_network(
    path: Path, *, classes: int, channels: int, size: tuple[int, int], sha256: str | None = None
) -> nn.Module:
    """The network in an ONNX or ``torch.export`` file: a module from images to logits, checked on two grey images.

    Args:
        path: of the file.
        classes: that the data have.
        channels: of the images.
        size: height and width of the images that the network is given.
        sha256: see ``understudy.models.file_checks.content_of``.

    Returns:
        from ``(batch, channels, height, width)`` float32 to ``(batch, classes)`` float32.

    Raises:
        BadInput: the file cannot be read, holds what is not allowed (data in other files, operators of other makers),
            or the network does not fit these images and classes.
        MissingExtra: an ONNX file without the packages that it needs.
    """
    import torch

    content = content_of(path, sha256=sha256)
    fit = {"classes": classes, "channels": channels, "size": size}
    network: nn.Module
    if format_of(path) == "onnx":
        from understudy.models.onnx_files import OnnxNetwork

        network = OnnxNetwork(content, source=str(path), threads=torch.get_num_threads(), **fit)  # type: ignore[arg-type]
    elif format_of(path) == "torch.export":
        from understudy.models.exported_programs import ExportedNetwork

        network = ExportedNetwork(content, source=str(path), **fit)  # type: ignore[arg-type]
    else:
        raise BadInput(f"{path} holds logits, not a network that could look at images.")
    network.eval()
    with torch.no_grad():
        network(torch.zeros(2, channels, *size, device="cpu"))
    return network
