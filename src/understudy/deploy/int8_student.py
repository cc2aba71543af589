"""The int8 file of a run's student, beside its float one: calibrated on its training images, proved on real ones."""

from __future__ import annotations

import contextlib
from dataclasses import asdict
from pathlib import Path

from understudy.data.dataset import Split
from understudy.deploy.calibration import IMAGES, SplitImages
from understudy.deploy.export import described
from understudy.deploy.int8 import MAX_DROP, Int8Result, int8_of
from understudy.deploy.student import Student
from understudy.errors import BadInput
from understudy.store import files


def int8_path(float_onnx: Path) -> Path:
    """Where the int8 form of a file goes.

    >>> int8_path(Path("runs/a/student.onnx")).name
    'student.int8.onnx'
    """
    return float_onnx.with_name(f"{float_onnx.stem}.int8.onnx")


def int8_beside(
    student: Student,
    float_onnx: Path,
    *,
    train: Split,
    split: Split,
    inside: bool = False,
    max_drop: float = MAX_DROP,
    calibration: int = IMAGES,
    may_choose: bool = True,
) -> Int8Result:
    """Quantises an exported student after training, and writes what an engineer has to know of it beside it.

    Args:
        student: that the file was made from.
        float_onnx: the file.
        train: images to calibrate on.
        split: images to prove it on.
        inside: the file takes pixels, as its preprocessing is a part of it.
        max_drop: points of accuracy that it may cost.
        calibration: how many training images are used.
        may_choose: ``split`` may decide which layers stay in float; not so where it is the test split.

    Raises:
        BadInput: no images to calibrate on, or a number of them or of points that is none.
        TooMuchLost: of accuracy; no file is left then.
        MissingExtra: onnx or onnxruntime are not installed.
        CannotWrite: no space or right to write.
    """
    if calibration < 1:
        raise BadInput(f"--calibration is a number of training images, 1 or more; got {calibration}.")
    target = int8_path(float_onnx)
    beside = target.with_name(f"{target.name}.json")
    with contextlib.suppress(OSError):
        beside.unlink(missing_ok=True)
    proving = SplitImages(split, student.preprocessing, inside=inside)
    found = int8_of(
        float_onnx,
        target,
        calibration_images=SplitImages(train, student.preprocessing, most=calibration, inside=inside),
        validation_images=proving,
        labels=proving.labels,
        max_drop=max_drop,
        **({} if may_choose else {"most_float": 0}),
    )
    said = described(student, target, to="onnx", inside=inside, parity=None)
    kept = {"int8_layers": list(found.file.layers), "float_layers": list(found.file.kept_float)}
    score = {**asdict(found.score), "accuracy": found.score.accuracy, "float_accuracy": found.float_accuracy}
    files.write_json(beside, {**said, "int8": {"calibration_images": found.file.images, **kept, **score}})
    return found
