from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from understudy.errors import BadInput
from understudy.report.statistics import mcnemar
from understudy.tasks import Classification
from understudy.tasks.comparison import (
    agreement,
    discordant,
    error_overlap,
    gained,
    lost,
    per_class_accuracy,
    worst_class,
)

CLASSES = 4


def answering(answers: list[int], *, classes: int = CLASSES) -> Tensor:
    """Logits whose highest is that of ``answers``."""
    return 2 * torch.eye(classes)[torch.tensor(answers, dtype=torch.int64)] - 1


# ten samples: both right 0 1 2, only the teacher 3 4, only the student 5, both wrong 6 7 (the same way) 8 9 (not)
LABELS = torch.tensor([0, 1, 2, 3, 0, 1, 2, 3, 0, 1])
TEACHER = answering([0, 1, 2, 3, 0, 2, 1, 1, 1, 0])
STUDENT = answering([0, 1, 2, 0, 3, 1, 1, 1, 2, 3])

triple = st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(0, 3))
samples = st.lists(triple, max_size=30)
some_samples = st.lists(triple, min_size=1, max_size=30)


def taken_apart(drawn: list[tuple[int, int, int]]) -> tuple[Tensor, Tensor, Tensor]:
    first, second, labels = (list(part) for part in zip(*drawn, strict=True)) if drawn else ([], [], [])
    return answering(first), answering(second), torch.tensor(labels, dtype=torch.int64)


def test_the_ten_samples_by_hand() -> None:
    assert agreement(TEACHER, STUDENT) == 0.5  # 0 1 2 6 7
    assert lost(TEACHER, STUDENT, LABELS).tolist() == [3, 4]
    assert gained(TEACHER, STUDENT, LABELS).tolist() == [5]
    assert discordant(TEACHER, STUDENT, LABELS) == (2, 1)
    # the teacher errs on 5 6 7 8 9, the student as well on all of these but 5
    assert error_overlap(TEACHER, STUDENT, LABELS) == 0.8
    # the student errs on 3 4 6 7 8 9, the teacher as well on four of these six
    assert error_overlap(STUDENT, TEACHER, LABELS) == pytest.approx(4 / 6)
    # of class 0 the student has 0 of 0 4 8, of class 1 1 5 of 1 5 9, of class 2 2 of 2 6, of class 3 none of 3 7
    assert per_class_accuracy(STUDENT, LABELS, classes=4).tolist() == pytest.approx([1 / 3, 2 / 3, 1 / 2, 0])
    assert worst_class(STUDENT, LABELS, classes=4) == (3, 0.0)


@settings(deadline=None)
@given(drawn=some_samples)
def test_everything_equals_lists_written_by_hand(drawn: list[tuple[int, int, int]]) -> None:
    first, second, labels = taken_apart(drawn)
    assert agreement(first, second) == pytest.approx(sum(a == b for a, b, _ in drawn) / len(drawn))
    only_first = [i for i, (a, b, label) in enumerate(drawn) if a == label != b]
    only_second = [i for i, (a, b, label) in enumerate(drawn) if a != label == b]
    assert lost(first, second, labels).tolist() == only_first
    assert gained(first, second, labels).tolist() == only_second
    assert discordant(first, second, labels) == (len(only_first), len(only_second))
    errors = [b != label for a, b, label in drawn if a != label]
    overlap = error_overlap(first, second, labels)
    assert overlap == (pytest.approx(sum(errors) / len(errors)) if errors else None)
    for label, accuracy in enumerate(per_class_accuracy(first, labels, classes=CLASSES).tolist()):
        of_class = [a == label for a, _, other in drawn if other == label]
        assert accuracy == pytest.approx(sum(of_class) / len(of_class) if of_class else math.nan, nan_ok=True)


@settings(deadline=None)
@given(drawn=samples)
def test_lost_less_gained_is_the_difference_of_accuracies(drawn: list[tuple[int, int, int]]) -> None:
    first, second, labels = taken_apart(drawn)
    only_first, only_second = discordant(first, second, labels)
    accuracies = [Classification().metrics(logits, labels).get("accuracy", 0.0) for logits in (first, second)]
    assert only_first - only_second == pytest.approx((accuracies[0] - accuracies[1]) * len(drawn))
    assert mcnemar(only_first, only_second) == mcnemar(*discordant(second, first, labels))


@settings(deadline=None)
@given(drawn=some_samples, data=st.data())
def test_the_order_of_the_samples_does_not_matter(
    drawn: list[tuple[int, int, int]], data: st.DataObject
) -> None:
    first, second, labels = taken_apart(drawn)
    order = torch.tensor(data.draw(st.permutations(range(len(drawn)))))
    there = first[order], second[order], labels[order]
    assert agreement(there[0], there[1]) == agreement(first, second)
    assert discordant(*there) == discordant(first, second, labels)
    assert error_overlap(*there) == error_overlap(first, second, labels)
    assert worst_class(there[0], there[2], classes=CLASSES) == worst_class(first, labels, classes=CLASSES)
    assert order[lost(*there)].sort().values.tolist() == lost(first, second, labels).tolist()


@settings(deadline=None)
@given(drawn=some_samples)
def test_agreement_is_mutual_and_whole_with_oneself(drawn: list[tuple[int, int, int]]) -> None:
    first, second, labels = taken_apart(drawn)
    assert agreement(first, second) == agreement(second, first)
    assert agreement(first, first) == 1.0
    assert agreement(first, 3 * first + 7) == 1.0
    assert discordant(first, first, labels) == (0, 0)
    assert error_overlap(first, first, labels) in (None, 1.0)


@settings(deadline=None)
@given(drawn=some_samples)
def test_class_accuracies_weighted_by_their_samples_are_the_accuracy(
    drawn: list[tuple[int, int, int]],
) -> None:
    logits, _, labels = taken_apart(drawn)
    each, count = (
        per_class_accuracy(logits, labels, classes=CLASSES),
        torch.bincount(labels, minlength=CLASSES),
    )
    mean = (each.nan_to_num(0.0) * count).sum().item() / len(labels)
    assert mean == pytest.approx(Classification().metrics(logits, labels)["accuracy"])
    worst = worst_class(logits, labels, classes=CLASSES)
    assert worst is not None
    assert worst[1] == min(accuracy for accuracy in each.tolist() if not math.isnan(accuracy))
    assert each[worst[0]].item() == worst[1]


def test_a_class_without_samples_has_no_accuracy_and_is_not_the_worst() -> None:
    logits, labels = answering([1, 1, 3]), torch.tensor([1, 1, 2])
    each = per_class_accuracy(logits, labels, classes=4)
    assert each.isnan().tolist() == [True, False, False, True]
    assert worst_class(logits, labels, classes=4) == (2, 0.0)
    assert worst_class(logits[:2], labels[:2], classes=4) == (1, 1.0)


def test_of_equally_bad_classes_the_first_is_the_worst() -> None:
    assert worst_class(answering([0, 0, 0]), torch.tensor([2, 1, 0]), classes=4) == (1, 0.0)


# what is kept of a split without samples has no classes either
@pytest.mark.parametrize("shape", [(0, 4), (0, 0)])
def test_without_samples_nothing_is_right_wrong_lost_or_worst(shape: tuple[int, int]) -> None:
    empty, labels = torch.zeros(shape), torch.zeros(0, dtype=torch.int64)
    assert per_class_accuracy(empty, labels, classes=4).isnan().tolist() == [True] * 4
    assert worst_class(empty, labels, classes=4) is None
    assert lost(empty, empty, labels).tolist() == []
    assert lost(empty, empty, labels).dtype == torch.int64
    assert discordant(empty, empty, labels) == (0, 0)
    assert error_overlap(empty, empty, labels) is None
    with pytest.raises(BadInput, match="agreement needs one or more samples; got none"):
        agreement(empty, empty)


def test_a_model_without_errors_passes_none_on() -> None:
    assert error_overlap(answering([0, 1]), answering([1, 1]), torch.tensor([0, 1])) is None
    assert error_overlap(answering([1, 1]), answering([0, 1]), torch.tensor([0, 1])) == 0.0


def test_an_error_is_shared_whatever_the_wrong_class() -> None:
    assert error_overlap(answering([1]), answering([2]), torch.tensor([0])) == 1.0


def test_of_equal_logits_the_first_is_the_answer() -> None:
    tie = torch.tensor([[1.0, 1.0, 0.0]])
    assert agreement(tie, torch.tensor([[2.0, 0.0, 0.0]])) == 1.0
    assert agreement(tie, torch.tensor([[0.0, 2.0, 0.0]])) == 0.0


def test_the_number_format_of_the_logits_does_not_matter() -> None:
    for number_format in (torch.float16, torch.bfloat16, torch.float64):
        first, second = TEACHER.to(number_format), STUDENT.to(number_format)
        assert agreement(first, STUDENT) == 0.5
        assert discordant(first, second, LABELS) == (2, 1)


def test_models_of_other_samples_or_classes_are_not_compared() -> None:
    comparisons: list[Callable[[Tensor, Tensor], object]] = [
        agreement,
        lambda first, second: lost(first, second, LABELS),
        lambda first, second: gained(first, second, LABELS),
        lambda first, second: discordant(first, second, LABELS),
        lambda first, second: error_overlap(first, second, LABELS),
    ]
    for compare in comparisons:
        with pytest.raises(BadInput, match=r"same samples and classes; got \((10|9), 4\) and \((9|10), 4\)"):
            compare(torch.zeros(10, 4), torch.zeros(9, 4))
        with pytest.raises(BadInput, match="of the same samples and classes"):
            compare(torch.zeros(10, 4), torch.zeros(10, 5))
        with pytest.raises(BadInput, match="of the same samples and classes"):
            compare(torch.zeros(10), torch.zeros(10))


Measure = Callable[[Tensor, Tensor], object]
MEASURES: list[Measure] = [
    lambda logits, labels: per_class_accuracy(logits, labels, classes=4),
    lambda logits, labels: worst_class(logits, labels, classes=4),
    lambda logits, labels: lost(logits, logits, labels),
    lambda logits, labels: gained(logits, logits, labels),
    lambda logits, labels: discordant(logits, logits, labels),
    lambda logits, labels: error_overlap(logits, logits, labels),
]


@pytest.mark.parametrize("measure", MEASURES)
def test_labels_that_do_not_fit_are_refused(measure: Measure) -> None:
    with pytest.raises(BadInput, match=r"labels \(samples,\); got \(10, 4\) and \(9,\)"):
        measure(TEACHER, LABELS[:9])
    with pytest.raises(
        BadInput, match=r"4 classes are in 0\.\.3; got -1\.\.3\. Leave unlabelled samples out"
    ):
        measure(TEACHER, torch.cat([LABELS[:9], torch.tensor([-1])]))
    with pytest.raises(BadInput, match=r"4 classes are in 0\.\.3; got 0\.\.4"):
        measure(TEACHER, torch.cat([LABELS[:9], torch.tensor([4])]))


@pytest.mark.parametrize("measure", [lambda logits, labels: agreement(logits, logits), *MEASURES])
def test_nan_is_no_answer(measure: Measure) -> None:
    broken = TEACHER.clone()
    broken[6, 2] = math.nan
    with pytest.raises(BadInput, match="logits of sample 6 hold NaN, which is no answer"):
        measure(broken, LABELS)


@pytest.mark.parametrize("measure", [per_class_accuracy, worst_class])
def test_logits_for_other_classes_are_refused(measure: Callable[..., object]) -> None:
    with pytest.raises(BadInput, match="the logits are for 4 classes, the data have 10"):
        measure(TEACHER, LABELS, classes=10)
    with pytest.raises(BadInput, match="the logits are for 4 classes, the data have 3"):
        measure(TEACHER, LABELS, classes=3)
    with pytest.raises(BadInput, match=r"logits \(samples, classes\)"):
        measure(LABELS.float(), LABELS, classes=10)
