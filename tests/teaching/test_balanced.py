"""Balanced distillation: the worked numbers, when it is plain distillation, and class-balanced labels."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.ladder.tiny import same_tensors, training
from tests.teaching.toys import drawn, made_step
from tests.training.test_loop import DATA, log_of, trained, weights
from understudy.data import Dataset, Split
from understudy.data.views import ViewPolicy
from understudy.errors import BadInput
from understudy.losses import soft_target_loss
from understudy.losses.balanced import effective_number_weights
from understudy.teaching import Beginning, Labels, Method, SoftTargets, Step, Stochastic
from understudy.teaching.balanced import BalancedHardTerm, BalancedLabels, BalancedTargets, weights_of

COUNTS = (5000, 500, 50)
TEACHER = torch.tensor([[2.0, 1.0, 0.1]])
STUDENT = torch.tensor([[1.5, 0.2, -0.3]])
RARE = torch.tensor([2])
SOFT = 3.92785205
HARD = 2.16313551


def labels_with(counts: tuple[int, ...], unlabelled: int = 0) -> np.ndarray:
    return np.concatenate([np.repeat(np.arange(len(counts)), counts), np.full(unlabelled, -1)])


def beginning(labels: np.ndarray, classes: int = 3, *, epochs: int = 10) -> Beginning:
    return Beginning(
        model=nn.Identity(),
        labels=labels,
        classes=classes,
        epochs=epochs,
        seed=0,
        shapes={},
        teacher_shapes=(),
        handed=None,
    )


def begun(method: Method, counts: tuple[int, ...] = COUNTS, *, teachers: int = 1, epochs: int = 10) -> Method:
    bound = method.for_stage(teachers=teachers)
    bound.begin(beginning(labels_with(counts), len(counts), epochs=epochs))
    return bound


def targets(**said: Any) -> BalancedTargets:
    return BalancedTargets(**{"temperature": 2.0, "soft_weight": 0.5, **said})


def at(step: Step, epoch: int) -> Step:
    return replace(step, epoch=epoch)


# ------------------------------------------------------------------------------------------------ worked numbers
def test_the_worked_example_comes_out() -> None:
    parts = begun(targets()).loss(made_step(STUDENT, RARE, TEACHER[None]))
    assert parts["soft"].item() == pytest.approx(SOFT, rel=1e-5)
    assert parts["hard"].item() == pytest.approx(HARD, rel=1e-6)
    # half of CE + alpha * soft at alpha = 1
    assert parts["total"].item() == pytest.approx((HARD + SOFT) / 2, rel=1e-5)


def test_the_hard_term_is_not_weighed() -> None:
    frequent = begun(targets()).loss(made_step(STUDENT, torch.tensor([0]), TEACHER[None]))
    assert frequent["hard"].item() == pytest.approx(0.36313551, rel=1e-6)
    assert frequent["soft"].item() == pytest.approx(SOFT, rel=1e-5)  # of the answer, not of the label


def test_the_unnormalised_form_is_the_weighted_cross_entropy_but_for_a_constant() -> None:
    student, teacher = drawn(6, 3), drawn(6, 3, seed=1)
    labels = torch.zeros(6, dtype=torch.int64)
    rare = effective_number_weights(torch.tensor(COUNTS), 0.9999).float()
    method = begun(targets(form="unnormalised", soft_weight=1.0))

    def by_hand(answer: Tensor) -> Tensor:
        weighed = rare * (teacher / 2).softmax(-1)
        return (-4 * (weighed * (answer / 2).log_softmax(-1)).sum(-1)).mean()

    slopes = []
    for loss in (
        lambda answer: method.loss(made_step(answer, labels, teacher[None]))["total"],
        by_hand,
    ):
        answer = student.clone().requires_grad_()
        loss(answer).backward()
        slopes.append(answer.grad)
    torch.testing.assert_close(slopes[0], slopes[1], rtol=1e-4, atol=1e-6)
    usual = student.clone().requires_grad_()
    begun(targets(soft_weight=1.0)).loss(made_step(usual, labels, teacher[None]))["total"].backward()
    factors = (rare * (teacher / 2).softmax(-1)).sum(-1, keepdim=True)
    assert usual.grad is not None
    torch.testing.assert_close(usual.grad * factors, slopes[1], rtol=1e-4, atol=1e-6)


def test_the_class_weights_are_those_of_the_labelled_samples() -> None:
    expected = effective_number_weights(torch.tensor(COUNTS), 0.9999).float()
    assert torch.equal(weights_of(labels_with(COUNTS, unlabelled=700), 3, 0.9999), expected)
    torch.testing.assert_close(
        expected, torch.tensor([0.03410736, 0.27516723, 2.69072541]), rtol=1e-5, atol=0
    )
    # a class that is not there weighs as one with a single image
    assert torch.equal(weights_of(labels_with((40, 5)), 3, 0.9), weights_of(labels_with((40, 5, 1)), 3, 0.9))


# ---------------------------------------------------------------------------------- when it is plain distillation
@pytest.mark.parametrize("said", [{"beta": 0.0}, {"defer": 1.0}, {"beta": 0.0, "form": "unnormalised"}])
@pytest.mark.parametrize(
    "shared",
    [
        {},
        {"kl_reduction": "mean_over_classes", "combine": "mean", "teacher_weights": (0.5, 2.0)},
        {"stochastic": Stochastic(keep=0.5), "soft_weight": 1.0},
    ],
)
def test_without_weights_it_is_plain_distillation_bit_for_bit_and_by_name(
    said: dict[str, Any], shared: dict[str, Any]
) -> None:
    plain = SoftTargets(temperature=2.0, **shared)
    ours = (
        targets(**said, **shared)
        if "soft_weight" in shared
        else BalancedTargets(temperature=2.0, **said, **shared)
    )
    assert ours.definition(teachers=2) == plain.definition(teachers=2)
    ours, plain = begun(ours, teachers=2), plain.for_stage(teachers=2)  # type: ignore[assignment]
    for number in range(6):
        step = made_step(drawn(4, 3), torch.tensor([0, 1, 2, 2]), drawn(2, 4, 3, seed=1), number=number)
        one, other = ours.loss(at(step, number)), plain.loss(at(step, number))
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in one)
    assert ours.metrics() == plain.metrics()


def test_balanced_settings_are_in_the_definition() -> None:
    said = targets(beta=0.99, defer=0.8).definition(teachers=1)
    assert said == {
        **SoftTargets(temperature=2.0).definition(teachers=1),
        "name": "balanced_targets",
        "beta": 0.99,
        "defer": 0.8,
        "form": "renormalised",
    }


@pytest.mark.parametrize(
    ("defer", "epochs", "first"), [(0.8, 200, 160), (0.0, 5, 0), (0.5, 3, 2), (0.1, 3, 0)]
)
def test_weights_are_equal_until_the_share_of_the_epochs_that_is_deferred(
    defer: float, epochs: int, first: int
) -> None:
    method, plain = begun(targets(defer=defer), epochs=epochs), targets(beta=0.0)
    step = made_step(STUDENT, RARE, TEACHER[None])
    before = begun(plain).loss(step)["soft"]
    for epoch in {0, max(first - 1, 0), first, epochs - 1}:
        soft = method.loss(at(step, epoch))["soft"]
        assert torch.equal(soft, before) == (epoch < first)
        if epoch >= first:
            assert soft.item() == pytest.approx(SOFT, rel=1e-5)


# --------------------------------------------------------------------------------------------- several teachers
@pytest.mark.parametrize("form", ["renormalised", "unnormalised"])
def test_several_teachers_are_balanced_one_by_one_and_weighed(form: Any) -> None:
    student, teachers, labels = drawn(5, 3), drawn(3, 5, 3, seed=1), torch.tensor([0, 1, 2, 0, 1])
    together = begun(targets(form=form, teacher_weights=(0.5, 1.0, 2.0)), teachers=3)
    alone = begun(targets(form=form))
    soft = together.loss(made_step(student, labels, teachers))["soft"]
    each = [alone.loss(made_step(student, labels, teachers[i : i + 1]))["soft"] for i in range(3)]
    torch.testing.assert_close(soft, 0.5 * each[0] + each[1] + 2.0 * each[2])


def test_dropping_teachers_at_random_works_as_in_plain_distillation() -> None:
    dropping = Stochastic(mode="exact_k", drop=2)
    student, teachers, labels = drawn(5, 3), drawn(3, 5, 3, seed=1), torch.tensor([0, 1, 2, 0, 1])
    method, alone = begun(targets(stochastic=dropping), teachers=3), begun(targets())
    chosen = []
    for number in range(8):
        asked: list[list[int]] = []
        step = made_step(student, labels, teachers, number=number, seed=5, asked=asked)
        soft = method.loss(step)["soft"]
        (who,) = asked
        assert who == dropping.survivors(3, seed=5, step=number)
        chosen += who
        torch.testing.assert_close(
            soft, alone.loss(made_step(student, labels, teachers[who]))["soft"], rtol=1e-5, atol=1e-6
        )
    assert len(set(chosen)) > 1
    assert method.metrics() == {"taught": [chosen.count(i) for i in range(3)]}


def test_gradients_reach_the_student_alone() -> None:
    student, teacher = drawn(4, 3).requires_grad_(), drawn(1, 4, 3, seed=1).requires_grad_()
    for form in ("renormalised", "unnormalised"):
        student.grad = None
        loss = begun(targets(form=form)).loss(made_step(student, torch.tensor([0, 1, 2, 0]), teacher))
        loss["total"].backward()
        assert student.grad is not None
        assert student.grad.abs().sum() > 0
        assert teacher.grad is None


def test_the_loss_is_zero_where_the_student_gives_the_balanced_answer() -> None:
    rare = effective_number_weights(torch.tensor(COUNTS), 0.9999).float()
    agreed = drawn(1, 4, 3)
    student = agreed[0] + 2.0 * rare.log() + 5.0
    soft = begun(targets(soft_weight=1.0)).loss(made_step(student, torch.zeros(4).long(), agreed))["soft"]
    torch.testing.assert_close(soft, torch.zeros(()), atol=1e-5, rtol=0)


# ------------------------------------------------------------------------------------------------ in a training
def long_tailed() -> Dataset:
    """40 images: 20, 10, 6 and 4 of each class."""
    labels = labels_with((20, 10, 6, 4))
    rows = np.random.default_rng(0).permutation(40)
    return replace(DATA, train=Split(images=DATA.train.images, labels=labels[rows]))


def test_the_loop_tells_the_method_how_many_images_of_a_class_there_are(tmp_path: Path) -> None:
    bound: list[BalancedTargets] = []

    class Kept(BalancedTargets):
        def for_stage(self, *, teachers: int) -> BalancedTargets:
            bound.append(super().for_stage(teachers=teachers))
            return bound[-1]

    said = training(epochs=3)
    done = trained(
        tmp_path / "a", method=Kept(beta=0.99, defer=0.5), count=2, dataset=long_tailed(), said=said
    )
    expected = effective_number_weights(torch.tensor([20, 10, 6, 4]), 0.99).float()
    (method,) = bound
    assert method.class_weights is not None
    assert torch.equal(method.class_weights, expected)
    assert method.first_epoch == 2
    plain = trained(tmp_path / "b", method=SoftTargets(), count=2, dataset=long_tailed(), said=said)
    first, other = log_of(tmp_path / "a"), log_of(tmp_path / "b")
    assert first[:2] == other[:2]
    assert first[2]["loss"] != other[2]["loss"]
    assert not same_tensors(weights(done), weights(plain))


def test_without_weights_a_training_is_plain_distillation_bit_for_bit(tmp_path: Path) -> None:
    one = trained(tmp_path / "a", method=BalancedTargets(beta=0.0), count=1, dataset=long_tailed())
    other = trained(tmp_path / "b", method=SoftTargets(), count=1, dataset=long_tailed())
    assert same_tensors(weights(one), weights(other))
    assert log_of(tmp_path / "a") == log_of(tmp_path / "b")


# ------------------------------------------------------------------------------------------- class-balanced labels
@pytest.mark.parametrize("beta", [0.9, 0.9999])
def test_balanced_labels_are_torchs_weighted_cross_entropy(beta: float) -> None:
    logits, labels = drawn(7, 3).requires_grad_(), torch.tensor([0, 0, 0, 1, 1, 2, 0])
    parts = begun(BalancedLabels(beta=beta), teachers=0).loss(made_step(logits, labels))
    rare = effective_number_weights(torch.tensor(COUNTS), beta).float()
    expected = F.cross_entropy(logits, labels, weight=rare)
    torch.testing.assert_close(parts["total"], expected)
    assert parts["hard"] is parts["total"]
    (slope,) = torch.autograd.grad(parts["total"], logits)
    (wanted,) = torch.autograd.grad(expected, logits)
    torch.testing.assert_close(slope, wanted)


def test_balanced_labels_at_beta_0_are_the_labels() -> None:
    logits, labels = drawn(7, 3), torch.tensor([0, 0, 0, 1, 1, 2, 0])
    step = made_step(logits, labels)
    torch.testing.assert_close(
        begun(BalancedLabels(beta=0.0), teachers=0).loss(step)["total"], Labels().loss(step)["total"]
    )


def test_balanced_labels_pass_over_samples_without_one() -> None:
    logits, labels = drawn(6, 3), torch.tensor([0, -1, 1, 2, -1, 0])
    method = begun(BalancedLabels(), teachers=0)
    known = labels >= 0
    some, all_known = (
        method.loss(made_step(*of))["total"] for of in ((logits, labels), (logits[known], labels[known]))
    )
    assert torch.equal(some, all_known)
    assert method.loss(made_step(logits, torch.full((6,), -1))) == {}


def test_balanced_labels_do_not_go_with_mixed_images(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"do not go with mixup: leave data\.views\.mixup out"):
        trained(tmp_path, method=BalancedLabels(), policy=ViewPolicy(mixup=0.4))


def test_balanced_labels_train(tmp_path: Path) -> None:
    done = trained(tmp_path / "a", method=BalancedLabels(), dataset=long_tailed())
    plain = trained(tmp_path / "b", method=Labels(), dataset=long_tailed())
    assert not same_tensors(weights(done), weights(plain))
    equal = trained(tmp_path / "c", method=BalancedLabels(beta=0.0), dataset=long_tailed())
    for name, tensor in weights(plain).items():
        torch.testing.assert_close(weights(equal)[name], tensor)


def test_the_definition_of_balanced_labels_is_their_weights_and_when_they_begin() -> None:
    whole = {"name": "balanced_labels", "version": 1, "beta": 0.9}
    assert BalancedLabels(beta=0.9).definition(teachers=0) == whole
    assert BalancedLabels(beta=0.9, defer=0.5).definition(teachers=0) == {**whole, "defer": 0.5}
    for plain in (BalancedLabels(beta=0.0), BalancedLabels(defer=1.0)):
        assert plain.definition(teachers=0) == Labels().definition(teachers=0)


def test_labels_count_alike_until_the_weights_begin() -> None:
    method = begun(BalancedLabels(defer=0.5), teachers=0)
    plain, weighed = (begun(other, teachers=0) for other in (Labels(), BalancedLabels()))
    step = made_step(drawn(6, 3), torch.tensor([0, 1, 2, 0, 1, 0]))
    for epoch, same in ((0, plain), (4, plain), (5, weighed)):
        step = at(step, epoch)
        assert torch.equal(method.loss(step)["total"], same.loss(step)["total"])


# ---------------------------------------------------------------- plain distillation as the official code has it
def hard_term(**said: Any) -> BalancedHardTerm:
    return BalancedHardTerm(**{"temperature": 2.0, "soft_weight": 0.5, **said})


def test_its_hard_term_is_torchs_weighted_cross_entropy_and_its_soft_term_is_plain() -> None:
    student, teacher = drawn(7, 3).requires_grad_(), drawn(1, 7, 3, seed=1)
    labels = torch.tensor([0, 0, 0, 1, 1, 2, 0])
    parts = begun(hard_term(soft_weight=0.25)).loss(made_step(student, labels, teacher))
    rare = effective_number_weights(torch.tensor(COUNTS), 0.9999).float()
    hard = F.cross_entropy(student, labels, weight=rare)
    soft = 4 * F.kl_div(
        (student / 2).log_softmax(-1),
        (teacher[0] / 2).log_softmax(-1),
        reduction="batchmean",
        log_target=True,
    )
    torch.testing.assert_close(parts["hard"], hard)
    torch.testing.assert_close(parts["soft"], soft)
    torch.testing.assert_close(parts["total"], 0.75 * hard + 0.25 * soft)
    (slope,) = torch.autograd.grad(parts["total"], student)
    (wanted,) = torch.autograd.grad(0.75 * hard + 0.25 * soft, student)
    torch.testing.assert_close(slope, wanted)


def test_of_one_rare_label_the_weight_cancels_and_of_two_labels_it_does_not() -> None:
    plain = SoftTargets(temperature=2.0)
    alone = made_step(STUDENT, RARE, TEACHER[None])
    assert begun(hard_term()).loss(alone)["hard"].item() == pytest.approx(HARD, rel=1e-6)
    both = made_step(STUDENT.repeat(2, 1), torch.tensor([0, 2]), TEACHER.repeat(1, 2, 1))
    w = [0.03410736, 2.69072541]
    expected = (w[0] * 0.36313551 + w[1] * HARD) / sum(w)
    assert begun(hard_term()).loss(both)["hard"].item() == pytest.approx(expected, rel=1e-5)
    assert begun(plain).loss(both)["hard"].item() == pytest.approx((0.36313551 + HARD) / 2, rel=1e-6)


@pytest.mark.parametrize("said", [{"beta": 0.0}, {"defer": 1.0}])
def test_without_weights_on_the_labels_it_is_plain_distillation(said: dict[str, Any]) -> None:
    shared: dict[str, Any] = {"stochastic": Stochastic(keep=0.5), "combine": "mean"}
    ours, plain = hard_term(**said, **shared), SoftTargets(temperature=2.0, **shared)
    assert ours.definition(teachers=2) == plain.definition(teachers=2)
    step = made_step(drawn(4, 3), torch.tensor([0, 1, 2, 2]), drawn(2, 4, 3, seed=1))
    one, other = begun(ours, teachers=2).loss(step), begun(plain, teachers=2).loss(step)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_labels_weigh_alike_until_the_share_of_the_epochs_that_is_deferred() -> None:
    method, plain = begun(hard_term(defer=0.8), epochs=200), begun(SoftTargets(temperature=2.0))
    step = made_step(drawn(4, 3), torch.tensor([0, 1, 2, 0]), drawn(1, 4, 3, seed=1))
    usual = plain.loss(step)["hard"]
    assert [torch.equal(method.loss(at(step, epoch))["hard"], usual) for epoch in (0, 159, 160, 199)] == [
        True,
        True,
        False,
        False,
    ]


def test_the_weights_of_labels_are_in_the_definition() -> None:
    assert hard_term(beta=0.99, defer=0.8).definition(teachers=1) == {
        **SoftTargets(temperature=2.0).definition(teachers=1),
        "name": "soft_targets_balanced_labels",
        "beta": 0.99,
        "defer": 0.8,
    }


def test_samples_without_a_label_have_no_hard_term() -> None:
    student, teacher, labels = drawn(6, 3), drawn(1, 6, 3, seed=1), torch.tensor([0, -1, 1, 2, -1, 0])
    known, method = labels >= 0, begun(hard_term())
    parts = method.loss(made_step(student, labels, teacher))
    some = method.loss(made_step(student[known], labels[known], teacher[:, known]))
    assert torch.equal(parts["hard"], some["hard"])
    none = method.loss(made_step(student, torch.full((6,), -1), teacher))
    assert none["hard"].item() == 0
    assert torch.equal(none["soft"], parts["soft"])


def test_a_balanced_hard_term_trains_and_does_not_go_with_mixed_images(tmp_path: Path) -> None:
    said: dict[str, Any] = {"count": 1, "dataset": long_tailed()}
    done = trained(tmp_path / "a", method=BalancedHardTerm(), **said)
    plain = trained(tmp_path / "b", method=SoftTargets(), **said)
    assert not same_tensors(weights(done), weights(plain))
    with pytest.raises(BadInput, match=r"do not go with mixup: leave data\.views\.mixup out"):
        trained(tmp_path / "c", method=BalancedHardTerm(), policy=ViewPolicy(mixup=0.4), **said)


# ------------------------------------------------------------------------------------------------------- refusals
@pytest.mark.parametrize("kind", [BalancedTargets, BalancedLabels, BalancedHardTerm])
@pytest.mark.parametrize("beta", [1.0, -0.1, float("nan")])
def test_beta_is_in_its_range(kind: type[Method], beta: float) -> None:
    with pytest.raises(BadInput) as error:
        kind(beta=beta)
    assert str(error.value) == (
        f"balance.beta lies in [0, 1); got {beta}. 0.9999 is usual, 0 is no re-weighting."
    )


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"defer": 1.5}, "balance.defer is a share of the epochs in [0, 1]; got 1.5."),
        ({"defer": float("nan")}, "balance.defer is a share of the epochs in [0, 1]; got nan."),
        ({"form": "plain"}, "balance.form 'plain' is none of renormalised, unnormalised."),
        ({"temperature": 0.0}, "temperature is a positive number; got 0.0."),
    ],
)
def test_bad_settings_are_refused_in_one_line(said: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput) as error:
        targets(**said)
    assert str(error.value) == message


def test_balanced_targets_need_a_teacher() -> None:
    with pytest.raises(BadInput, match="at least one teacher"):
        targets().for_stage(teachers=0)


def test_the_agreement_of_soft_targets_is_not_that_of_balanced_ones() -> None:
    agreed = drawn(1, 4, 3)
    soft = begun(targets()).loss(made_step(agreed[0], torch.zeros(4).long(), agreed))["soft"]
    assert soft > 0.1
    assert soft_target_loss(agreed[0], agreed[0], temperature=2.0).max() < 1e-6
