"""Whether an exported file answers real images as the student does."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from understudy.data.batches import batch_of, batches, plain_order
from understudy.data.dataset import Split
from understudy.data.views import PLAIN
from understudy.deploy.first_parting import TOLERANCE, first_parting
from understudy.deploy.runs import Run, opened
from understudy.errors import BadInput, UnderstudyError
from understudy.models.preprocessing import Preprocessing
from understudy.tasks import Classification

TIE = 1e-4
"""Logits nearer than this share of an image's largest one are equal: float32 sums in another order differ by less."""
SHARE = 0.001
"""Of the images, how many may be answered otherwise; one may always be."""
_BATCH = 256
_SHOWN = 16  # images that are kept as examples, by which the layer is found where they part


class NotAlike(UnderstudyError):
    """An exported file answers otherwise than the student that it was made from."""


@dataclass(frozen=True, kw_only=True)
class Parity:
    """A file beside the student that it was made from, on real images.

    Attributes:
        images: how many were answered.
        part: of the data: ``validation`` or ``test``.
        differing: answers that are another class than the student's, ties apart.
        ties: answers that are another class, which the student holds to be just as likely (see ``TIE``).
        allowed: how many may differ.
        accuracy: of the student, as a fraction.
        file_accuracy: of the file.
        largest_difference: of two logits of the same image and class; infinite where the file gives NaN.
        examples: positions of the first images that are answered otherwise.
    """

    images: int
    part: str
    differing: int
    ties: int
    allowed: int
    accuracy: float
    file_accuracy: float
    largest_difference: float
    examples: tuple[int, ...]

    @property
    def holds(self) -> bool:
        """Whether no more answers differ than may."""
        return self.differing <= self.allowed

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON; an infinite difference, which JSON lacks, is null."""
        finite = math.isfinite(self.largest_difference)
        return {**asdict(self), "largest_difference": self.largest_difference if finite else None}


def compare(
    student: Tensor, file: Tensor, labels: Tensor, *, part: str = "validation", share: float = SHARE
) -> Parity:
    """Compares two sets of logits ``(images, classes)`` of the same images, the student's being the measure.

    An answer that differs is a tie where the student's logit for it is as good as its largest one: nearer to that than
    ``TIE`` times the largest magnitude of the image's logits. Logits that are no finite numbers are never a tie.

    Args:
        labels: ``(images,)``, -1 for unlabelled images, which count in no accuracy.
        share: of the images may differ; one always may.

    >>> same = torch.tensor([[2.0, 1.0], [0.0, 3.0]])
    >>> compare(same, same.flip(1), torch.tensor([0, 1])).differing
    2
    """
    finite = torch.isfinite(file).all(-1)
    theirs = torch.where(finite, file.nan_to_num().argmax(-1), -1)
    other = theirs != student.argmax(-1)
    given = student.gather(-1, theirs.clamp(min=0).unsqueeze(-1)).squeeze(-1)
    near = student.max(-1).values - given <= TIE * student.abs().max(-1).values
    ties = other & near & finite
    labelled = labels >= 0
    metrics = [
        Classification().metrics(logits[labelled], labels[labelled])
        for logits in (student, _as_answers(file, theirs))
    ]
    return Parity(
        images=len(labels),
        part=part,
        differing=int((other & ~ties).sum()),
        ties=int(ties.sum()),
        allowed=max(1, int(share * len(labels))),
        accuracy=metrics[0].get("accuracy", 0.0),
        file_accuracy=metrics[1].get("accuracy", 0.0),
        largest_difference=float((student - file).abs().max()) if bool(finite.all()) else math.inf,
        examples=tuple((other & ~ties).nonzero().flatten().tolist()[:_SHOWN]),
    )


def _as_answers(logits: Tensor, answers: Tensor) -> Tensor:
    """``logits``; rows with NaN, which answer nothing, become zeros but for a class that is nobody's label."""
    if bool((answers >= 0).all()):
        return logits
    wide = torch.nn.functional.pad(logits.nan_to_num(), (0, 1), value=float(torch.finfo(torch.float32).min))
    wide[answers < 0] = torch.nn.functional.one_hot(torch.tensor(wide.shape[1] - 1), wide.shape[1]).float()
    return wide


def parity(
    model: nn.Module,
    path: Path,
    split: Split,
    *,
    preprocessing: Preprocessing,
    classes: int,
    inside: bool = False,
    part: str = "validation",
    share: float = SHARE,
    threads: int = 1,
    source: str = "",
) -> Parity:
    """Answers every image of a split with the student and with the file, and compares.

    Args:
        model: the float32 student, in eval mode, on the CPU, not folded.
        path: the file; its ending says what runs it.
        split: plain views of it are answered.
        preprocessing: the student's.
        classes: of the student.
        inside: the file takes pixels, as its preprocessing is a part of it.
        part: what the split is.
        share: see ``compare``.
        threads: of onnxruntime.
        source: what to call the file in messages.

    Raises:
        BadInput: an empty split, or a file that cannot be run on these images or answers for other classes.
        MissingExtra: what runs the file is not installed.
    """
    run = _opened(
        path,
        split,
        preprocessing=preprocessing,
        classes=classes,
        inside=inside,
        threads=threads,
        source=source,
    )
    ours, theirs = [], []
    for batch in batches(split, PLAIN, plain_order(len(split), _BATCH)):
        with torch.no_grad():
            images = preprocessing(batch.pixels)
            ours.append(model(images).float())
        theirs.append(run(batch.pixels.float() if inside else images))
    labels = torch.from_numpy(split.labels.copy())
    return compare(torch.cat(ours), torch.cat(theirs), labels, part=part, share=share)


def demanded(
    model: nn.Module,
    path: Path,
    split: Split,
    *,
    preprocessing: Preprocessing,
    classes: int,
    inside: bool = False,
    part: str = "validation",
    share: float = SHARE,
    threads: int = 1,
    source: str = "",
    tolerance: float = TOLERANCE,
) -> Parity:
    """As ``parity``, and refuses a file of which more answers differ than may.

    Args:
        tolerance: see ``understudy.deploy.first_parting``.

    Raises:
        NotAlike: parity does not hold; the first layer is named where student and file part.
    """
    said: dict[str, Any] = {"preprocessing": preprocessing, "classes": classes, "inside": inside}
    said |= {"threads": threads, "source": source or str(path)}
    found = parity(model, path, split, part=part, share=share, **said)
    if found.holds:
        return found
    pixels = batch_of(split, PLAIN, np.array(found.examples)).pixels.float()
    parting = first_parting(
        model,
        _opened(path, split, **said),
        pixels if inside else preprocessing(pixels),
        preprocessing=preprocessing if inside else None,
        tolerance=tolerance,
    )
    raise NotAlike(
        f"{said['source']} answers {found.differing} of {found.images} {part} images otherwise than the student; "
        f"{found.allowed} may differ. {parting}"
    )


def _opened(
    path: Path,
    split: Split,
    *,
    preprocessing: Preprocessing,
    classes: int,
    inside: bool,
    threads: int,
    source: str,
) -> Run:
    if not len(split):
        raise BadInput("there are no images to compare the file and the student on.")
    height, width, channels = split.images.fetch(np.zeros(1, dtype=np.int64)).shape[1:]
    size = (height, width) if inside else preprocessing.size or (height, width)
    return opened(path, classes=classes, channels=channels, size=size, threads=threads, source=source)
