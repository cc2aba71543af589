"""What the kept outputs of finished stages say: no model is run and no test image looked at a second time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from understudy.errors import Damaged

if TYPE_CHECKING:
    from torch import Tensor

    from understudy.ladder.runner import Outcome
    from understudy.store import Store


def analysis(outcomes: Sequence[Outcome], *, store: Store, classes: int) -> dict[str, dict[str, Any]]:
    """Figures of each finished stage, by key.

    Args:
        outcomes: of a run; only finished ones are looked at.
        store: holds their outputs.
        classes: of the data.

    Returns:
        for each key ``ece`` (test), ``per_class`` (test accuracy of each class, None where it has no image), ``worst_class``
        (class number and accuracy), and for each teacher by name under ``teachers``: ``agreement`` (share of test
        images with the same answer), ``lost`` (test images that the teacher gets right and this model wrong),
        ``gained`` (the other way round), ``p`` (McNemar's exact test of the two), ``error_overlap`` (share of the
        teacher's errors that this model makes too; None where it makes none). An empty dictionary where the outputs
        are damaged or the test split is empty.
    """
    outputs: dict[str, Mapping[str, Tensor]] = {}
    found: dict[str, dict[str, Any]] = {}
    for outcome in outcomes:
        if outcome.state != "done" or outcome.result is None or outcome.job.key in found:
            continue
        try:
            for key, result in _needed(outcome, store).items():
                if key not in outputs:
                    outputs[key] = store.outputs(result)
        except Damaged:
            found[outcome.job.key] = {}
            continue
        found[outcome.job.key] = _of_stage(outcome, outputs, classes)
    return found


def _needed(outcome: Outcome, store: Store) -> dict[str, Any]:
    assert outcome.result is not None
    needed = {outcome.job.key: outcome.result}
    for teacher in outcome.job.teachers:
        result = store.result(teacher.key)
        if result is None:
            raise Damaged(f"stage {teacher.name} is gone")
        needed[teacher.key] = result
    return needed


def _of_stage(outcome: Outcome, outputs: Mapping[str, Mapping[str, Tensor]], classes: int) -> dict[str, Any]:
    from understudy.report.statistics import mcnemar
    from understudy.tasks.calibration import expected_calibration_error
    from understudy.tasks.comparison import (
        agreement,
        discordant,
        error_overlap,
        per_class_accuracy,
        worst_class,
    )

    own = outputs[outcome.job.key]
    test, labels = own["test"], own["test_labels"]
    if not len(labels):
        return {}
    per_class = per_class_accuracy(test, labels, classes=classes).tolist()
    teachers = {}
    for teacher in outcome.job.teachers:
        theirs = outputs[teacher.key]["test"]
        lost, gained = discordant(theirs, test, labels)
        teachers[teacher.name] = {
            "agreement": agreement(theirs, test),
            "lost": lost,
            "gained": gained,
            "p": mcnemar(lost, gained),
            "error_overlap": error_overlap(theirs, test, labels),
        }
    return {
        "ece": expected_calibration_error(test, labels),
        "per_class": [None if value != value else value for value in per_class],
        "worst_class": worst_class(test, labels, classes=classes),
        "teachers": teachers,
    }
