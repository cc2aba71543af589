"""Every fault that is planted is named, and a healthy training is left in peace."""

from __future__ import annotations

from typing import Any

import pytest

from understudy.training.health import chance, teacher_warnings, training_warnings


def epochs(**last: Any) -> list[dict[str, Any]]:
    """Two healthy epochs, the second with changes."""
    healthy = {
        "loss": {"total": 2.0, "hard": 1.0, "soft": 1.0},
        "validation": {"accuracy": 0.5},
        "train": {"accuracy": 0.55},
        "gradient": {"hard": 0.6, "soft": 0.4},
        "skipped": 0,
    }
    return [{**healthy, "loss": {"total": 3.0, "hard": 1.5, "soft": 1.5}}, {**healthy, **last}]


def warned(log: list[dict[str, Any]]) -> list[str]:
    return training_warnings(log, classes=10, samples=1000, batches=100)


def test_a_healthy_training_is_left_in_peace() -> None:
    assert warned(epochs()) == []
    assert warned([]) == []
    assert warned([{"loss": {"total": 1.0}, "validation": {}}]) == []


def test_guessing_reaches_chance_but_rarely() -> None:
    # 10 classes, 1000 images: 0.1 + 3 * sqrt(0.1 * 0.9 / 1000) = 0.1 + 3 * 0.009487
    assert chance(10, 1000) == pytest.approx(0.12846, abs=1e-5)
    assert chance(2, 10**8) == pytest.approx(0.5, abs=1e-3)


def test_a_term_that_is_always_zero_is_named() -> None:
    log = epochs(loss={"total": 2.0, "hard": 2.0, "soft": 0.0})
    log[0]["loss"]["soft"] = 0.0
    assert warned(log) == ["the soft term was exactly 0 in every epoch: it taught nothing."]


def test_a_loss_that_stands_still_is_named() -> None:
    (sentence,) = warned(epochs(loss={"total": 3.0, "hard": 1.5, "soft": 1.5}))
    assert sentence == "the loss did not move from 3 in 2 epochs: nothing was learned."


def test_a_student_stuck_at_chance_is_named() -> None:
    (sentence,) = warned(epochs(validation={"accuracy": 0.11}, train={"accuracy": 0.1}))
    assert sentence.startswith("it is no better than guessing: 11.0 % of 1000 validation images right, of 10 classes")


def test_a_gap_between_training_and_validation_is_named() -> None:
    (sentence,) = warned(epochs(train={"accuracy": 0.99}))
    assert "(99.0 % against 50.0 %)" in sentence


def test_a_term_without_weight_in_the_gradient_is_named() -> None:
    (sentence,) = warned(epochs(gradient={"hard": 0.996, "soft": 0.004}))
    assert sentence == "the soft term has 0.40 % of the gradient: it hardly teaches."


def test_many_skipped_batches_are_named() -> None:
    (sentence,) = warned(epochs(skipped=20))
    assert sentence.startswith("20 of 100 batches taught nothing")


def test_a_teacher_that_guesses_is_named_before_it_teaches() -> None:
    (sentence,) = teacher_warnings("teacher", {"accuracy": 0.09}, classes=10, samples=1000)
    assert sentence.startswith("its teacher teacher is no better than guessing: 9.0 %")
    assert teacher_warnings("teacher", {"accuracy": 0.5}, classes=10, samples=1000) == []
    assert teacher_warnings("teacher", {}, classes=10, samples=0) == []
