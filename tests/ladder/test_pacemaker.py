"""The pacemaker in its three readings: who teaches whom, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from tests.ladder import tiny
from tests.ladder.tiny import by_name, jobs_of, made_up, rung, states
from tests.teaching.toys import drawn as numbers
from tests.teaching.toys import made_step
from understudy.errors import BadInput
from understudy.ladder import Network, Stage, shapes
from understudy.ladder.pacemaker import READINGS, pacemaker
from understudy.ladder.runner import run
from understudy.ladder.shapes import Rung
from understudy.losses import soft_target_loss
from understudy.store import Store
from understudy.teaching import Labels, SoftTargets

METHOD = SoftTargets(temperature=3.0, soft_weight=0.7)
TEACHER = rung("wrn-10-1", width=0.5)
STUDENT = Rung(network=Network(name="wrn-10-1", width=0.25, strip=3), training=tiny.training())
OTHER = Rung(network=Network(name="wrn-10-1", width=0.375, strip=3), training=tiny.training(epochs=1))


def made(reading: str = "ensemble", assistants: Any = (), **changed: Any) -> list[Stage]:
    said = {"teacher": TEACHER, "student": STUDENT, "method": METHOD, **changed}
    return pacemaker(said["teacher"], assistants, said["student"], said["method"], reading=reading)  # type: ignore[arg-type]


def drawn(stages: list[Stage]) -> dict[str, tuple[str, ...]]:
    return {stage.name: stage.teachers for stage in stages}


def method_of(stage: Stage) -> SoftTargets:
    assert isinstance(stage.method, SoftTargets)
    return stage.method


def test_in_an_ensemble_the_teacher_teaches_the_pacemaker_and_both_the_student() -> None:
    stages = made()
    between = "pacemaker/wrn-10-1 x0.25 1x3"
    assert drawn(stages) == {"teacher": (), between: ("teacher",), "pacemaker": ("teacher", between)}
    assert [stage.role for stage in stages] == ["teacher", "assistant", "student"]
    assert stages[1].network == STUDENT.network
    assert method_of(stages[1]) == METHOD
    assert stages[2].network == STUDENT.network
    assert all(stage.start is None for stage in stages)


def test_an_ensembles_pacemaker_is_the_assistant_that_is_given() -> None:
    stages = made(assistants=[OTHER])
    assert stages[1].network == OTHER.network
    assert stages[1].training == OTHER.training
    assert stages[2].teachers == ("teacher", "pacemaker/wrn-10-1 x0.375 1x3")


def test_a_pacemaker_that_is_there_already_is_not_taught(tmp_path: Path) -> None:
    given = replace(OTHER, weights=tmp_path / "given.safetensors")
    stage = made(assistants=[given])[1]
    assert (stage.weights, stage.teachers, stage.training) == (given.weights, (), None)


def test_in_a_hybrid_the_student_learns_from_a_mixed_network_alone() -> None:
    stages = made("hybrid")
    between = "pacemaker/wrn-10-1 x0.25 late 1x3"
    assert drawn(stages) == {"teacher": (), between: ("teacher",), "pacemaker": (between,)}
    assert stages[1].network == replace(STUDENT.network, strip_part="late")
    assert [method_of(stage) for stage in stages[1:]] == [METHOD, METHOD]


def test_a_hybrid_is_a_chain_over_its_mixed_network() -> None:
    mixed = replace(STUDENT, network=replace(STUDENT.network, strip_part="late"))
    chain = shapes.chain(TEACHER, [mixed], STUDENT, METHOD, name="pacemaker")
    assert made("hybrid") == chain


def test_an_ensemble_of_strips_teaches_without_the_teacher() -> None:
    stages = made("strips")
    members = [f"pacemaker/wrn-10-1 x0.25 1x{n}" for n in (3, 5, 7)]
    assert drawn(stages) == {
        "teacher": (),
        **dict.fromkeys(members, ("teacher",)),
        "pacemaker": tuple(members),
    }
    assert [stage.role for stage in stages] == ["teacher", "assistant", "assistant", "assistant", "student"]
    assert all(method_of(stage) == METHOD for stage in stages[1:4])


def test_the_members_of_an_ensemble_of_strips_are_not_one_network_three_times() -> None:
    jobs = by_name(jobs_of(made("strips"), made_up()))
    keys = {name: job.key for name, (job,) in jobs.items()}
    assert len(set(keys.values())) == 5


def test_an_ensemble_of_strips_may_be_given(tmp_path: Path) -> None:
    there = replace(OTHER, weights=tmp_path / "given.safetensors")
    stages = made("strips", [OTHER, there, STUDENT], student=tiny.STUDENT)
    names = [
        "pacemaker/wrn-10-1 x0.375 1x3 #1",
        "pacemaker/wrn-10-1 x0.375 1x3 #2",
        "pacemaker/wrn-10-1 x0.25 1x3",
    ]
    assert [stage.name for stage in stages[1:-1]] == names
    assert stages[-1].teachers == tuple(names)
    assert stages[2].weights == there.weights


def test_a_mean_of_one_network_with_itself_is_refused() -> None:
    with pytest.raises(
        BadInput, match=r"the reading strips averages what several networks say, and .* stands twice"
    ):
        made("strips", [OTHER, OTHER], student=tiny.STUDENT)


@pytest.mark.parametrize("reading", ["ensemble", "strips"])
def test_an_ensembles_answers_are_averaged_whatever_the_method_sums(reading: str) -> None:
    method = SoftTargets(temperature=3.0, soft_weight=0.7, combine="sum", hard_terms="per_teacher")
    last = method_of(made(reading, method=method)[-1])
    assert (last.combine, last.hard_terms) == ("mean", "once")
    assert (last.temperature, last.soft_weight) == (3.0, 0.7)


def test_the_gradient_is_that_of_kl_to_the_mean_of_the_softened_answers() -> None:
    teachers, labels = numbers(3, 8, 10, seed=2), torch.arange(8)
    student = numbers(8, 10, seed=1).requires_grad_()
    method = method_of(made("strips")[-1])
    method.for_stage(teachers=3).loss(made_step(student, labels, teachers))["total"].backward()  # type: ignore[no-untyped-call]
    found, student.grad = student.grad, None

    mean = F.softmax(teachers / 3.0, dim=-1).mean(0)
    soft = soft_target_loss(student, 3.0 * mean.log(), temperature=3.0).mean()  # softened, it is the mean
    (0.3 * F.cross_entropy(student, labels) + 0.7 * soft).backward()  # type: ignore[no-untyped-call]
    assert found is not None
    assert student.grad is not None
    torch.testing.assert_close(found, student.grad)


def test_teacher_weights_are_for_the_teacher_and_its_pacemaker() -> None:
    weights = SoftTargets(teacher_weights=(1.0, 0.5, 0.25))
    assert [method_of(stage).teacher_weights for stage in made(method=weights)[1:]] == [(1.0,), (1.0, 0.5)]
    assert [method_of(stage).teacher_weights for stage in made("hybrid", method=weights)[1:]] == [(1.0,)] * 2
    with pytest.raises(BadInput, match="leave teacher_weights out"):
        made("strips", method=weights)


def test_a_pacemaker_like_the_student_is_the_direct_student_of_the_ladders_seed() -> None:
    stages = shapes.merged(made(), shapes.direct(TEACHER, STUDENT, METHOD))
    jobs = by_name(jobs_of(stages, made_up(), seeds=[0, 1]))
    (between,) = jobs["pacemaker/wrn-10-1 x0.25 1x3"]
    assert between.key == jobs["direct"][0].key
    assert between.key != jobs["direct"][1].key


def test_a_pacemaker_like_the_student_begins_with_new_weights(tmp_path: Path) -> None:
    begun = replace(STUDENT, start=tmp_path / "student.safetensors")
    for reading in READINGS:
        *_, between, last = made(reading, student=begun)
        assert (between.start, last.start) == (None, begun.start)


@pytest.mark.parametrize("reading", READINGS)
def test_every_reading_runs(reading: str, tmp_path: Path) -> None:
    stages = made(reading)
    dataset = made_up(train=16, validation=4, test=4)
    outcomes = run(jobs_of(stages, dataset), store=Store(tmp_path), dataset=dataset)
    assert set(states(outcomes).values()) == {"done"}
    assert len(outcomes) == len(stages)


@pytest.mark.parametrize(
    ("reading", "assistants", "changed", "said"),
    [
        ("ensembles", [], {}, r"reading 'ensembles' is none of .* Did you mean 'ensemble'"),
        (
            "ensemble",
            [OTHER, STUDENT],
            {},
            "one pacemaker; the assistants are wrn-10-1 x0.375 1x3, wrn-10-1 x0.25 1x3",
        ),
        ("hybrid", [OTHER], {}, r"leave the assistants out \(wrn-10-1 x0.375 1x3\)"),
        (
            "strips",
            [OTHER],
            {},
            "averages several networks, and wrn-10-1 x0.375 1x3 is one. Give two or more",
        ),
        ("hybrid", [], {"student": tiny.STUDENT}, "plain_cnn-2 x0.25 has none. Set strip: 3 on the student"),
        ("strips", [], {"student": tiny.STUDENT}, "plain_cnn-2 x0.25 has none. Set strip: 3 on the student"),
        (
            "ensemble",
            [],
            {"student": replace(STUDENT, weights=Path("a.pt"))},
            "the student has weights of its own",
        ),
        ("ensemble", [], {"method": Labels()}, "averages soft targets; the method is labels"),
    ],
)
def test_what_does_not_go_together_is_refused_in_one_line(
    reading: str, assistants: list[Rung], changed: dict[str, Any], said: str
) -> None:
    with pytest.raises(BadInput, match=said) as caught:
        made(reading, assistants, **changed)
    assert "\n" not in str(caught.value)
