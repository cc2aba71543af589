"""Every fault that is planted is named, and a healthy training is left in peace."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from understudy.training.health import chance, gradient_shares, teacher_warnings, training_warnings


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
    assert sentence.startswith(
        "it is no better than guessing: 11.0 % of 1000 validation images right, of 10 classes"
    )


def test_a_gap_between_training_and_validation_is_named() -> None:
    (sentence,) = warned(epochs(train={"accuracy": 0.99}))
    assert "(99.0 % against 50.0 %)" in sentence


def test_a_term_without_weight_in_the_gradient_is_named() -> None:
    log = epochs(gradient={"hard": 0.996, "soft": 0.004})
    log[0]["gradient"] = {"hard": 0.988, "soft": 0.012}
    (sentence,) = warned(log)  # 0.8 % on average
    assert sentence == "the soft term has 0.8 % of the gradient: it hardly teaches."


def test_many_skipped_batches_are_named() -> None:
    (sentence,) = warned(epochs(skipped=20))
    assert sentence.startswith("20 of 100 batches taught nothing")


def test_a_teacher_that_guesses_is_named_before_it_teaches() -> None:
    (sentence,) = teacher_warnings("teacher", {"accuracy": 0.09}, classes=10, samples=1000)
    assert sentence.startswith("its teacher teacher is no better than guessing: 9.0 %")
    assert teacher_warnings("teacher", {"accuracy": 0.5}, classes=10, samples=1000) == []
    assert teacher_warnings("teacher", {}, classes=10, samples=0) == []


def test_gradient_shares_are_weights_times_norms() -> None:
    output = torch.randn(6, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
    first, second = (output * 3.0).sum(), output.square().sum() / 2
    shares = gradient_shares({"total": 0.25 * first + 2.0 * second, "first": first, "second": second}, output)
    pulls = (0.25 * 3.0 * 24**0.5, 2.0 * output.detach().norm().item())
    assert shares["first"] == pytest.approx(pulls[0] / sum(pulls), rel=1e-4)
    assert shares["second"] == pytest.approx(pulls[1] / sum(pulls), rel=1e-4)


def test_a_part_without_weight_has_no_share_and_a_lonely_part_has_all() -> None:
    output = torch.randn(6, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
    first, second = output.sum(), output.square().sum()
    assert gradient_shares({"total": first, "first": first, "second": second}, output)["second"] < 1e-9
    assert gradient_shares({"total": 5 * first, "first": first}, output) == {"first": pytest.approx(1.0)}


def test_there_are_no_shares_where_nothing_pulls() -> None:
    output = torch.zeros(2, 3, requires_grad=True)
    nothing = (output * 0).sum()
    assert gradient_shares({"total": nothing, "part": nothing}, output) == {}
    assert gradient_shares({"total": nothing.detach()}, output) == {}
    broken = (output / 0).sum()
    assert gradient_shares({"total": broken, "part": broken}, output) == {}


def test_looking_at_gradients_leaves_none_behind() -> None:
    output = torch.randn(6, 4).requires_grad_()
    part = output.square().sum()
    gradient_shares({"total": part, "part": part}, output)
    assert output.grad is None
    part.backward()  # the graph is still there


def test_a_handful_of_images_cannot_tell() -> None:
    log = epochs(validation={"accuracy": 0.5}, train={"accuracy": 0.5})
    assert training_warnings(log, classes=2, samples=6, batches=100) == []
    assert teacher_warnings("teacher", {"accuracy": 0.0}, classes=2, samples=6) == []
