"""What the kept outputs of finished stages say: no model is run and no test image looked at a second time."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from understudy.errors import Damaged
from understudy.store.results import METRICS

if TYPE_CHECKING:
    from torch import Tensor

    from understudy.data.dataset import Dataset
    from understudy.ladder.runner import Outcome
    from understudy.store import Result, Store

MOST_POINTS = 100  # of a learning curve
MOST_EXAMPLES = 24  # of images that the student lost


class Analyst:
    """Looks at each finished stage once and remembers what it saw.

    Args:
        store: holds outputs and logs.
        dataset: its test images and class count.
        temperature: of the soft targets; None where nothing is taught by them.
    """

    def __init__(self, store: Store, dataset: Dataset, *, temperature: float | None = None) -> None:
        self.store, self.dataset, self.temperature = store, dataset, temperature
        self.seen: dict[str, dict[str, Any]] = {}

    def of(self, outcome: Outcome) -> dict[str, Any]:
        """Of one outcome: ``analysis``, ``warnings``, ``curve`` as in ``result.json``; empty where it is not finished.

        ``analysis`` has ``ece``, ``entropy`` (``temperature`` of the soft targets, and the mean of ``nats`` that this
        model's answers have at it: what they say, or would say, to a student beside the class), ``per_class`` (test
        accuracy of each class, None where it has no image), ``worst_class`` (number and accuracy) and ``teachers``, by name: ``agreement`` (share of test images with the
        same answer), ``lost`` (test images that the teacher gets right and this model wrong), ``gained`` (the other
        way round), ``p`` (McNemar's exact test of the two), ``error_overlap`` (share of the teacher's errors that this
        model makes too; None where it makes none). It is empty where outputs are damaged or there is no test image.
        """
        key, result = outcome.job.key, outcome.result
        if outcome.state != "done" or result is None:
            return {"analysis": {}, "warnings": [], "curve": []}
        if key not in self.seen:
            self.seen[key] = {
                "analysis": self._analysis(outcome, result),
                "warnings": list(result.record.get("warnings", [])),
                "curve": _curve(result),
            }
        return self.seen[key]

    def _analysis(self, outcome: Outcome, result: Result) -> dict[str, Any]:
        from understudy.tasks.calibration import entropy_of_targets, expected_calibration_error
        from understudy.tasks.comparison import per_class_accuracy, worst_class

        try:
            own = self.store.outputs(result)
            theirs = {job.name: self._outputs(job.key) for job in outcome.job.teachers}
        except Damaged:
            return {}
        test, labels = own["test"], own["test_labels"]
        if not len(labels):
            return {}
        classes = len(self.dataset.class_names)
        per_class = per_class_accuracy(test, labels, classes=classes).tolist()
        worst = worst_class(test, labels, classes=classes)
        entropy = None
        if self.temperature is not None:
            nats = entropy_of_targets(test, self.temperature).mean().item()
            entropy = {"temperature": self.temperature, "nats": nats}
        return {
            "ece": expected_calibration_error(test, labels),
            "entropy": entropy,
            "per_class": [None if value != value else value for value in per_class],
            "worst_class": None if worst is None else list(worst),
            "teachers": {name: _against(outputs["test"], test, labels) for name, outputs in theirs.items()},
        }

    def _outputs(self, key: str) -> dict[str, Tensor]:
        result = self.store.result(key)
        if result is None:
            raise Damaged(f"stage {key} is gone")
        return self.store.outputs(result)

    def closing(self, outcomes: Sequence[Outcome], chosen: Outcome) -> dict[str, Any]:
        """Once a run is done: ``lost_examples`` and ``students_compared`` as in ``result.json``.

        Args:
            outcomes: of the run.
            chosen: the delivered one.
        """
        from understudy.report.statistics import mcnemar
        from understudy.report.summary import AGAINST
        from understudy.tasks.comparison import discordant

        said: dict[str, Any] = {"lost_examples": [], "students_compared": None}
        try:
            own = self._outputs(chosen.job.key)
            if chosen.job.teachers:
                said["lost_examples"] = self._lost(own, self._outputs(chosen.job.teachers[0].key))
            for other in outcomes:
                if other.job.name == AGAINST != chosen.job.name and other.job.seed == chosen.job.seed:
                    theirs = self._outputs(other.job.key)
                    first, second = discordant(own["test"], theirs["test"], own["test_labels"])
                    said["students_compared"] = {
                        "first": chosen.job.name,
                        "second": AGAINST,
                        "seed": chosen.job.seed,
                        "only_first": first,
                        "only_second": second,
                        "p": mcnemar(first, second),
                    }
        except Damaged:
            pass
        return said

    def _lost(self, own: Mapping[str, Tensor], teacher: Mapping[str, Tensor]) -> list[dict[str, Any]]:
        from understudy.tasks.comparison import lost

        labels = own["test_labels"]
        if not len(labels):
            return []
        shown = lost(teacher["test"], own["test"], labels)[:MOST_EXAMPLES]
        pixels = self.dataset.test.images.fetch(shown.numpy())
        return [
            {
                "index": int(index),
                "label": int(labels[index]),
                "answer": int(own["test"][index].argmax()),
                "teacher": int(teacher["test"][index].argmax()),
                "png": _png(image),
            }
            for index, image in zip(shown, pixels, strict=True)
        ]


def _against(teacher: Tensor, test: Tensor, labels: Tensor) -> dict[str, Any]:
    from understudy.report.statistics import mcnemar
    from understudy.tasks.comparison import agreement, discordant, error_overlap

    only_teacher, only_student = discordant(teacher, test, labels)
    return {
        "agreement": agreement(teacher, test),
        "lost": only_teacher,
        "gained": only_student,
        "p": mcnemar(only_teacher, only_student),
        "error_overlap": error_overlap(teacher, test, labels),
    }


def _curve(result: Result) -> list[dict[str, Any]]:
    """Loss and validation accuracy by epoch, thinned to ``MOST_POINTS``, the last epoch always among them."""
    try:
        lines = [json.loads(line) for line in (result.folder / METRICS).read_text("utf-8").splitlines()]
    except (OSError, ValueError):
        return []
    step = max(1, -(-len(lines) // MOST_POINTS))
    kept = lines[::-1][::step][::-1]
    return [
        {
            "epoch": line.get("epoch"),
            "loss": line.get("loss", {}).get("total"),
            "accuracy": line.get("validation", {}).get("accuracy"),
        }
        for line in kept
    ]


def _png(image: Any) -> str:
    """``(height, width, channels)`` uint8 as a PNG in base64."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image).save(buffer, format="PNG")
    return base64.b64encode(buffer.getvalue()).decode("ascii")
