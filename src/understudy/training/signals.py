"""What of a teacher's answer is kept, and what a student gets back: the same, whether it was kept or said just now."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from understudy.errors import BadInput, StageFailed

if TYPE_CHECKING:
    from torch import Tensor

VERSION = 1
"""Belongs in every key that teachers' answers decide: it rises when the same teacher would be heard differently."""

DTYPES = ("float16", "float32")
_LARGEST = 65504.0  # of float16


@dataclass(frozen=True, kw_only=True)
class Signals:
    """How teachers' logits are kept. Live teachers are heard in just the same way.

    Logits are kept less their mean over the classes, which softmax does not see.

    Attributes:
        dtype: ``float16`` (rounds by at most 1/2048 of a value) or ``float32``.
        top_k: keep only so many of the largest logits of a sample, with their classes, and what remains as one
            number: the other classes share the remaining probability (at temperature 1) evenly. At other
            temperatures their true shares differ, which is the error of this form. None: all are kept.
        max_gb: gigabytes (1e9 bytes) that all signals in the store may take together; for what does not fit teachers
            answer live. None: whatever the disk has, but for its last hundredth.

    Raises:
        BadInput: a value is outside its range.
    """

    dtype: Literal["float16", "float32"] = "float16"
    top_k: int | None = None
    max_gb: float | None = None

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise BadInput(f"signals.dtype {self.dtype!r} is none of {', '.join(DTYPES)}.")
        if self.top_k is not None and (
            isinstance(self.top_k, bool) or not isinstance(self.top_k, int) or self.top_k < 1
        ):
            raise BadInput(
                f"signals.top_k is {self.top_k!r}: it must be a whole number from 1 up, or null for all classes."
            )
        if self.max_gb is not None and not (
            isinstance(self.max_gb, int | float)
            and not isinstance(self.max_gb, bool)
            and 0 <= self.max_gb < math.inf
        ):
            raise BadInput(
                f"signals.max_gb is {self.max_gb!r}: it must be a number of 0 or more, or null for no bound of its own."
            )

    def check(self, *, classes: int) -> None:
        """Raises BadInput where more of the largest logits are asked for than there are classes."""
        if self.top_k is not None and self.top_k > classes:
            raise BadInput(
                f"signals.top_k is {self.top_k} and there are {classes} classes: it can be 1 to {classes}."
            )

    def _largest(self, classes: int) -> int | None:
        return self.top_k if self.top_k is not None and self.top_k < classes else None

    def definition(self, *, classes: int) -> dict[str, Any]:
        """What of it decides results; ``max_gb`` does not."""
        said: dict[str, Any] = {"version": VERSION, "dtype": self.dtype}
        largest = self._largest(classes)
        return said if largest is None else {**said, "top_k": largest}

    def row_bytes(self, *, classes: int) -> int:
        """Bytes of one sample."""
        number = 2 if self.dtype == "float16" else 4
        largest = self._largest(classes)
        if largest is None:
            return number * classes
        return largest * (number + (2 if classes <= 2**15 else 4)) + number

    def encode(self, logits: Tensor) -> dict[str, Tensor]:
        """What is kept of ``logits`` ``(batch, classes)``; each row by itself, whatever stands beside it.

        Returns:
            ``logits`` ``(batch, classes)``; or with ``top_k`` ``largest`` and ``classes`` ``(batch, top_k)`` and
            ``others`` ``(batch,)``, the logit of each of the other classes.

        Raises:
            StageFailed: a logit is not a finite number.
        """
        import torch

        check_finite(bool(torch.isfinite(logits).all()))
        return self.rounded(logits)

    def rounded(self, logits: Tensor) -> dict[str, Tensor]:
        """As ``encode``, where somebody else sees to it that the logits are finite."""
        import torch

        number = torch.float16 if self.dtype == "float16" else torch.float32
        # in float64, so that no order of summation can be seen in float32
        exact = logits.double()
        centred = exact - exact.mean(dim=1, keepdim=True)

        def stored(values: Tensor) -> Tensor:
            return (values.clamp(-_LARGEST, _LARGEST) if number == torch.float16 else values).to(number)

        largest = self._largest(logits.shape[1])
        if largest is None:
            return {"logits": stored(centred)}
        values, classes = centred.topk(largest, dim=1)
        rest = centred.scatter(1, classes, -math.inf).logsumexp(dim=1) - math.log(logits.shape[1] - largest)
        index = torch.int16 if logits.shape[1] <= 2**15 else torch.int32
        return {"largest": stored(values), "classes": classes.to(index), "others": stored(rest)}

    def decode(self, kept: Mapping[str, Tensor], *, classes: int) -> Tensor:
        """Logits ``(batch, classes)`` float32, less their mean up to rounding, from what ``encode`` gave."""
        if "logits" in kept:
            return kept["logits"].float()
        row = kept["others"].float().unsqueeze(1).expand(-1, classes)
        return row.scatter(1, kept["classes"].long(), kept["largest"].float())


def check_finite(finite: bool) -> None:
    """Raises StageFailed unless all that a teacher answered is."""
    if not finite:
        raise StageFailed(
            "a teacher answers with numbers that are not finite. Train or choose it anew; try training.precision: fp32."
        )
