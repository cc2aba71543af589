"""A curriculum: when phases begin, what each score says, which samples are shown, and that a resume is exact."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor, nn

from tests.ladder.tiny import same_tensors, training
from tests.teaching.toys import NO_SURVEY, drawn, made_step
from tests.training import test_speaking as kept
from tests.training.test_loop import (
    DATA,
    Stop,
    dropping,
    log_of,
    normalised,
    trained,
    weights,
    with_labels,
)
from understudy.data.batches import epoch_order
from understudy.data.ordering import curriculum_order
from understudy.data.views import ViewPolicy, Views
from understudy.errors import BadInput, Interrupted
from understudy.losses import soft_target_loss
from understudy.store.keys import hash_of_tensors
from understudy.teaching import Beginning, Labels, Method, SoftTargets, Step, Survey
from understudy.teaching.around import Around
from understudy.teaching.curriculum import Curriculum
from understudy.teaching.structure_search import StructureSearch
from understudy.training import checkpoint

SAMPLES, CLASSES = 24, 4
ANSWERS = drawn(SAMPLES, CLASSES)
TEACHERS = drawn(2, SAMPLES, CLASSES, seed=1)
LABELS = np.arange(SAMPLES) % CLASSES
FINGERPRINT = "0123456789abcdef"


def beginning(labels: NDArray[np.int64] = LABELS, *, epochs: int = 10, seed: int = 0) -> Beginning:
    return Beginning(
        model=nn.Identity(),
        labels=labels,
        classes=CLASSES,
        epochs=epochs,
        seed=seed,
        shapes={},
        teacher_shapes=(),
        handed=None,
    )


def begun(
    method: Curriculum | None = None,
    *,
    labels: NDArray[np.int64] = LABELS,
    epochs: int = 10,
    teachers: int = 2,
    seed: int = 0,
    **said: Any,
) -> Curriculum:
    bound = (method or Curriculum(method=SoftTargets(), **said)).for_stage(teachers=teachers)
    bound.begin(beginning(labels, epochs=epochs, seed=seed))
    return bound


def survey() -> Survey:
    return Survey(
        fingerprint=lambda: FINGERPRINT,
        student=lambda: ANSWERS,
        teachers=lambda which: TEACHERS[list(which)],
    )


def scored(**said: Any) -> Curriculum:
    """A curriculum at the beginning of its first phase, epoch 1 of 10."""
    method = begun(**said)
    method.on_epoch(0, NO_SURVEY)
    method.on_epoch(1, survey())
    return method


# -------------------------------------------------------------------------------------------------------- phases
@pytest.mark.parametrize(
    ("epochs", "phases"),
    [(200, [20, 60, 120, 160]), (10, [1, 3, 6, 8]), (5, [1, 2, 3, 4]), (3, [1, 2]), (2, [1, 2]), (1, [1])],
)
def test_phases_begin_at_whole_epochs(epochs: int, phases: list[int]) -> None:
    assert begun(epochs=epochs).phases() == phases


@settings(deadline=None, max_examples=150)
@given(
    epochs=st.integers(1, 500),
    shares=st.lists(st.floats(0.001, 0.999), min_size=1, max_size=6, unique=True),
    uniform=st.floats(0, 0.9),
)
def test_phases_rise_and_leave_the_first_and_last_part_as_usual(
    epochs: int, shares: list[float], uniform: float
) -> None:
    boundaries = tuple(sorted(share * (1 - uniform) for share in shares))
    if len(set(boundaries)) < len(boundaries) or not boundaries[-1] < 1 - uniform:
        return
    method = begun(boundaries=boundaries, uniform=uniform, epochs=epochs, score="random")
    *begins, end = method.phases()
    assert end == epochs - round(uniform * epochs)
    assert all(1 <= one < end for one in begins)
    assert begins == sorted(set(begins))
    usual = epoch_order(SAMPLES, 5, seed=0, epoch=0)
    for epoch in dict.fromkeys([0, *begins, *(max(one - 1, 0) for one in begins), end - 1, end, epochs - 1]):
        if not 0 <= epoch < epochs:
            continue
        for before in range(epoch + 1):
            if before in begins:
                method.on_epoch(before, survey())
        order = method.order(epoch, usual)
        assert [len(batch) for batch in order] == [len(batch) for batch in usual]
        as_usual = epoch >= end or not begins or epoch < begins[0]
        assert (order is usual) == as_usual
        again = method.order(epoch, usual)
        assert all(np.array_equal(one, other) for one, other in zip(order, again, strict=True))
    assert len(method.orders) == len(method.snapshots) <= len(begins)


def test_each_phase_has_the_order_of_its_own_snapshot() -> None:
    method = begun(score="loss", pacing="sequence", epochs=10)
    usual = epoch_order(SAMPLES, 4, seed=0, epoch=0)
    for epoch in range(10):
        changing = Survey(
            fingerprint=partial(format, epoch, "016x"),
            student=partial(drawn, SAMPLES, CLASSES, seed=epoch),
            teachers=NO_SURVEY.teachers,
        )
        method.on_epoch(epoch, changing)
        method.on_epoch(epoch, NO_SURVEY)  # said again after a resume: nothing is asked a second time
        method.order(epoch, usual)
    assert method.snapshots == [format(epoch, "016x") for epoch in (1, 3, 6)]
    assert len({tuple(order.tolist()) for order in method.orders}) == 3


# -------------------------------------------------------------------------------------------------------- scores
def log_softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    shifted = logits - logits.max(-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(-1, keepdims=True)))


def scores_by_hand(score: str, temperature: float) -> NDArray[np.float64]:
    student, teachers = ANSWERS.double().numpy(), TEACHERS.double().numpy()
    rows = np.arange(SAMPLES)
    if score == "gap":
        each = []
        for teacher in teachers:
            log_p, log_q = log_softmax(teacher / temperature), log_softmax(student / temperature)
            each.append(temperature**2 * (np.exp(log_p) * (log_p - log_q)).sum(-1))
        return np.asarray(np.mean(each, axis=0))
    if score == "loss":
        return np.asarray(-log_softmax(student)[rows, LABELS])
    if score == "confidence":
        return np.asarray(1 - np.exp(log_softmax(student)[rows, LABELS]))
    return np.asarray(-log_softmax(teachers.mean(0))[rows, LABELS])


@pytest.mark.parametrize("temperature", [1.0, 4.0])
@pytest.mark.parametrize("score", ["gap", "loss", "confidence", "teacher"])
def test_a_score_is_what_it_says(score: str, temperature: float) -> None:
    method = scored(score=score, temperature=temperature)
    (scores,), (order,) = method.scores, method.orders
    expected = scores_by_hand(score, temperature)
    np.testing.assert_allclose(scores.numpy(), expected, rtol=1e-4, atol=1e-6)
    assert order.tolist() == curriculum_order(expected, LABELS).tolist()
    assert method.snapshots == [FINGERPRINT]


def test_easy_samples_come_first_and_every_class_has_its_share() -> None:
    method = scored(score="loss")
    (scores,), (order,) = method.scores, method.orders
    for label in range(CLASSES):
        own = [float(scores[i]) for i in order.tolist() if LABELS[i] == label]
        assert own == sorted(own)
    assert sorted(LABELS[order[:CLASSES].numpy()]) == list(range(CLASSES))


@pytest.mark.parametrize("score", ["gap", "loss", "confidence", "teacher"])
def test_hard_first_is_easy_first_turned_round_in_each_class(score: str) -> None:
    (easy,) = scored(score=score).orders
    (hard,) = scored(score=score, direction="hard_first").orders
    for label in range(CLASSES):
        own = [[i for i in order.tolist() if LABELS[i] == label] for order in (easy, hard)]
        assert own[0] == own[1][::-1]


def test_random_scores_are_the_same_each_time_and_others_for_each_seed_and_phase() -> None:
    def both(**said: Any) -> list[list[int]]:
        method = begun(score="random", **said)
        for epoch in range(4):
            method.on_epoch(epoch, replace(NO_SURVEY, fingerprint=lambda: FINGERPRINT))
        return [order.tolist() for order in method.orders]

    one = both()
    assert one[0] != one[1]
    assert both() == one
    assert both(seed=1) != one
    assert both(teachers=1) == one
    assert both(direction="hard_first") == one  # the same in its definition, too


def test_samples_without_a_label_have_the_mean_score() -> None:
    labels = LABELS.copy()
    labels[::3] = -1
    known = labels >= 0
    for score in ("loss", "confidence", "teacher"):
        method = scored(score=score, labels=labels)
        expected = scores_by_hand(score, 1.0)
        expected[~known] = expected[known].mean()
        np.testing.assert_allclose(method.scores[0].numpy(), expected, rtol=1e-4, atol=1e-6)
        assert sorted(method.orders[0].tolist()) == list(range(SAMPLES))
    gap = scored(score="gap", labels=labels)  # needs no labels
    np.testing.assert_allclose(gap.scores[0].numpy(), scores_by_hand("gap", 4.0), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("score", ["loss", "confidence", "teacher"])
def test_scores_of_labels_need_some(score: str) -> None:
    with pytest.raises(BadInput) as error:
        begun(score=score, labels=np.full(SAMPLES, -1))
    assert str(error.value) == (
        f"curriculum.score {score} needs labels, and no training image has one. Without them: gap or random."
    )
    assert begun(score="gap", labels=np.full(SAMPLES, -1)).phases() == [1, 3, 6, 8]


# -------------------------------------------------------------------------------------------------------- pacing
def test_the_available_part_grows_as_published_for_50000_images() -> None:
    labels = np.arange(50_000) % 10
    method = begun(labels=labels, epochs=200, score="random", boundaries=(0.1,), uniform=0.0)
    assert method.phases() == [20, 200]
    method.on_epoch(20, replace(NO_SURVEY, fingerprint=lambda: FINGERPRINT))
    rank = np.empty(50_000, dtype=np.int64)
    rank[method.orders[0].numpy()] = np.arange(50_000)
    usual = epoch_order(50_000, 128, seed=0, epoch=0)
    for step, size in enumerate((5_000, 9_500, 18_050, 34_295, 50_000)):
        for epoch in (20 + 9 * step, 28 + 9 * step):  # a twentieth of the phase is nine epochs
            seen, times = np.unique(np.concatenate(method.order(epoch, usual)), return_counts=True)
            assert sorted(rank[seen]) == list(range(size))
            assert times.max() - times.min() <= 1


@pytest.mark.parametrize("pacing", ["exponential", "linear", "single_step", "sequence"])
def test_every_pacing_ends_with_all_samples(pacing: str) -> None:
    method = begun(epochs=40, score="random", pacing=pacing, boundaries=(0.1, 0.5), uniform=0.1)
    usual = epoch_order(SAMPLES, 6, seed=0, epoch=0)
    sizes = []
    for epoch in range(40):
        method.on_epoch(epoch, replace(NO_SURVEY, fingerprint=lambda: FINGERPRINT))
        order = method.order(epoch, usual)
        sizes.append(len(np.unique(np.concatenate(order))))
    assert method.phases() == [4, 20, 36]
    assert sizes[:4] == sizes[36:] == [SAMPLES] * 4
    for phase in (sizes[4:20], sizes[20:36]):
        assert phase == sorted(phase)
        assert phase[-1] == SAMPLES
        assert (phase[0] < SAMPLES) == (pacing != "sequence")


def test_a_sequence_walks_through_the_order_from_easy_to_hard() -> None:
    labels = np.zeros(400, dtype=np.int64)
    method = begun(labels=labels, score="random", pacing="sequence", epochs=10)
    method.on_epoch(1, replace(NO_SURVEY, fingerprint=lambda: FINGERPRINT))
    rank = np.empty(400, dtype=np.int64)
    rank[method.orders[0].numpy()] = np.arange(400)
    first, other = (method.order(epoch, epoch_order(400, 8, seed=0, epoch=0)) for epoch in (1, 2))
    for order in (first, other):
        ranks = rank[np.concatenate(order)]
        assert sorted(ranks.tolist()) == list(range(400))
        assert all(sorted(ranks[i : i + 80]) == list(range(i, i + 80)) for i in range(0, 400, 80))
    assert not np.array_equal(np.concatenate(first), np.concatenate(other))


# ------------------------------------------------------------------------------------ what is kept and remembered
def test_what_is_remembered_comes_back_from_a_checkpoint() -> None:
    method = scored(score="gap")
    tensors, rest = checkpoint.pack(method.state_dict())
    other = begun(score="gap")
    other.load_state_dict(checkpoint.unpack(tensors, rest))
    other.on_epoch(1, NO_SURVEY)  # nobody is asked again
    usual = epoch_order(SAMPLES, 5, seed=0, epoch=1)
    for epoch in (1, 2):
        pairs = zip(method.order(epoch, usual), other.order(epoch, usual), strict=True)
        assert all(np.array_equal(one, two) for one, two in pairs)
    assert other.metrics() == method.metrics()
    assert same_tensors(dict(other.artefacts()), dict(method.artefacts()))


def test_orders_scores_and_snapshots_are_kept_and_told() -> None:
    method = scored(score="loss")
    kept_tensors = method.artefacts()
    assert set(kept_tensors) == {"curriculum.order0", "curriculum.scores0"}
    assert sorted(kept_tensors["curriculum.order0"].tolist()) == list(range(SAMPLES))
    scores = kept_tensors["curriculum.scores0"]
    assert scores.dtype == torch.float32
    (said,) = method.metrics()["curriculum"]
    assert said["snapshot"] == FINGERPRINT
    assert said["scores"] == {
        "mean": pytest.approx(float(scores.mean())),
        "lowest": float(scores.min()),
        "highest": float(scores.max()),
    }
    assert "curriculum" not in begun().metrics()


def test_the_inner_method_teaches() -> None:
    inner = SoftTargets(temperature=2.0).for_stage(teachers=2)
    method = Curriculum(method=SoftTargets(temperature=2.0)).for_stage(teachers=2)
    step = made_step(drawn(4, 3), torch.tensor([0, 1, 2, 0]), drawn(2, 4, 3, seed=1))
    one, other = inner.loss(step), method.loss(step)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert method.metrics() == inner.metrics()
    assert method.needs() == inner.needs()
    assert Curriculum(method=Labels(), score="gap").needs().logits
    assert not Curriculum(method=Labels(), score="loss").needs().logits


def test_stages_share_nothing() -> None:
    template = Curriculum(method=SoftTargets())
    one, other = begun(template), begun(template)
    one.on_epoch(1, survey())
    assert len(one.orders) == 1
    assert other.orders == template.orders == []
    assert one.method is not template.method


# ---------------------------------------------------------------------------------------------------- definition
def test_settings_that_change_the_order_are_in_the_definition_and_no_others() -> None:
    def said(**settings: Any) -> dict[str, Any]:
        return Curriculum(method=SoftTargets(), **settings).definition(teachers=1)

    base = said()
    assert base["method"] == SoftTargets().definition(teachers=1)
    for settings_ in (
        {"score": "loss"},
        {"direction": "hard_first"},
        {"pacing": "linear"},
        {"start": 0.2},
        {"growth": 1.5},
        {"step": 0.1},
        {"boundaries": (0.2,)},
        {"uniform": 0.1},
        {"temperature": 2.0},
    ):
        assert said(**settings_) != base
    for pacing in ("linear", "single_step"):  # when all is available depends on growth and step here, too
        for changed in ({"growth": 1.5}, {"step": 0.1}, {"start": 0.2}):
            assert said(pacing=pacing, **changed) != said(pacing=pacing)
    for changed in ({"growth": 1.5}, {"step": 0.1}, {"start": 0.2}):
        assert said(pacing="sequence", **changed) == said(pacing="sequence")
    assert said(score="loss", temperature=2.0) == said(score="loss")
    assert said(score="random", direction="hard_first") == said(score="random")


@pytest.mark.parametrize("pacing", ["exponential", "linear", "single_step"])
@pytest.mark.parametrize("changed", [{"growth": 4.0}, {"step": 0.2}, {"start": 0.5}])
def test_settings_of_one_definition_are_one_order(pacing: str, changed: dict[str, float]) -> None:
    def sizes(**said: Any) -> list[int]:
        method = begun(score="random", epochs=40, pacing=pacing, boundaries=(0.1,), uniform=0.0, **said)
        usual = epoch_order(SAMPLES, 6, seed=0, epoch=0)
        method.on_epoch(4, replace(NO_SURVEY, fingerprint=lambda: FINGERPRINT))
        return [len(np.unique(np.concatenate(method.order(epoch, usual)))) for epoch in range(4, 40)]

    assert sizes(**changed) != sizes()


@pytest.mark.parametrize(
    ("said", "message"),
    [
        (
            {"score": "margin"},
            "curriculum.score 'margin' is none of gap, loss, confidence, teacher, random.",
        ),
        ({"direction": "up"}, "curriculum.direction 'up' is none of easy_first, hard_first."),
        (
            {"pacing": "fast"},
            "curriculum.pacing 'fast' is none of exponential, linear, single_step, sequence.",
        ),
        ({"start": 0.0}, "curriculum.start is a share of the samples in (0, 1]; got 0.0."),
        ({"growth": 1.0}, "curriculum.growth is above 1; got 1.0."),
        ({"step": 2.0}, "curriculum.step is a share of a phase in (0, 1]; got 2.0."),
        ({"temperature": 0.0}, "curriculum.temperature is a positive number; got 0.0."),
        ({"uniform": 1.0}, "curriculum.uniform is a share of the epochs in [0, 1); got 1.0."),
        (
            {"boundaries": (0.3, 0.1)},
            "curriculum.boundaries are shares of the epochs that rise, above 0 and below 1 - uniform = 0.8; got 0.3, 0.1.",
        ),
        (
            {"boundaries": (0.1, 0.9)},
            "curriculum.boundaries are shares of the epochs that rise, above 0 and below 1 - uniform = 0.8; got 0.1, 0.9.",
        ),
        (
            {"boundaries": ()},
            "curriculum.boundaries are shares of the epochs that rise, above 0 and below 1 - uniform = 0.8; got none.",
        ),
    ],
)
def test_bad_settings_are_refused_in_one_line(said: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput) as error:
        Curriculum(method=Labels(), **said)
    assert str(error.value) == message


@pytest.mark.parametrize("score", ["gap", "teacher"])
def test_scores_of_teachers_need_one(score: Any) -> None:
    with pytest.raises(BadInput) as error:
        Curriculum(method=Labels(), score=score).for_stage(teachers=0)
    assert str(error.value) == (
        f"curriculum.score {score} needs a teacher, and the stage has none. Without one: loss, confidence or random."
    )
    assert Curriculum(method=Labels(), score="loss").for_stage(teachers=0).teachers == 0


# ----------------------------------------------------------------------------------------------- in a training
AUGMENTED = ViewPolicy(crop=1, flip=True, erase=0.5)
EPOCHS = training(epochs=7)  # phases begin at 1, 2 and 4, the uniform part at 6


@dataclass(kw_only=True)
class Noting(Around):
    """Another method, and which samples it was shown."""

    name = "noting"

    method: Method
    seen: list[tuple[int, list[int]]]

    def definition(self, *, teachers: int) -> dict[str, Any]:
        return self.method.definition(teachers=teachers)

    def for_stage(self, *, teachers: int) -> Noting:
        return replace(self, method=self.method.for_stage(teachers=teachers))

    def loss(self, step: Step) -> dict[str, Tensor]:
        self.seen.append((step.epoch, step.batch.index.tolist()))
        return super().loss(step)


def test_the_loop_shows_what_the_curriculum_says(tmp_path: Path) -> None:
    seen: list[tuple[int, list[int]]] = []
    inside: list[tuple[int, list[int]]] = []
    usual: list[tuple[int, list[int]]] = []
    paced = Curriculum(method=Noting(method=SoftTargets(), seen=inside))
    done = trained(tmp_path / "a", normalised, Noting(method=paced, seen=seen), count=1, said=EPOCHS)
    trained(tmp_path / "b", normalised, Noting(method=SoftTargets(), seen=usual), count=1, said=EPOCHS)
    assert seen == inside
    assert [(epoch, len(index)) for epoch, index in seen] == [(epoch, len(index)) for epoch, index in usual]
    as_usual = [one == other for one, other in zip(seen, usual, strict=True)]
    assert as_usual == [True] * 3 + [False] * 15 + [True] * 3
    orders = [done.artefacts[f"curriculum.order{phase}"].tolist() for phase in range(3)]
    assert all(sorted(order) == list(range(40)) for order in orders)
    for phase, begin in enumerate((1, 2, 4)):  # the first batch is drawn from a tenth of the images
        assert set(next(index for epoch, index in seen if epoch == begin)) == set(orders[phase][:4])
    assert {"curriculum.order3", "curriculum.scores3"}.isdisjoint(done.artefacts)


def test_the_snapshot_is_the_student_as_it_is_then(tmp_path: Path) -> None:
    states: list[tuple[int, str, Tensor, Tensor]] = []

    @dataclass(kw_only=True)
    class Looking(Noting):
        model: nn.Module | None = None

        def begin(self, beginning: Beginning) -> None:
            super().begin(beginning)
            self.model = beginning.model

        def on_epoch(self, epoch: int, survey: Survey) -> None:
            assert self.model is not None
            fingerprint = hash_of_tensors(dict(self.model.state_dict()))[:16]
            states.append((epoch, fingerprint, survey.student(), survey.teachers([0])))
            super().on_epoch(epoch, survey)

    paced = Curriculum(method=SoftTargets(), score="gap")
    done = trained(tmp_path, normalised, Looking(method=paced, seen=[]), count=1, said=EPOCHS)
    by_epoch = {epoch: rest for epoch, *rest in states}
    for phase, epoch in enumerate((1, 2, 4)):
        fingerprint, student, teachers = by_epoch[epoch]
        assert done.metrics["curriculum"][phase]["snapshot"] == fingerprint
        expected = soft_target_loss(student, teachers[0], temperature=4.0)
        torch.testing.assert_close(done.artefacts[f"curriculum.scores{phase}"], expected)
    assert len({fingerprint for fingerprint, *_ in by_epoch.values()}) == 7
    assert log_of(tmp_path)[-1]["curriculum"] == done.metrics["curriculum"]


RESUMED: dict[str, dict[str, Any]] = {
    "dropout": {"build": dropping, "method": Curriculum(method=Labels(), score="loss")},
    "teachers, normalisation, augmentation": {
        "build": normalised,
        "method": Curriculum(method=SoftTargets()),
        "count": 2,
        "policy": AUGMENTED,
    },
    "a sequence, hard first": {
        "build": normalised,
        "method": Curriculum(
            method=SoftTargets(), direction="hard_first", pacing="sequence", score="teacher"
        ),
        "count": 1,
    },
}


@pytest.mark.parametrize("case", RESUMED)
def test_a_training_that_is_stopped_again_and_again_ends_with_the_same_bits(
    tmp_path: Path, case: str
) -> None:
    said = {**RESUMED[case], "said": EPOCHS}
    whole = trained(tmp_path / "whole", **said)
    attempts = 0
    while True:
        attempts += 1
        try:
            # the second question: the first one at a boundary may be asked while teachers look at the plain images
            parts = trained(tmp_path / "parts", stop=Stop(2), **said)
            break
        except Interrupted:
            assert attempts < 60
    assert attempts > 10
    assert same_tensors(weights(parts), weights(whole))
    assert log_of(tmp_path / "parts") == log_of(tmp_path / "whole")
    assert parts.metrics == whole.metrics
    assert same_tensors(dict(parts.artefacts), dict(whole.artefacts))


@pytest.mark.parametrize(
    ("asked", "stopped"),
    [
        (4, "stopped after epoch 1 of 7"),  # a phase begins with the next batch
        (5, "stopped in epoch 2 of 7"),  # in its first batch
        (8, "stopped after epoch 2 of 7"),  # right at the next boundary
        (13, "stopped in epoch 4 of 7"),  # in the middle of a phase
        (24, "stopped after epoch 6 of 7"),  # before the uniform part
    ],
)
def test_a_training_that_is_stopped_at_a_boundary_goes_on_as_if_it_had_not_been(
    tmp_path: Path, asked: int, stopped: str
) -> None:
    said = {**RESUMED["dropout"], "said": EPOCHS}
    whole = trained(tmp_path / "whole", **said)
    with pytest.raises(Interrupted, match=stopped):
        trained(tmp_path / "parts", stop=Stop(asked), **said)
    parts = trained(tmp_path / "parts", **said)
    assert same_tensors(weights(parts), weights(whole))
    assert log_of(tmp_path / "parts") == log_of(tmp_path / "whole")
    assert same_tensors(dict(parts.artefacts), dict(whole.artefacts))


@pytest.mark.parametrize("views", [kept.AUGMENTED, Views()])
@pytest.mark.parametrize("inner", [SoftTargets(), Labels()])
def test_kept_answers_make_the_same_curriculum_as_live_ones(
    tmp_path: Path, views: Views, inner: Method
) -> None:
    said = training(epochs=5)
    method = Curriculum(method=inner)
    runs: list[Mapping[str, Tensor]] = []
    for place in (None, tmp_path / "store", tmp_path / "store"):  # the third reads what the second kept
        folder = tmp_path / str(len(runs))
        done = kept.trained(folder, place, count=2, method=method, said=said, views=views)
        runs.append({**done.artefacts, **weights(done)})
    assert same_tensors(dict(runs[0]), dict(runs[1]))
    assert same_tensors(dict(runs[0]), dict(runs[2]))
    assert log_of(tmp_path / "0") == log_of(tmp_path / "1") == log_of(tmp_path / "2")


def test_samples_that_come_twice_are_served_from_what_is_kept(tmp_path: Path) -> None:
    kept.trained(tmp_path / "a", tmp_path / "store", method=SoftTargets(), said=training(epochs=5))
    kept.trained(
        tmp_path / "b",
        tmp_path / "store",
        method=Curriculum(method=SoftTargets(), score="loss"),  # asks for no plain answers
        said=training(epochs=5),
        load=lambda seed: kept.unwanted(),
    )


def test_methods_around_it_pass_everything_on(tmp_path: Path) -> None:
    inner = Curriculum(method=SoftTargets())
    one = trained(tmp_path / "a", normalised, inner, count=1, said=EPOCHS)
    around = Noting(method=Noting(method=inner, seen=[]), seen=[])
    other = trained(tmp_path / "b", normalised, around, count=1, said=EPOCHS)
    assert same_tensors(weights(one), weights(other))
    assert same_tensors(dict(one.artefacts), dict(other.artefacts))
    assert log_of(tmp_path / "a") == log_of(tmp_path / "b")


def test_a_search_for_a_structure_around_it_is_stopped_and_goes_on_as_well(tmp_path: Path) -> None:
    inner = Curriculum(method=SoftTargets(), score="loss")
    search = StructureSearch(method=inner, strength=0.5, epochs=5, channels=1, size=(8, 8))
    said: dict[str, Any] = {"build": normalised, "method": search, "count": 1, "said": training(epochs=5)}
    whole = trained(tmp_path / "whole", **said)
    for asked in (6, 5):  # in the middle of phases
        with pytest.raises(Interrupted, match="stopped in epoch"):
            trained(tmp_path / "parts", stop=Stop(asked), **said)
    parts = trained(tmp_path / "parts", **said)
    assert set(whole.metrics) == {"taught", "curriculum", "alive"}
    assert parts.metrics == whole.metrics
    assert same_tensors(weights(parts), weights(whole))
    assert same_tensors(dict(parts.artefacts), dict(whole.artefacts))
    assert log_of(tmp_path / "parts") == log_of(tmp_path / "whole")
    assert sorted(whole.artefacts["curriculum.order0"].tolist()) == list(range(40))


def test_samples_without_a_label_are_shown_too(tmp_path: Path) -> None:
    labels = DATA.train.labels.copy()
    labels[::2] = -1
    seen: list[tuple[int, list[int]]] = []
    paced = Noting(method=Curriculum(method=SoftTargets(), score="loss"), seen=seen)
    done = trained(tmp_path, normalised, paced, count=1, dataset=with_labels(labels), said=EPOCHS)
    scores = done.artefacts["curriculum.scores0"]
    torch.testing.assert_close(scores[::2], scores[1::2].mean().expand(20))
    assert {i for epoch, index in seen if epoch == 6 for i in index} == set(range(40))


def test_a_class_that_is_rare_is_in_the_first_part_as_often_as_in_all() -> None:
    labels = np.repeat([0, 1], [90, 10])
    method = begun(labels=labels, score="random")
    method.on_epoch(1, replace(NO_SURVEY, fingerprint=lambda: FINGERPRINT))
    part = method.orders[0][:10].numpy()
    assert (labels[part] == 1).sum() == 1


def answers(which: Sequence[int]) -> Tensor:
    return TEACHERS[list(which)]


def test_the_mean_of_several_teachers_is_what_their_score_is_of() -> None:
    both, first = scored(score="teacher"), scored(score="teacher", teachers=1)
    assert not torch.equal(both.scores[0], first.scores[0])
    said = torch.log_softmax(answers([0]).mean(0).double(), dim=1)
    expected = -said[torch.arange(SAMPLES), torch.from_numpy(LABELS)]
    torch.testing.assert_close(first.scores[0].double(), expected, rtol=1e-5, atol=1e-6)
