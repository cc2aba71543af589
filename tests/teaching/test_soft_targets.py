from __future__ import annotations

import itertools
import json
import math
import random
from collections import defaultdict
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.teaching.toys import drawn, made_step
from understudy.errors import BadInput
from understudy.losses import soft_target_loss
from understudy.teaching import Labels, SoftTargets, Step, Stochastic

SUMMED = partial(SoftTargets, combine="sum")
CLASSES = 10
LABELS = torch.arange(8) % CLASSES
STUDENT = drawn(8, CLASSES, seed=1)
TEACHERS = drawn(4, 8, CLASSES, seed=2)

EVERYONE_DROPPED = Stochastic(mode="bernoulli_all", keep=1e-9)


def cross_entropy(student: Tensor = STUDENT) -> Tensor:
    return F.cross_entropy(student, LABELS)


def kl(teacher: int, *, temperature: float = 4.0, student: Tensor = STUDENT) -> Tensor:
    """T^2 KL with one teacher, averaged over the batch."""
    return soft_target_loss(student, TEACHERS[teacher], temperature=temperature).mean()


def parts(method: SoftTargets, teachers: int, **step: Any) -> dict[str, Tensor]:
    return method.for_stage(teachers=teachers).loss(made_step(STUDENT, LABELS, TEACHERS[:teachers], **step))


def total(method: SoftTargets, teachers: int, **step: Any) -> Tensor:
    return parts(method, teachers, **step)["total"]


# --- one teacher: knowledge distillation as TAKD uses it ---------------------------------------------------------


@pytest.mark.parametrize("temperature", [1.0, 4.0, 20.0])
@pytest.mark.parametrize("soft_weight", [0.0, 0.15, 0.9, 1.0])
def test_with_one_teacher_it_is_equation_3_of_takd(temperature: float, soft_weight: float) -> None:
    expected = (1 - soft_weight) * cross_entropy() + soft_weight * kl(0, temperature=temperature)
    torch.testing.assert_close(
        total(SoftTargets(temperature=temperature, soft_weight=soft_weight), 1), expected
    )


def test_without_soft_weight_it_is_learning_from_labels_to_the_bit_and_asks_no_teacher() -> None:
    labels_alone = Labels().loss(made_step(STUDENT, LABELS))["total"]
    torch.testing.assert_close(labels_alone, cross_entropy())
    asked: list[list[int]] = []
    assert torch.equal(total(SoftTargets(soft_weight=0.0), 1, asked=asked), labels_alone)
    assert torch.equal(total(SoftTargets(soft_weight=0.0, hard_terms="once"), 3, asked=asked), labels_alone)
    assert torch.equal(total(SoftTargets(soft_weight=0.0, combine="mean"), 3, asked=asked), labels_alone)
    assert asked == []


def test_with_all_soft_weight_the_labels_do_not_matter() -> None:
    method = SUMMED(soft_weight=1.0).for_stage(teachers=2)
    losses = [
        method.loss(made_step(STUDENT, labels, TEACHERS[:2]))["total"]
        for labels in (LABELS, LABELS.flip(0), torch.full((8,), -1))
    ]
    torch.testing.assert_close(losses[0], kl(0) + kl(1))
    assert torch.equal(losses[0], losses[1])
    assert torch.equal(losses[0], losses[2])


def test_the_soft_part_is_zero_where_the_student_agrees() -> None:
    method = SoftTargets().for_stage(teachers=2)
    agreeing = torch.stack([STUDENT, STUDENT - 5.0])
    soft = method.loss(made_step(STUDENT, LABELS, agreeing))["soft"]
    assert soft.item() == pytest.approx(0, abs=1e-5)


def test_unlabelled_examples_learn_from_the_teacher_alone() -> None:
    labels = LABELS.clone()
    labels[4:] = -1
    method = SoftTargets(soft_weight=0.5).for_stage(teachers=1)
    loss = method.loss(made_step(STUDENT, labels, TEACHERS[:1]))["total"]
    torch.testing.assert_close(loss, 0.5 * F.cross_entropy(STUDENT[:4], LABELS[:4]) + 0.5 * kl(0))


def test_the_named_parts_make_up_the_total() -> None:
    said = parts(SUMMED(soft_weight=0.3), 3)
    assert set(said) == {"total", "hard", "soft"}
    torch.testing.assert_close(said["total"], 3 * 0.7 * said["hard"] + 0.3 * said["soft"])


# --- the published reduction -------------------------------------------------------------------------------------

TAKD_TABLE = [  # classes, lambda in the official code, lambda with batchmean, scale of the whole loss
    (10, 0.05, 0.0052, 0.955),
    (10, 0.40, 0.0625, 0.640),
    (10, 1.00, 1.0, 0.100),
    (100, 0.04, 0.00042, 0.960),
    (100, 0.15, 0.0018, 0.852),
    (100, 0.20, 0.0025, 0.802),
    (100, 0.50, 0.0099, 0.505),
    (100, 1.00, 1.0, 0.010),
]


@pytest.mark.parametrize(("classes", "published", "mathematical", "scale"), TAKD_TABLE)
def test_a_published_weight_means_another_one_where_kl_is_summed(
    classes: int, published: float, mathematical: float, scale: float
) -> None:
    exact = published / (published + classes * (1 - published))
    size = (1 - published) + published / classes
    assert exact == pytest.approx(mathematical, abs=5e-5)
    assert size == pytest.approx(scale, abs=5.01e-4)
    step = made_step(drawn(8, classes, seed=1), LABELS, drawn(1, 8, classes, seed=2))
    code = SoftTargets(soft_weight=published, kl_reduction="mean_over_classes").for_stage(teachers=1)
    paper = SoftTargets(soft_weight=exact).for_stage(teachers=1)
    torch.testing.assert_close(code.loss(step)["total"], size * paper.loss(step)["total"])


def test_the_defaults_of_the_official_code_of_dgkd_on_100_classes_are_a_quarter_of_the_kl_terms() -> None:
    student, teachers = drawn(8, 100, seed=1), drawn(4, 8, 100, seed=2)
    method = SUMMED(temperature=5.0, soft_weight=1.0, kl_reduction="mean_over_classes")
    plain = [soft_target_loss(student, teacher, temperature=5.0).mean() / 25 for teacher in teachers]
    loss = method.for_stage(teachers=4).loss(made_step(student, LABELS, teachers))["total"]
    torch.testing.assert_close(loss, 0.25 * torch.stack(plain).sum())


# --- several teachers: DGKD --------------------------------------------------------------------------------------


@pytest.mark.parametrize("teachers", [1, 2, 4])
@pytest.mark.parametrize("soft_weight", [0.0, 0.5, 1.0])
def test_the_dense_loss_is_the_sum_of_the_pairwise_losses(teachers: int, soft_weight: float) -> None:
    pair = SoftTargets(soft_weight=soft_weight).for_stage(teachers=1)
    pairs = [pair.loss(made_step(STUDENT, LABELS, TEACHERS[i : i + 1]))["total"] for i in range(teachers)]
    torch.testing.assert_close(total(SUMMED(soft_weight=soft_weight), teachers), torch.stack(pairs).sum())


@pytest.mark.parametrize("assistants", [0, 1, 3])
def test_the_dense_loss_is_equation_7_of_dgkd(assistants: int) -> None:
    weight, n = 0.3, assistants
    soft = torch.stack([kl(i) for i in range(n + 1)]).sum()
    expected = (n + 1) * (1 - weight) * cross_entropy() + weight * soft
    torch.testing.assert_close(total(SUMMED(soft_weight=weight), n + 1), expected)


def test_the_hard_term_once_is_the_form_of_the_official_code() -> None:
    soft = torch.stack([kl(i) for i in range(3)]).sum()
    torch.testing.assert_close(
        total(SUMMED(soft_weight=0.3, hard_terms="once"), 3), 0.7 * cross_entropy() + 0.3 * soft
    )


@pytest.mark.parametrize("hard_terms", ["per_teacher", "once"])
def test_the_mean_is_the_sum_divided_by_the_number_of_teachers(hard_terms: Any) -> None:
    mean = total(SoftTargets(combine="mean", hard_terms=hard_terms), 4)
    torch.testing.assert_close(mean, total(SoftTargets(combine="sum", hard_terms="per_teacher"), 4) / 4)


def test_the_mean_does_not_grow_with_the_number_of_equal_teachers() -> None:
    method = SoftTargets(combine="mean")
    losses = [
        method.for_stage(teachers=n).loss(made_step(STUDENT, LABELS, TEACHERS[:1].expand(n, -1, -1)))["total"]
        for n in (1, 2, 5)
    ]
    torch.testing.assert_close(losses[1], losses[0])
    torch.testing.assert_close(losses[2], losses[0])


def test_teacher_weights_are_factors_of_the_soft_terms_only() -> None:
    loss = total(SUMMED(soft_weight=0.5, teacher_weights=(2.0, 0.0, 0.5)), 3)
    torch.testing.assert_close(loss, 3 * 0.5 * cross_entropy() + 0.5 * (2 * kl(0) + 0.5 * kl(2)))


def test_weights_stay_with_their_teachers_when_others_are_dropped() -> None:
    chance = Stochastic(mode="exact_k", drop=1)
    method = SUMMED(soft_weight=1.0, teacher_weights=(1.0, 2.0, 4.0), stochastic=chance)
    for number in range(10):
        taught = chance.survivors(3, seed=0, step=number)
        expected = torch.stack([(1.0, 2.0, 4.0)[i] * kl(i) for i in taught]).sum()
        torch.testing.assert_close(total(method, 3, number=number), expected)


def test_the_order_of_the_teachers_does_not_change_the_loss() -> None:
    method = SoftTargets().for_stage(teachers=4)
    forwards = method.loss(made_step(STUDENT, LABELS, TEACHERS))["total"]
    torch.testing.assert_close(method.loss(made_step(STUDENT, LABELS, TEACHERS.flip(0)))["total"], forwards)


def test_the_student_gets_the_gradient_and_the_teachers_none() -> None:
    student, teachers = STUDENT.clone().requires_grad_(), TEACHERS.clone().requires_grad_()
    SoftTargets().for_stage(teachers=4).loss(made_step(student, LABELS, teachers))["total"].backward()
    assert student.grad is not None
    assert student.grad.any()
    assert teachers.grad is None


# --- stochastic teaching -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("hard_terms", ["per_teacher", "once"])
@pytest.mark.parametrize("combine", ["sum", "mean"])
@pytest.mark.parametrize("rescale", [False, True])
@pytest.mark.parametrize(
    "never",
    [{"keep": 1.0}, {"mode": "bernoulli_all", "keep": 1.0}, {"mode": "exact_k", "drop": 0}],
    ids=["assistants", "all", "exact"],
)
def test_chance_that_drops_nobody_changes_no_bit(
    never: dict[str, Any], rescale: bool, combine: Any, hard_terms: Any
) -> None:
    plain = SoftTargets(combine=combine, hard_terms=hard_terms)
    chance = replace(plain, stochastic=Stochastic(**never, rescale=rescale))
    for number in range(5):
        assert torch.equal(total(chance, 4, number=number), total(plain, 4, number=number))


@pytest.mark.parametrize("drop", [0, 1, 2, 3])
def test_exact_k_always_leaves_out_exactly_so_many(drop: int) -> None:
    chance = Stochastic(mode="exact_k", drop=drop)
    for step in range(200):
        taught = chance.survivors(4, seed=0, step=step)
        assert len(taught) == 4 - drop
        assert taught == sorted(set(taught))


STEPS = 3000


def rates(chance: Stochastic, teachers: int) -> tuple[np.ndarray, np.ndarray]:
    """How often each teacher teaches, and how often each pair does, over many steps."""
    taught = np.zeros((STEPS, teachers))
    for step in range(STEPS):
        taught[step, chance.survivors(teachers, seed=7, step=step)] = 1
    return taught.mean(0), taught.T @ taught / STEPS


def bound(probability: float) -> float:
    """Four and a half standard deviations of a rate over STEPS draws: one in 150 000 right ones is farther off."""
    return 4.5 * math.sqrt(probability * (1 - probability) / STEPS) + 1e-12


@pytest.mark.parametrize("drop", [1, 3])
def test_exact_k_leaves_out_each_choice_equally_often(drop: int) -> None:
    single, pairs = rates(Stochastic(mode="exact_k", drop=drop), 4)
    keep = 1 - drop / 4
    both = (4 - drop) * (3 - drop) / 12
    assert np.abs(single - keep).max() < bound(keep)
    assert np.abs(pairs[~np.eye(4, dtype=bool)] - both).max() < bound(both)


@pytest.mark.parametrize("keep", [0.25, 0.75])
def test_bernoulli_all_keeps_each_teacher_independently(keep: float) -> None:
    single, pairs = rates(Stochastic(mode="bernoulli_all", keep=keep), 4)
    assert np.abs(single - keep).max() < bound(keep)
    assert np.abs(pairs[~np.eye(4, dtype=bool)] - keep**2).max() < bound(keep**2)


@pytest.mark.parametrize("keep", [0.25, 0.75])
def test_bernoulli_assistants_never_drops_the_first_teacher(keep: float) -> None:
    single, pairs = rates(Stochastic(mode="bernoulli_assistants", keep=keep), 4)
    assert single[0] == 1
    assert np.abs(single[1:] - keep).max() < bound(keep)
    assistants = pairs[1:, 1:][~np.eye(3, dtype=bool)]
    assert np.abs(assistants - keep**2).max() < bound(keep**2)


def test_the_published_rate_is_the_default() -> None:
    assert Stochastic() == Stochastic(mode="bernoulli_assistants", keep=0.75, rescale=False)


MODES = [
    Stochastic(mode="bernoulli_assistants", keep=0.5),
    Stochastic(mode="bernoulli_all", keep=0.5),
    Stochastic(mode="exact_k", drop=2),
]


@pytest.mark.parametrize("chance", MODES, ids=lambda chance: chance.mode)
def test_who_teaches_depends_on_seed_and_step_alone(chance: Stochastic) -> None:
    forwards = [chance.survivors(6, seed=3, step=step) for step in range(50)]
    np.random.seed(1)
    random.seed(1)
    torch.manual_seed(1)
    backwards = [chance.survivors(6, seed=3, step=step) for step in reversed(range(50))]
    assert forwards == backwards[::-1]
    assert forwards != [chance.survivors(6, seed=4, step=step) for step in range(50)]
    assert len({tuple(taught) for taught in forwards}) > 1


@pytest.mark.parametrize("chance", MODES, ids=lambda chance: chance.mode)
def test_drawing_who_teaches_leaves_the_global_generators_alone(chance: Stochastic) -> None:
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    chance.survivors(6, seed=0, step=0)
    after = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    assert torch.equal(before[0], after[0])
    assert before[1:] == after[1:]


@pytest.mark.parametrize("chance", MODES, ids=lambda chance: chance.mode)
def test_only_those_who_teach_are_asked(chance: Stochastic) -> None:
    method = SoftTargets(stochastic=chance).for_stage(teachers=4)
    for number in range(20):
        asked: list[list[int]] = []
        method.loss(made_step(STUDENT, LABELS, TEACHERS, number=number, asked=asked))
        taught = chance.survivors(4, seed=0, step=number)
        assert asked == ([taught] if taught else [])


@pytest.mark.parametrize("combine", ["sum", "mean"])
def test_what_is_left_is_not_weighted_up_and_the_hard_terms_stay(combine: Any) -> None:
    chance = Stochastic(mode="exact_k", drop=1)
    divisor = 4 if combine == "mean" else 1
    for number in range(5):
        soft = torch.stack([kl(i) for i in chance.survivors(4, seed=0, step=number)]).sum()
        expected = (4 * 0.5 * cross_entropy() + 0.5 * soft) / divisor
        loss = total(SoftTargets(combine=combine, stochastic=chance), 4, number=number)
        torch.testing.assert_close(loss, expected)


def test_rescaling_weighs_up_the_soft_terms_that_are_left() -> None:
    chance = Stochastic(mode="exact_k", drop=3, rescale=True)
    for number in range(5):
        (only,) = chance.survivors(4, seed=0, step=number)
        loss = total(SUMMED(stochastic=chance), 4, number=number)
        torch.testing.assert_close(loss, 4 * 0.5 * cross_entropy() + 0.5 * 4 * kl(only))


def test_when_all_are_dropped_the_hard_terms_are_left_as_they_are() -> None:
    for rescale in (False, True):
        method = SUMMED(soft_weight=0.25, stochastic=replace(EVERYONE_DROPPED, rescale=rescale))
        said = parts(method, 3)
        assert set(said) == {"total", "hard"}
        torch.testing.assert_close(said["total"], 3 * 0.75 * cross_entropy())


def test_when_all_are_dropped_and_labels_do_not_count_the_step_teaches_nothing() -> None:
    method = SoftTargets(soft_weight=1.0, stochastic=EVERYONE_DROPPED).for_stage(teachers=3)

    def unasked(batch: Any) -> Tensor:
        raise AssertionError("the student need not run")

    step = made_step(STUDENT, LABELS, TEACHERS[:3])
    assert method.loss(replace(step, student=unasked)) == {}
    assert method.taught == [0, 0, 0]


# --- what is counted and kept ------------------------------------------------------------------------------------


def test_it_counts_the_batches_in_which_each_taught() -> None:
    chance = Stochastic(mode="exact_k", drop=1)
    method = SoftTargets(stochastic=chance).for_stage(teachers=3)
    for number in range(30):
        method.loss(made_step(STUDENT, LABELS, TEACHERS[:3], number=number))
    survivors = [chance.survivors(3, seed=0, step=number) for number in range(30)]
    assert method.metrics() == {"taught": [sum(i in taught for taught in survivors) for i in range(3)]}
    assert sum(method.taught) == 60


def test_teachers_that_are_never_asked_have_not_taught() -> None:
    method = SoftTargets(soft_weight=0.0).for_stage(teachers=2)
    method.loss(made_step(STUDENT, LABELS))
    assert method.metrics() == {"taught": [0, 0]}


def test_the_counts_survive_a_checkpoint() -> None:
    method = SoftTargets(stochastic=Stochastic(mode="exact_k")).for_stage(teachers=3)
    for number in range(10):
        method.loss(made_step(STUDENT, LABELS, TEACHERS[:3], number=number))
    kept = json.loads(json.dumps(method.state_dict()))
    again = SoftTargets(stochastic=Stochastic(mode="exact_k")).for_stage(teachers=3)
    again.load_state_dict(kept)
    assert again.metrics() == method.metrics()
    given_away = method.state_dict()
    method.loss(made_step(STUDENT, LABELS, TEACHERS[:3], number=10))
    assert given_away == kept  # it is not written on
    assert method.state_dict() != kept


def test_every_stage_gets_a_fresh_method() -> None:
    method = SoftTargets(teacher_weights=(1.0, 2.0), stochastic=Stochastic())
    first = method.for_stage(teachers=2)
    first.loss(made_step(STUDENT, LABELS, TEACHERS[:2]))
    second = method.for_stage(teachers=2)
    third = first.for_stage(teachers=2)
    assert first.taught != [0, 0]
    assert second.taught == third.taught == [0, 0]
    assert method.taught == []
    assert second == first == method  # as settings


# --- what is part of the key -------------------------------------------------------------------------------------

GRID = [
    SoftTargets(
        combine=combine, hard_terms=hard_terms, teacher_weights=weights, stochastic=chance, soft_weight=0.4
    )
    for combine, hard_terms, weights, chance in itertools.product(
        ("sum", "mean"),
        ("per_teacher", "once"),
        ("none", "ones", "other"),
        (
            None,
            Stochastic(keep=1.0),
            Stochastic(keep=0.5),
            Stochastic(keep=0.5, drop=2),
            Stochastic(keep=0.5, rescale=True),
            Stochastic(mode="bernoulli_all", keep=1.0, rescale=True),
            Stochastic(mode="bernoulli_all", keep=0.5),
            Stochastic(mode="exact_k", drop=0),
            Stochastic(mode="exact_k", drop=1),
            Stochastic(mode="exact_k", drop=1, keep=0.5),
        ),
    )
    for weights in ({"none": None, "ones": (1.0, 1.0, 1.0), "other": (1.0, 2.0, 0.5)}[weights],)
]


def for_teachers(method: SoftTargets, teachers: int) -> SoftTargets | None:
    """``method`` where its settings fit so many teachers."""
    weights = method.teacher_weights
    fitting = replace(method, teacher_weights=None if weights is None else weights[:teachers])
    if teachers == 1 and fitting.stochastic and fitting.stochastic == Stochastic(mode="exact_k", drop=1):
        return None
    try:
        return fitting.for_stage(teachers=teachers)
    except BadInput:
        return None


@pytest.mark.parametrize("teachers", [1, 3])
def test_two_settings_have_one_definition_exactly_when_they_have_one_loss(teachers: int) -> None:
    losses: dict[str, set[tuple[float, ...]]] = defaultdict(set)
    definitions: dict[tuple[float, ...], set[str]] = defaultdict(set)
    steps: list[Step] = [
        made_step(STUDENT, LABELS, TEACHERS[:teachers], number=number) for number in range(12)
    ]
    for settings in GRID:
        method = for_teachers(settings, teachers)
        if method is None:
            continue
        said = json.dumps(method.definition(teachers=teachers), sort_keys=True)
        values = tuple(method.loss(step)["total"].item() for step in steps)
        losses[said].add(values)
        definitions[values].add(said)
    assert all(len(values) == 1 for values in losses.values())
    assert all(len(said) == 1 for said in definitions.values())
    assert len(losses) > 1 if teachers == 3 else len(losses) >= 1


@pytest.mark.parametrize(
    "change",
    [
        {"temperature": 5.0},
        {"soft_weight": 0.6},
        {"combine": "mean"},
        {"hard_terms": "once"},
        {"kl_reduction": "mean_over_classes"},
        {"teacher_weights": (1.0, 2.0, 1.0)},
        {"stochastic": Stochastic()},
        {"stochastic": Stochastic(keep=0.5)},
        {"stochastic": Stochastic(mode="bernoulli_all")},
        {"stochastic": Stochastic(mode="exact_k")},
        {"stochastic": Stochastic(rescale=True)},
    ],
    ids=str,
)
def test_every_setting_that_matters_is_in_the_definition(change: dict[str, Any]) -> None:
    said = SoftTargets(**{"combine": "sum", **change}).definition(teachers=3)
    assert said != SUMMED().definition(teachers=3)
    assert json.loads(json.dumps(said)) == said
    assert said["name"] == "soft_targets"
    assert said["version"] == SoftTargets.version


def test_a_mode_says_only_its_own_knob() -> None:
    assert Stochastic(keep=0.5, drop=3).definition() == Stochastic(keep=0.5).definition()
    exact = Stochastic(mode="exact_k", drop=2)
    assert replace(exact, keep=0.1).definition() == exact.definition()


# --- what is refused ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"temperature": 0.0}, "temperature is a positive number; got 0.0."),
        ({"temperature": math.inf}, "temperature is a positive number; got inf."),
        ({"temperature": math.nan}, "temperature is a positive number; got nan."),
        ({"soft_weight": 1.1}, "soft_weight lies in [0, 1]; got 1.1."),
        ({"soft_weight": math.nan}, "soft_weight lies in [0, 1]; got nan."),
        ({"combine": "max"}, "combine 'max' is none of sum, mean."),
        ({"hard_terms": "twice"}, "hard_terms 'twice' is none of per_teacher, once."),
        ({"kl_reduction": "mean"}, "kl_reduction 'mean' is none of batchmean, mean_over_classes."),
        ({"teacher_weights": (1.0, -1.0)}, "teacher_weights are numbers of 0 or more; got [1.0, -1.0]."),
    ],
)
def test_wrong_settings_are_refused_in_one_line(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput) as error:
        SoftTargets(**wrong)
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (
            {"mode": "dropout"},
            "stochastic.mode 'dropout' is none of bernoulli_assistants, bernoulli_all, exact_k.",
        ),
        ({"keep": 0.0}, "stochastic.keep is a probability in (0, 1]; got 0.0."),
        ({"keep": 1.5}, "stochastic.keep is a probability in (0, 1]; got 1.5."),
        ({"drop": -1}, "stochastic.drop is 0 or more; got -1."),
    ],
)
def test_wrong_chances_are_refused_in_one_line(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput) as error:
        Stochastic(**wrong)
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("method", "teachers", "message"),
    [
        (SoftTargets(), 0, "soft targets need at least one teacher."),
        (SoftTargets(teacher_weights=(1.0,)), 3, "teacher_weights has 1 numbers for 3 teachers."),
        (
            SoftTargets(stochastic=Stochastic(mode="exact_k", drop=3)),
            3,
            "stochastic.drop 3 leaves no teacher of 3; possible are 0 to 2 here.",
        ),
    ],
)
def test_settings_that_do_not_fit_the_teachers_are_refused(
    method: SoftTargets, teachers: int, message: str
) -> None:
    with pytest.raises(BadInput) as error:
        method.for_stage(teachers=teachers)
    assert str(error.value) == message
