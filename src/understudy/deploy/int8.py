"""The int8 form of a student, proved on the validation set: as many layers in integers as its accuracy bears."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from understudy.deploy.int8_static import Quantised, quantised
from understudy.deploy.onnx_answers import answers
from understudy.deploy.sensitivity import LayerChange, Score, Try, keep_until, layer_changes
from understudy.errors import BadInput, listed
from understudy.store import files

MAX_DROP = 0.5  # percentage points of accuracy that int8 may cost
MAX_DIFFERING = 5.0  # percent of images that it may classify otherwise than the float network
MOST_FLOAT = 8  # layers that are left in float at most
_BATCH = 64

__all__ = ["MAX_DIFFERING", "MAX_DROP", "Int8Result", "Quantised", "TooMuchLost", "int8_of", "quantised"]


class TooMuchLost(BadInput):
    """No int8 file is good enough; the message has the best one's accuracy."""


@dataclass(frozen=True, kw_only=True)
class Int8Result:
    """An int8 file, and how it compares with the float one.

    Attributes:
        file: what was written.
        float_accuracy: a fraction of the validation images. float_bytes: size of the float file.
        score: of the int8 file.
        tries: every file that was tried, the first with all layers in int8, the last the one that was written.
        ranking: layers by sensitivity, the worst first; empty where all layers could be in int8.
    """

    file: Quantised
    float_accuracy: float
    float_bytes: int
    score: Score
    tries: tuple[Try, ...]
    ranking: tuple[LayerChange, ...]

    def row(self) -> dict[str, float | int | str]:
        """A row of the deploy table: accuracy a fraction, size in bytes."""
        return {"name": "int8 after training", "accuracy": self.score.accuracy, "bytes": self.file.bytes}

    def sentence(self) -> str:
        """What was done, for the person at the keyboard."""
        gained = 100.0 * (self.score.accuracy - self.float_accuracy)
        kept = self.file.kept_float
        how = (
            f"{len(kept)} of {len(kept) + len(self.file.layers)} layers stay in float32"
            if kept
            else "all layers"
        )
        small = " So small a network is no smaller in int8." if self.file.bytes >= self.float_bytes else ""
        why = f" ({_named(self.ranking, kept)})" if kept else ""
        return (
            f"int8: {how}{why}; accuracy {100.0 * self.score.accuracy:.2f} %, float32 "
            f"{100.0 * self.float_accuracy:.2f} % ({gained:+.2f} points); {self.score.differing} of "
            f"{self.score.images} answers differ; {self.file.bytes} bytes, float32 {self.float_bytes}.{small}"
        )


def int8_of(
    float_onnx: Path,
    target: Path,
    *,
    calibration_images: Iterable[np.ndarray],
    validation_images: Iterable[np.ndarray],
    labels: np.ndarray,
    max_drop: float = MAX_DROP,
    most_float: int = MOST_FLOAT,
    weight_bits: int = 8,
) -> Int8Result:
    """Quantises a float ONNX file; where that costs too much, leaves the most sensitive layers in float.

    Good enough is a file that loses at most ``max_drop`` points of accuracy and classifies at most ``MAX_DIFFERING``
    percent of the validation images otherwise than the float file, at least one image being allowed for each. These
    two are our choice, not a rule of the field.

    Args:
        float_onnx: as ``write_onnx`` writes it.
        target: the int8 file, written whole; nothing is left under this name where an error is raised, no older file
            either, which would be taken for the new one.
        calibration_images: batches ``(batch, channels, height, width)`` float32 of training images as the file takes
            them, some hundred images: ``SplitImages``, a list, or one array. They are gone through more than once.
        validation_images: likewise, all of the validation set.
        labels: ``(images,)``, the class of each validation image, -1 for those without.
        max_drop: in percentage points, 0 to 100.
        most_float: how many layers may stay in float; each costs one more quantisation and validation.
        weight_bits: see ``quantised``.

    Raises:
        BadInput: no images, or a ``max_drop`` that is none.
        TooMuchLost: no file is good enough with ``most_float`` layers in float.
        MissingExtra: onnx or onnxruntime are not installed.
        CannotWrite: no space or right to write.
    """
    if not 0 <= max_drop <= 100:
        raise BadInput(f"max_drop is a number of percentage points, 0 to 100, got {max_drop}")
    done = False
    try:
        result, content = _searched(
            float_onnx,
            target,
            calibrated_on=_repeatable(calibration_images),
            asked=_repeatable(validation_images),
            labels=labels,
            max_drop=max_drop,
            most_float=most_float,
            weight_bits=weight_bits,
        )
        files.write_bytes(target, content)
        done = True
    finally:
        if not done:
            target.unlink(missing_ok=True)
    return result


def _searched(
    float_onnx: Path,
    target: Path,
    *,
    calibrated_on: Iterable[np.ndarray],
    asked: Iterable[np.ndarray],
    labels: np.ndarray,
    max_drop: float,
    most_float: int,
    weight_bits: int,
) -> tuple[Int8Result, bytes]:
    expected = answers(float_onnx, asked).argmax(1)
    if len(labels) != len(expected):
        raise BadInput(
            f"there are {len(expected)} validation images and {len(labels)} labels: give one for each"
        )
    correct, labelled = int((expected == labels).sum()), int((labels >= 0).sum())
    if not labelled:
        raise BadInput(
            "no validation image has a label, so int8 cannot be compared with float32: give labelled ones"
        )
    lost, differing = _allowed(max_drop, labelled), _allowed(MAX_DIFFERING, len(labels))

    def good(score: Score) -> bool:
        return correct - score.correct <= lost and score.differing <= differing

    with files.explained(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=files.PART) as folder:
            trial = Path(folder) / "int8.onnx"
            made: list[Quantised] = []

            def attempt(kept: tuple[str, ...]) -> Score:
                made.append(
                    quantised(float_onnx, trial, calibrated_on, keep_float=kept, weight_bits=weight_bits)
                )
                found = answers(trial, asked).argmax(1)
                return Score(
                    correct=int((found == labels).sum()),
                    labelled=labelled,
                    differing=int((found != expected).sum()),
                    images=len(labels),
                )

            tries = [Try(kept_float=(), score=attempt(()))]
            ranking: list[LayerChange] = []
            if not good(tries[0].score):
                ranking = layer_changes(float_onnx, trial, calibrated_on)
                tries += keep_until(ranking, attempt, good, most=min(most_float, len(ranking) - 1))
            if not good(tries[-1].score):
                raise TooMuchLost(_too_much(tries, ranking, correct, max_drop))
            content = trial.read_bytes()
    result = Int8Result(
        file=replace(made[-1], path=target),
        float_accuracy=correct / labelled,
        float_bytes=float_onnx.stat().st_size,
        score=tries[-1].score,
        tries=tuple(tries),
        ranking=tuple(ranking),
    )
    return result, content


def _repeatable(images: Iterable[np.ndarray]) -> Iterable[np.ndarray]:
    """Batches that can be gone through again."""
    if isinstance(images, np.ndarray):
        return [images[start : start + _BATCH] for start in range(0, len(images), _BATCH)]
    return list(images) if isinstance(images, Iterator) else images


def _allowed(percent: float, count: int) -> int:
    """Images; of a small set one may always be another."""
    return max(1, int(count * percent / 100.0))


def _named(ranking: Sequence[LayerChange], kept: Sequence[str]) -> str:
    """The layers of ``kept`` and what rounding each does."""
    return listed(f"{one.layer}: {one.change:.3g} nats" for one in ranking if one.layer in kept)


def _too_much(tries: Sequence[Try], ranking: Sequence[LayerChange], correct: int, max_drop: float) -> str:
    best = max(tries, key=lambda one: (one.score.correct, -one.score.differing))
    images, labelled = best.score.images, best.score.labelled
    tried = f" even with {len(tries[-1].kept_float)} layers in float32" if len(tries) > 1 else ""
    return (
        f"int8 costs too much accuracy{tried}: at best {100.0 * best.score.accuracy:.2f} % and "
        f"{best.score.differing} of {images} answers that differ, float32 {100.0 * correct / labelled:.2f} %; allowed "
        f"are {max_drop:g} points and {MAX_DIFFERING:g} %. Allow more with --max-drop, or distil the student as int8 "
        f"(quantise: in its recipe). Most sensitive: {_named(ranking[:3], [one.layer for one in ranking])}."
    )
