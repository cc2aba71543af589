"""The student as a step shows it to a method: answers, what its layers give, parts of it on a batch's images."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

from torch import Tensor, nn

from understudy.data.batches import Batch
from understudy.models.features import Features
from understudy.models.preprocessing import Preprocessing


class Student:
    """Runs the network that is taught, in the stage's precision, and remembers what it answered in this step.

    Args:
        model: the student.
        preprocessing: of its images.
        autocast: the stage's number format.
        features: names of the layers whose outputs a method looks at.

    Attributes:
        answers: batches of this step with the logits ``(batch, classes)`` float32 that were answered.

    Raises:
        BadInput: there is no layer of such a name.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        preprocessing: Preprocessing,
        autocast: Callable[[], AbstractContextManager[object]],
        features: Sequence[str] = (),
    ) -> None:
        self.model, self.preprocessing, self.autocast = model, preprocessing, autocast
        self.capture = Features(model, features) if features else None
        self.answers: list[tuple[Batch, Tensor]] = []

    def __call__(self, batch: Batch) -> Tensor:
        """Logits ``(batch, classes)`` float32."""
        output: Tensor = self.run(self.model, batch).float()
        self.answered(batch, output)
        return output

    def with_features(self, batch: Batch) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Logits, and what the named layers gave, float32."""
        assert self.capture is not None, "the method asked for no features"
        output, found = self.run(self.capture, batch)
        self.answered(batch, output.float())
        return output.float(), {name: value.float() for name, value in found.items()}

    def run(self, function: Callable[[Tensor], Any], batch: Batch) -> Any:
        """What a function gives for a batch's images as the student takes them."""
        with self.autocast():
            return function(self.preprocessing(batch.pixels))

    def answered(self, batch: Batch, logits: Tensor) -> None:
        """Notes an answer."""
        self.answers.append((batch, logits))

    def close(self) -> None:
        """Leaves the network as it was."""
        if self.capture is not None:
            self.capture.close()
