"""A student into a file: written under another name, proved on real images, then given its own name."""

from __future__ import annotations

import contextlib
import platform
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from understudy import __version__
from understudy.data.dataset import Split
from understudy.deploy.capture import IMAGES, LOGITS
from understudy.deploy.executorch_export import require_executorch, write_executorch
from understudy.deploy.onnx_export import OPSET, write_onnx
from understudy.deploy.onnx_sessions import onnxruntime_version
from understudy.deploy.parity import Parity, demanded
from understudy.deploy.student import Student
from understudy.deploy.targets import check_target, require_onnx
from understudy.deploy.torch_export import write_torch
from understudy.store import files

VERSION = 1  # of the file beside
_WRITERS: dict[str, Callable[..., None]] = {
    "onnx": write_onnx,
    "torch": write_torch,
    "executorch": write_executorch,
}
_PACKAGES = {
    "onnx": ("torch", "onnx", "onnxscript"),
    "torch": ("torch",),
    "executorch": ("torch", "executorch"),
}


@dataclass(frozen=True, kw_only=True)
class Exported:
    """A student's file.

    Attributes:
        path: of the file.
        beside: the JSON that says what the file takes and gives.
        bytes: of the file.
        weights_bytes: of the weights that it was made from.
        parity: with the student on real images; None: it was not asked for.
    """

    path: Path
    beside: Path
    bytes: int
    weights_bytes: int
    parity: Parity | None


def check_packages(to: str, *, prove: bool) -> None:
    """Raises MissingExtra where what writes a file (and, to ``prove`` it, runs it) is not installed."""
    if to == "onnx":
        require_onnx()
        if prove:
            onnxruntime_version()
    elif to == "executorch":
        require_executorch()


def export(
    student: Student,
    out: Path,
    *,
    to: str,
    split: Split | None,
    part: str = "validation",
    with_preprocessing: bool = False,
) -> Exported:
    """Writes the student alone, and what an engineer has to know of it beside it.

    The file appears under its name when it is whole and, given a ``split``, has answered it as the student does. After
    an export that failed there is no file of this name, an older one neither: it would be taken for the new one.

    Args:
        student: of a run.
        out: the file; ``out`` and ``.json`` is what stands beside it.
        to: ``onnx``, ``torch`` or ``executorch``.
        split: real images; None: parity is not looked at.
        part: what the split is: ``validation`` or ``test``.
        with_preprocessing: the file takes pixels, float32 0 to 255, in the images' own size.

    Raises:
        BadInput: an unknown target, a file with another ending, a folder; and see the writers.
        MissingExtra: what writes the file, or runs it, is not installed.
        NotAlike: the file answers otherwise than the student; the first layer is named where they part.
        CannotWrite: no space or right to write.
    """
    check_target(to, out)
    check_packages(to, prove=split is not None)
    beside = out.with_name(f"{out.name}.json")
    part_file = out.with_name(f"{files.PART}{uuid.uuid4().hex}-{out.name}")
    preprocessing = student.preprocessing if with_preprocessing else None
    size = student.image if with_preprocessing else student.size
    done = False
    try:
        _WRITERS[to](
            student.model,
            part_file,
            channels=student.channels,
            size=size,
            preprocessing=preprocessing,
            class_names=student.class_names,
        )
        proved = None
        if split is not None:
            proved = demanded(
                student.model,
                part_file,
                split,
                preprocessing=student.preprocessing,
                classes=len(student.class_names),
                inside=with_preprocessing,
                part=part,
                source=str(out),
            )
        said = described(student, part_file, to=to, inside=with_preprocessing, parity=proved)
        with files.explained(out):
            part_file.replace(out)
        files.write_json(beside, {**said, "file": out.name})
        done = True
    finally:
        for leftover in (part_file,) if done else (part_file, out, beside):
            with contextlib.suppress(OSError):
                leftover.unlink(missing_ok=True)
    return Exported(
        path=out,
        beside=beside,
        bytes=out.stat().st_size,
        weights_bytes=student.weights.stat().st_size,
        parity=proved,
    )


def described(
    student: Student, path: Path, *, to: str, inside: bool, parity: Parity | None
) -> dict[str, Any]:
    """What whoever runs a file has to know of it, as plain JSON.

    Args:
        path: of the file, whole.
        inside: its preprocessing is a part of it.
        parity: what was found out about it, if anything.
    """
    height, width = student.image if inside else student.size
    known, batch = student.preprocessing, 1 if to == "executorch" else "batch"
    resize = None if known.size in (None, student.image) else known.size
    outside = [f"resize to {resize[0]} x {resize[1]} (bilinear, antialiased)"] if resize else []
    outside += ["/ 255", "- mean", "/ std, per channel"]
    return {
        "version": VERSION,
        "file": path.name,
        "format": to,
        **({"opset": OPSET} if to == "onnx" else {}),
        "bytes": path.stat().st_size,
        "sha256": files.sha256_of_file(path),
        "input": {
            "name": IMAGES,
            "shape": [batch, student.channels, height, width],
            "type": "float32",
            "range": "pixels, 0 to 255" if inside else "normalised, see preprocessing",
            "channels": "red, green, blue" if student.channels == 3 else "grey",
        },
        "output": {
            "name": LOGITS,
            "shape": [batch, len(student.class_names)],
            "type": "float32",
            "meaning": "logits; the largest is the answer, softmax makes probabilities of them",
        },
        "preprocessing": {
            "inside": inside,
            "image": list(student.image),
            "mean": list(known.mean),
            "std": list(known.std),
            "size": list(resize) if resize else None,
            "left_to_do": [] if inside else ["pixels 0 to 255", *outside],
        },
        "class_names": list(student.class_names),
        "student": {
            key: student.card.get(key)
            for key in (
                "name",
                "stage",
                "seed",
                "key",
                "parameters",
                "multiply_adds",
                "validation",
                "test",
                "weights",
            )
        },
        "batch_norm": "folded into the layers before, where that changes nothing",
        "parity": parity and parity.as_dict(),
        "versions": {"understudy": __version__, "python": platform.python_version(), **_versions(to)},
    }


def _versions(to: str) -> dict[str, str]:
    found = {}
    for package in _PACKAGES[to]:
        try:
            found[package] = version(package)
        except PackageNotFoundError:  # vendored, or put on the path by hand
            continue
    return found
