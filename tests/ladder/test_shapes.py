"""The shapes, as the papers draw them."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import pytest

from tests.ladder.tiny import ASSISTANTS, STUDENT, TEACHER, rung, training
from understudy.errors import BadInput
from understudy.ladder import Network, Stage, shapes
from understudy.ladder.shapes import Rung
from understudy.teaching import Labels, Method, SoftTargets, Stochastic

THREE = [rung(f"plain_cnn-{size}", width=1.0) for size in (8, 6, 4)]
TEN = rung("plain_cnn-10", width=1.0)
TWO = rung("plain_cnn-2", width=1.0)


def drawn(stages: list[Stage]) -> dict[str, tuple[str, ...]]:
    """Teachers of each stage, in the order of the stages."""
    return {stage.name: stage.teachers for stage in stages}


def method_of(stage: Stage) -> SoftTargets:
    assert isinstance(stage.method, SoftTargets)
    return stage.method


def test_scratch_is_the_student_alone_with_the_labels() -> None:
    (only,) = shapes.scratch(TWO)
    assert (only.name, only.role, only.teachers) == ("scratch", "student", ())
    assert isinstance(only.method, Labels)
    assert only.training == TWO.training


def test_direct_is_the_teacher_and_its_student() -> None:
    stages = shapes.direct(TEN, TWO, SoftTargets())
    assert drawn(stages) == {"teacher": (), "direct": ("teacher",)}
    assert [stage.role for stage in stages] == ["teacher", "student"]
    assert isinstance(stages[0].method, Labels)


def test_in_a_chain_everyone_learns_from_its_immediate_predecessor_only() -> None:
    stages = shapes.chain(TEN, THREE, TWO, SoftTargets())
    assert drawn(stages) == {
        "teacher": (),
        "chain/plain_cnn-8": ("teacher",),
        "chain/plain_cnn-6": ("chain/plain_cnn-8",),
        "chain/plain_cnn-4": ("chain/plain_cnn-6",),
        "chain": ("chain/plain_cnn-4",),
    }
    assert [stage.role for stage in stages] == ["teacher", "assistant", "assistant", "assistant", "student"]
    assert all(stage.start is None for stage in stages)  # from scratch, each


def test_in_a_dense_ladder_everyone_learns_from_all_larger_ones() -> None:
    stages = shapes.dense(TEN, THREE, TWO, SoftTargets())
    above = ["teacher", "dense/plain_cnn-8", "dense/plain_cnn-6", "dense/plain_cnn-4"]
    assert drawn(stages) == {
        "teacher": (),
        "dense/plain_cnn-8": tuple(above[:1]),
        "dense/plain_cnn-6": tuple(above[:2]),
        "dense/plain_cnn-4": tuple(above[:3]),
        "dense": tuple(above),
    }
    assert all(stage.start is None for stage in stages)


@pytest.mark.parametrize("shape", [shapes.chain, shapes.dense])
def test_without_assistants_every_ladder_is_direct(shape: object) -> None:
    stages = shape(TEN, [], TWO, SoftTargets())  # type: ignore[operator]
    (_, student), (_, direct) = stages, shapes.direct(TEN, TWO, SoftTargets())
    assert (student.network, student.teachers, student.method) == (
        direct.network,
        direct.teachers,
        direct.method,
    )


def test_teachers_are_dropped_for_the_last_student_only() -> None:
    stages = shapes.dense(TEN, THREE, TWO, SoftTargets(), stochastic=Stochastic(keep=0.5))
    assert [method_of(stage).stochastic for stage in stages[1:]] == [None, None, None, Stochastic(keep=0.5)]


def test_stochastic_teaching_needs_soft_targets() -> None:
    with pytest.raises(BadInput, match="stochastic teaching goes with soft targets, not with labels"):
        shapes.with_stochastic(Labels(), Stochastic())


def test_teacher_weights_count_for_as_many_teachers_as_a_stage_has() -> None:
    weights = (1.0, 0.5, 0.25, 0.125)
    stages = shapes.dense(TEN, THREE, TWO, SoftTargets(teacher_weights=weights))
    assert [method_of(stage).teacher_weights for stage in stages[1:]] == [weights[:n] for n in (1, 2, 3, 4)]
    for stage in shapes.chain(TEN, THREE, TWO, SoftTargets(teacher_weights=weights))[1:]:
        assert method_of(stage).teacher_weights == weights[:1]


@pytest.mark.parametrize("count", range(5))
def test_there_are_two_to_the_n_paths_and_prefixes_are_shared(count: int) -> None:
    assistants = [rung("plain_cnn-2", width=1 / (place + 1)) for place in range(1, count + 1)]
    stages = shapes.paths(TEN, assistants, TWO, SoftTargets())
    roles = [stage.role for stage in stages]
    assert roles.count("student") == 2**count
    assert roles.count("assistant") == 2**count - 1  # one for each beginning that is not empty
    assert len(stages) == 2 ** (count + 1)
    assert len({stage.name for stage in stages}) == len(stages)


def test_three_candidates_give_the_eight_paths_of_the_paper() -> None:
    stages = {stage.name: stage for stage in shapes.paths(TEN, THREE, TWO, SoftTargets())}
    assert len(stages) == 16
    walked = set()
    for name, student in stages.items():
        if student.role != "student":
            continue
        walk, here = [], student
        while here.teachers:
            assert len(here.teachers) == 1  # as in a chain: the immediate predecessor only
            here = stages[here.teachers[0]]
            walk.append(here.network.name)
        assert walk[-1] == "plain_cnn-10"
        assert student.network.name == "plain_cnn-2"
        climbed = tuple(reversed(walk[:-1]))
        assert name == ("path " + " > ".join(climbed) if climbed else "direct")
        walked.add(climbed)
    sizes = [one.network.name for one in THREE]
    assert walked == {chosen for count in range(4) for chosen in combinations(sizes, count)}


def test_too_many_paths_are_refused_with_their_number() -> None:
    with pytest.raises(BadInput, match="paths through 11 assistants are 2048; give 10 at most"):
        shapes.paths(TEN, [TWO] * 11, TWO, SoftTargets())


def epochs_of(stages: list[Stage]) -> int:
    assert stages[-1].training is not None
    return stages[-1].training.epochs


def test_direct_long_spends_all_epochs_that_the_ladder_spends_below_its_teacher() -> None:
    assistants = [rung("plain_cnn-4", epochs=5), rung("plain_cnn-2", epochs=7)]
    stages = shapes.direct_long(rung("plain_cnn-10", epochs=100), assistants, rung(epochs=3), SoftTargets())
    assert drawn(stages) == {"teacher": (), "direct_long": ("teacher",)}
    assert epochs_of(stages) == 5 + 7 + 3
    below = shapes.dense(rung("plain_cnn-10", epochs=100), assistants, rung(epochs=3), SoftTargets())[1:]
    assert epochs_of(stages) == sum(stage.training.epochs for stage in below if stage.training)


def test_direct_long_by_multiply_adds_spends_as_many_of_them() -> None:
    assistants, student = [rung(epochs=5), rung(epochs=7)], rung(epochs=3)
    stages = shapes.direct_long(TEN, assistants, student, SoftTargets(), costs=[400, 100, 10])
    assert epochs_of(stages) == (5 * 400 + 7 * 100 + 3 * 10) // 10
    rounded = shapes.direct_long(TEN, assistants[:1], student, SoftTargets(), costs=[14, 20])
    assert epochs_of(rounded) == round(3 + 5 * 14 / 20)


def test_assistants_that_exist_already_cost_direct_long_nothing(tmp_path: Path) -> None:
    given = Rung(network=Network(name="plain_cnn-4"), training=training(epochs=50), weights=tmp_path / "a.pt")
    assert epochs_of(shapes.direct_long(TEN, [given, rung(epochs=4)], rung(epochs=3), SoftTargets())) == 7
    by_cost = shapes.direct_long(TEN, [given, rung(epochs=4)], rung(epochs=3), SoftTargets(), costs=[9, 2, 1])
    assert epochs_of(by_cost) == 11


def test_every_rung_keeps_its_own_training() -> None:
    assistants = [rung("plain_cnn-4", epochs=5), rung("plain_cnn-2", lr=0.5)]
    for shape in (shapes.chain, shapes.dense):
        stages = shape(TEACHER, assistants, STUDENT, SoftTargets())
        assert [stage.training for stage in stages] == [
            TEACHER.training,
            *(one.training for one in assistants),
            STUDENT.training,
        ]


def test_a_given_teacher_is_not_trained_and_one_may_begin_from_weights(tmp_path: Path) -> None:
    given = Rung(network=Network(name="plain_cnn-4"), training=training(), weights=tmp_path / "a.pt")
    stage = shapes.teacher_stage(given)
    assert (stage.weights, stage.method, stage.training) == (tmp_path / "a.pt", None, None)
    begun = Rung(network=Network(name="plain_cnn-4"), training=training(), start=tmp_path / "a.pt")
    stage = shapes.teacher_stage(begun)
    assert (stage.weights, stage.start, stage.training) == (None, tmp_path / "a.pt", training())


def test_two_assistants_of_one_network_get_names_of_their_own() -> None:
    stages = shapes.chain(TEN, [TWO, ASSISTANTS[0], TWO], TWO, SoftTargets())
    assert [stage.name for stage in stages[1:-1]] == [
        "chain/plain_cnn-2 #1",
        "chain/plain_cnn-2 x0.5",
        "chain/plain_cnn-2 #2",
    ]


def test_merged_shapes_share_their_teacher() -> None:
    chain, dense = (
        shape(TEACHER, ASSISTANTS, STUDENT, SoftTargets()) for shape in (shapes.chain, shapes.dense)
    )
    stages = shapes.merged(chain, dense, shapes.scratch(STUDENT))
    assert [stage.name for stage in stages].count("teacher") == 1
    assert len(stages) == len(chain) + len(dense) - 1 + 1


def test_the_same_method_is_not_shared_by_what_it_remembers() -> None:
    method: Method = SoftTargets()
    one, other = (method.for_stage(teachers=1) for _ in range(2))
    assert one is not other
    assert one.metrics()["taught"] is not other.metrics()["taught"]
