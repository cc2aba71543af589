"""What a plan says of each stage, and of all of them together."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.ladder.tiny import jobs_of, made_up, network, stage, training
from understudy.data import Dataset
from understudy.data.views import ViewPolicy, Views
from understudy.errors import BadInput, Interrupted
from understudy.ladder import Stage, estimate, pace
from understudy.ladder.estimate import Forecast, forecast, makespan
from understudy.ladder.graph import Job
from understudy.ladder.make import make
from understudy.ladder.pace import Pace, Voice
from understudy.ladder.spoken import signals_of
from understudy.store import Store
from understudy.store.housekeeping import size_of
from understudy.store.signals import size_of_signals
from understudy.teaching import Labels, Method, SoftTargets
from understudy.teaching.curriculum import Curriculum
from understudy.teaching.peers import Peers
from understudy.training.signals import Signals

STEP, SAID, DRAWN, LOOK, READY = 100.0, 1.0, 0.1, 3.0, 7.0  # seconds: batch, image, image, split, teacher
IMAGES, BATCHES = 48, 3
VIEWS = Views(policy=ViewPolicy(crop=1))


@pytest.fixture(autouse=True)
def known_pace(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every network takes the same time, and there is one core, so that nothing overlaps."""

    def looked(job: Job, dataset: Dataset) -> Pace:
        return Pace(looks={"validation": LOOK, "test": LOOK}, weights=4 * job.cost.parameters)

    def trained(job: Job, dataset: Dataset) -> Pace:
        return Pace(step=STEP, looks=looked(job, dataset).looks, weights=4 * job.cost.parameters)

    monkeypatch.setattr(pace, "training_pace", trained)
    monkeypatch.setattr(pace, "looking_pace", looked)
    monkeypatch.setattr(pace, "voice", lambda teacher, job, dataset: Voice(ready=READY, image=SAID))
    monkeypatch.setattr(pace, "drawing_seconds", lambda job, dataset: DRAWN)
    with_cores(monkeypatch, 1)


def with_cores(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr(estimate, "cores", lambda: count)


@pytest.fixture
def dataset() -> Dataset:
    return made_up()


def plan(
    place: Path,
    dataset: Dataset,
    stages: Sequence[Stage],
    *,
    parallel: int = 1,
    start: float = 0.0,
    **more: Any,
) -> tuple[list[Job], Forecast]:
    all_jobs = jobs_of(stages, dataset, **{"views": VIEWS, **more})
    return all_jobs, forecast(all_jobs, store=Store(place), dataset=dataset, parallel=parallel, start=start)


def other(name: str, *teachers: str, lr: float = 0.01) -> Stage:
    """A stage of another key than the usual ones."""
    return stage(name, *teachers, training=training(lr=lr))


def alone(epochs: int = 2) -> float:
    """Seconds of a stage that hears nobody."""
    return epochs * (BATCHES * STEP + LOOK) + 2 * LOOK


def spoken(views: int, teachers: int = 1) -> float:
    """Seconds of bulk passes over so many views."""
    return views * IMAGES * (DRAWN + teachers * SAID) + teachers * READY


# --- states and stages ----------------------------------------------------------------------------------------------


def test_a_plan_knows_what_is_kept_what_resumes_and_what_is_to_do(tmp_path: Path, dataset: Dataset) -> None:
    store = Store(tmp_path)
    stages = [stage("kept"), stage("begun", "kept"), stage("rest", "begun", "kept")]
    kept, begun, rest = jobs_of(stages, dataset)
    make(kept, store=store, dataset=dataset)
    asked = iter(range(3))  # once while the teacher speaks, then after steps
    with pytest.raises(Interrupted):
        make(begun, store=store, dataset=dataset, stop=lambda: next(asked, None) is None)
    found = forecast([kept, begun, rest], store=store, dataset=dataset).stages
    assert [found[job.key].state for job in (kept, begun, rest)] == ["kept", "resumes", "to do"]
    assert (found[kept.key].seconds, found[kept.key].bytes) == (0, 0)
    assert found[rest.key].seconds > found[begun.key].seconds > 0  # one teacher more
    assert found[rest.key].bytes > 4 * rest.cost.parameters


def test_a_stage_takes_its_steps_its_looks_and_at_the_end_one_more_of_each(
    tmp_path: Path, dataset: Dataset
) -> None:
    (job,), found = plan(tmp_path, dataset, [stage("one", training=training(epochs=5))])
    assert found.stages[job.key].seconds == pytest.approx(alone(5))
    assert found.seconds == pytest.approx(alone(5))


@pytest.mark.parametrize(("batches", "left"), [(1, 5 - 1 / 3), (3, 4), (7, 3 - 1 / 3), (15, 0)])
def test_what_a_checkpoint_holds_is_not_counted_again(
    tmp_path: Path, dataset: Dataset, batches: int, left: float
) -> None:
    stages = [stage("one", training=training(epochs=5))]
    (job,) = jobs_of(stages, dataset, views=VIEWS)
    place = Store(tmp_path).place(job.key) / "checkpoint"
    for number in {1, batches}:
        (place / f"{number:09d}-0123456789abcdef.safetensors").mkdir(parents=True)
    _, found = plan(tmp_path, dataset, stages)
    assert found.stages[job.key].state == "resumes"
    assert found.stages[job.key].seconds == pytest.approx(left * (BATCHES * STEP + LOOK) + 2 * LOOK)


def test_where_all_is_kept_nothing_is_expected(tmp_path: Path, dataset: Dataset) -> None:
    stages = [stage("teacher"), stage("student", "teacher")]
    for job in jobs_of(stages, dataset, views=VIEWS):
        make(job, store=Store(tmp_path), dataset=dataset)
    _, found = plan(tmp_path, dataset, stages, start=5.0)
    assert (found.seconds, found.stage_bytes, found.signal_bytes, found.views) == (0, 0, 0, 0)


def test_the_start_of_the_command_is_counted_and_that_of_its_workers(
    tmp_path: Path, dataset: Dataset
) -> None:
    _, found = plan(tmp_path, dataset, [stage("one")], start=5.0)
    assert found.seconds == pytest.approx(alone() + 5)
    _, found = plan(tmp_path, dataset, [stage("one")], start=5.0, parallel=2)
    assert found.seconds == pytest.approx(alone() + 10)


# --- teachers speak once --------------------------------------------------------------------------------------------


def test_a_teacher_speaks_once_for_all_students_and_seeds(tmp_path: Path, dataset: Dataset) -> None:
    stages = [
        stage("teacher"),
        stage("a", "teacher"),
        stage("b", "teacher", method=SoftTargets(temperature=2)),
        stage("c", "teacher", network=network(width=0.5)),
    ]
    jobs, found = plan(tmp_path, dataset, stages, seeds=[0, 1])
    assert len(jobs) == 7
    assert found.seconds == pytest.approx(7 * alone() + spoken(2))
    assert [found.stages[job.key].seconds for job in jobs[1:3]] == pytest.approx(
        [alone() + spoken(2), alone()]
    )
    assert (found.views, found.teachers) == (2, 1)


def test_only_views_that_no_stage_before_needed_are_said_again(tmp_path: Path, dataset: Dataset) -> None:
    longer = stage("longer", "teacher", training=training(epochs=5))
    jobs, found = plan(tmp_path, dataset, [stage("teacher"), stage("student", "teacher"), longer])
    assert found.stages[jobs[2].key].seconds == pytest.approx(alone(5) + spoken(3))
    assert found.views == 5


def test_several_teachers_look_at_a_view_that_is_drawn_once(tmp_path: Path, dataset: Dataset) -> None:
    stages = [stage("t"), stage("a", "t", network=network(width=0.5)), stage("s", "t", "a")]
    jobs, found = plan(tmp_path, dataset, stages)
    # the first teacher's answers are there already when both are needed
    assert found.stages[jobs[2].key].seconds == pytest.approx(alone() + spoken(2))
    both = [stage("t"), stage("u", network=network(width=0.5)), stage("s", "t", "u")]
    jobs, found = plan(tmp_path, dataset, both)
    assert found.stages[jobs[2].key].seconds == pytest.approx(alone() + spoken(2, teachers=2))
    assert (found.views, found.teachers) == (2, 2)


@pytest.mark.parametrize(
    ("views", "count"),
    [
        (Views(), 1),
        (VIEWS, 6),
        (Views(policy=VIEWS.policy, distinct=2), 2),
        (Views(policy=VIEWS.policy, per_seed=True), 12),
    ],
    ids=["none", "one an epoch", "distinct", "per seed"],
)
def test_views_are_as_many_as_the_epochs_show(
    tmp_path: Path, dataset: Dataset, views: Views, count: int
) -> None:
    stages = [stage("teacher"), stage("student", "teacher", training=training(epochs=6))]
    _, found = plan(tmp_path, dataset, stages, seeds=[0, 1], views=views)
    ready = READY * (2 if views.per_seed else 1)
    assert found.seconds == pytest.approx(alone() + 2 * alone(6) + count * IMAGES * (DRAWN + SAID) + ready)
    assert (found.views, found.signal_bytes) == (count, count * IMAGES * 4 * 2)


def test_who_hears_nobody_waits_for_nobody(tmp_path: Path, dataset: Dataset) -> None:
    jobs, found = plan(tmp_path, dataset, [stage("alone"), other("other")])
    assert [found.stages[job.key].seconds for job in jobs] == pytest.approx([alone(), alone()])
    assert (found.views, found.teachers, found.signal_bytes) == (0, 0, 0)


def test_what_is_foretold_to_be_written_then_lies_there(tmp_path: Path, dataset: Dataset) -> None:
    stages = [stage("teacher"), stage("a", "teacher"), stage("b", "teacher", "a")]
    store = Store(tmp_path)
    jobs, found = plan(tmp_path, dataset, stages)
    for job in jobs:
        make(job, store=store, dataset=dataset)
    tensors = IMAGES * 4 * 2  # of one view; the headers of files this small weigh more
    headers = size_of_signals(store) - 4 * tensors
    assert found.signal_bytes == 4 * tensors
    assert 0 < headers < 4 * 1000
    for job in jobs:
        assert found.stages[job.key].bytes == pytest.approx(size_of(store.place(job.key)), rel=0.3)


def test_what_is_there_costs_nothing_and_is_said(tmp_path: Path, dataset: Dataset) -> None:
    stages = [stage("teacher"), stage("a", "teacher")]
    for job in jobs_of(stages, dataset, views=VIEWS):
        make(job, store=Store(tmp_path), dataset=dataset)
    more = [*stages, stage("b", "teacher", training=training(epochs=3, lr=0.01))]
    jobs, found = plan(tmp_path, dataset, more)
    assert found.stages[jobs[2].key].seconds == pytest.approx(alone(3) + spoken(1))
    assert (found.signal_bytes, found.signal_bytes_there) == (IMAGES * 4 * 2, 2 * IMAGES * 4 * 2)


def test_signals_of_another_version_are_refused(tmp_path: Path, dataset: Dataset) -> None:
    stages = [stage("teacher"), stage("student", "teacher")]
    (files,) = signals_of(
        jobs_of(stages, dataset, views=VIEWS), store=Store(tmp_path), dataset=dataset
    ).values()
    files.folder.mkdir(parents=True)
    (files.folder / "signals.json").write_text(json.dumps({"version": 99}), "utf-8")
    with pytest.raises(BadInput, match="have format 99, this understudy reads format 1"):
        plan(tmp_path, dataset, stages)


# --- a curriculum looks back ----------------------------------------------------------------------------------------

LOOKED = 2 * LOOK * IMAGES / (8 + 16)  # the student on all training images, at the pace of both other splits
ASKED = IMAGES * (DRAWN + SAID)  # a teacher on all training images as they are


def curriculum(score: Any, method: Method | None = None) -> Curriculum:
    return Curriculum(method=method or SoftTargets(), score=score)  # phases begin in epochs 1, 3 and 6 of 10


@pytest.mark.parametrize(
    ("score", "surveys"),
    [
        ("gap", 3 * LOOKED + ASKED),
        ("teacher", ASKED),
        ("loss", 3 * LOOKED),
        ("confidence", 3 * LOOKED),
        ("random", 0.0),
    ],
)
def test_a_curriculum_takes_its_surveys_more_and_writes_the_same_signals(
    tmp_path: Path, dataset: Dataset, score: str, surveys: float
) -> None:
    def planned(method: Method) -> tuple[float, Forecast]:
        stages = [stage("teacher"), stage("student", "teacher", training=training(epochs=10), method=method)]
        jobs, found = plan(tmp_path, dataset, stages)
        return found.stages[jobs[1].key].seconds, found

    plain, without = planned(SoftTargets())
    assert plain == pytest.approx(alone(10) + spoken(10))
    seconds, found = planned(curriculum(score))
    assert seconds == pytest.approx(plain + surveys)
    assert found.seconds == pytest.approx(without.seconds + surveys)
    assert found.stage_bytes == without.stage_bytes
    for what in ("signal_bytes", "views", "teachers", "live"):
        assert getattr(found, what) == getattr(without, what)


def test_each_boundary_that_the_epochs_have_room_for_is_one_look_of_the_student(
    tmp_path: Path, dataset: Dataset
) -> None:
    for epochs, phases in ((2, 1), (4, 2), (10, 3), (100, 3)):
        said = stage("one", training=training(epochs=epochs), method=curriculum("loss", Labels()))
        (job,), found = plan(tmp_path, dataset, [said])
        assert found.stages[job.key].seconds == pytest.approx(alone(epochs) + phases * LOOKED)


def test_a_curriculum_inside_or_around_peers_looks_back_too(tmp_path: Path, dataset: Dataset) -> None:
    for method in (Peers(method=curriculum("loss", Labels())), curriculum("loss", Peers(method=Labels()))):
        (job,), found = plan(tmp_path, dataset, [stage("one", training=training(epochs=10), method=method)])
        assert found.stages[job.key].seconds == pytest.approx(alone(10) + 3 * LOOKED)


@pytest.mark.parametrize(("batches", "left"), [(0, 3), (3, 3), (4, 2), (9, 2), (10, 1), (18, 1), (19, 0)])
def test_surveys_that_a_checkpoint_holds_are_not_counted_again(
    tmp_path: Path, dataset: Dataset, batches: int, left: int
) -> None:
    stages = [stage("one", training=training(epochs=10), method=curriculum("loss", Labels()))]
    (job,) = jobs_of(stages, dataset, views=VIEWS)
    (Store(tmp_path).place(job.key) / "checkpoint" / f"{batches:09d}-0123456789abcdef.safetensors").mkdir(
        parents=True
    )
    _, found = plan(tmp_path, dataset, stages)
    laps = (10 - batches / BATCHES) * BATCHES * STEP + (10 - batches // BATCHES) * LOOK
    started = batches % BATCHES / BATCHES * LOOK  # an epoch that was begun is taken as its part
    assert found.stages[job.key].seconds == pytest.approx(laps - started + 2 * LOOK + left * LOOKED)


def test_teachers_are_not_asked_again_about_images_that_are_shown_as_they_are(
    tmp_path: Path, dataset: Dataset
) -> None:
    said = stage("student", "teacher", training=training(epochs=10), method=curriculum("gap"))
    jobs, found = plan(tmp_path, dataset, [stage("teacher"), said], views=Views())
    assert found.stages[jobs[1].key].seconds == pytest.approx(alone(10) + spoken(1) + 3 * LOOKED)
    # what finds no room is answered live, in the survey too
    jobs, found = plan(tmp_path, dataset, [stage("teacher"), said], views=Views(), signals=Signals(max_gb=0))
    lives = 10 * IMAGES * SAID + READY
    assert found.stages[jobs[1].key].seconds == pytest.approx(alone(10) + lives + 3 * LOOKED + ASKED)


def test_a_teacher_whose_answers_are_all_kept_is_made_ready_for_the_survey(
    tmp_path: Path, dataset: Dataset
) -> None:
    ten = training(epochs=10)
    stages = [
        stage("teacher"),
        stage("first", "teacher", training=ten),
        stage("second", "teacher", training=ten, method=curriculum("gap")),
    ]
    jobs, found = plan(tmp_path, dataset, stages)
    assert found.stages[jobs[2].key].seconds == pytest.approx(alone(10) + READY + ASKED + 3 * LOOKED)


def test_the_answers_of_a_survey_stay_in_memory(
    tmp_path: Path, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pace, "anonymous_bytes", lambda: 1000)

    def memory(method: Method) -> int | None:
        return plan(tmp_path, dataset, [stage("t"), stage("s", "t", method=method)])[1].memory

    plain, asked = memory(SoftTargets()), memory(curriculum("gap"))
    assert plain is not None
    assert asked == plain + IMAGES * 4 * 4


# --- what finds no room ---------------------------------------------------------------------------------------------


def test_without_room_teachers_answer_in_every_epoch(tmp_path: Path, dataset: Dataset) -> None:
    stages = [stage("teacher"), stage("student", "teacher", training=training(epochs=4))]
    views = Views(policy=VIEWS.policy, distinct=2)
    jobs, found = plan(tmp_path, dataset, stages, seeds=[0, 1], views=views, signals=Signals(max_gb=0))
    for job in jobs[1:]:
        assert found.stages[job.key].seconds == pytest.approx(alone(4) + 4 * IMAGES * SAID + READY)
    assert (found.live, found.signal_bytes, found.views) == (True, 0, 0)


def test_what_finds_room_is_kept_and_the_rest_is_said_again(tmp_path: Path, dataset: Dataset) -> None:
    stages = [stage("teacher"), stage("student", "teacher", training=training(epochs=3))]
    view = IMAGES * 4 * 2
    _, found = plan(tmp_path, dataset, stages, signals=Signals(max_gb=2.5 * view / 1e9))
    assert found.seconds == pytest.approx(alone() + alone(3) + spoken(2) + IMAGES * SAID)
    assert (found.live, found.signal_bytes, found.views) == (True, 2 * view, 2)


def test_a_full_disk_leaves_no_room(
    tmp_path: Path, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(estimate, "free_bytes", lambda store: -5)
    _, found = plan(tmp_path, dataset, [stage("teacher"), stage("student", "teacher")])
    assert (found.live, found.signal_bytes) == (True, 0)


def test_a_store_that_is_not_there_yet_is_not_made(tmp_path: Path, dataset: Dataset) -> None:
    _, found = plan(tmp_path / "not" / "yet", dataset, [stage("teacher"), stage("student", "teacher")])
    assert not found.live
    assert not list(tmp_path.iterdir())


# --- what overlaps --------------------------------------------------------------------------------------------------


def test_with_a_free_core_the_next_view_is_said_while_this_one_is_learned(
    tmp_path: Path, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    stages = [stage("teacher"), stage("student", "teacher", training=training(epochs=4))]
    with_cores(monkeypatch, 2)
    _, found = plan(tmp_path, dataset, stages)
    assert spoken(1) - READY < BATCHES * STEP  # the first is waited for, the others are hidden
    assert found.seconds == pytest.approx(alone() + alone(4) + spoken(1))
    monkeypatch.setattr(pace, "voice", lambda teacher, job, dataset: Voice(ready=0.0, image=20.0))
    _, found = plan(tmp_path, dataset, stages)
    views = 4 * IMAGES * (20 + DRAWN)  # now the student waits, and the last epoch hides nothing
    assert found.seconds == pytest.approx(alone() + views + BATCHES * STEP + 3 * LOOK)


def test_side_by_side_it_takes_what_the_graph_allows(
    tmp_path: Path, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    stages = [stage("teacher"), stage("student", "teacher"), other("scratch"), other("more", lr=0.03)]
    with_cores(monkeypatch, 2)
    _, found = plan(tmp_path, dataset, stages, parallel=2)
    # teacher beside scratch, then student beside more
    assert found.seconds == pytest.approx(2 * alone() + spoken(2))
    _, found = plan(tmp_path, dataset, stages, parallel=9)
    assert found.seconds == pytest.approx(2 * alone() + spoken(2)), "there are two cores"
    with_cores(monkeypatch, 16)
    _, found = plan(tmp_path, dataset, stages, parallel=9)
    assert found.seconds == pytest.approx(2 * alone() + spoken(1)), "and then cores to speak ahead"


LADDER = jobs_of(
    [stage("t"), stage("a", "t"), stage("b", "a"), stage("c", "a", "t"), other("d"), stage("e", "d")],
    made_up(),
)


@given(
    durations=st.lists(st.floats(0, 1000), min_size=len(LADDER), max_size=len(LADDER)),
    places=st.integers(1, 7),
)
def test_time_lies_between_the_longest_way_and_one_after_another(durations: list[float], places: int) -> None:
    took = {job.key: seconds for job, seconds in zip(LADDER, durations, strict=True)}
    most = []

    def seconds(job: Job, running: int) -> float:
        most.append(running)
        return took[job.key]

    def way(job: Job) -> float:
        return took[job.key] + max((way(needed) for needed in job.inputs), default=0.0)

    found = makespan(LADDER, seconds, places=places)
    longest = max(way(job) for job in LADDER)
    assert max(most) <= places
    assert len(most) == len(LADDER)
    assert found >= max(longest, sum(durations) / places) * (1 - 1e-9)
    assert found <= sum(durations) * (1 + 1e-9)
    # no schedule that leaves no place idle without need is worse
    assert found <= (sum(durations) / places + longest) * (1 + 1e-9)
    if places == 1:
        assert found == pytest.approx(sum(durations))


# --- memory ---------------------------------------------------------------------------------------------------------


def test_memory_is_that_of_every_process(
    tmp_path: Path, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    stages = [stage("teacher"), other("one"), other("two", lr=0.03)]
    monkeypatch.setattr(pace, "anonymous_bytes", lambda: 1000)
    assert plan(tmp_path, dataset, stages)[1].memory == 1000
    assert plan(tmp_path, dataset, stages, parallel=2)[1].memory == 3000
    assert plan(tmp_path, dataset, stages, parallel=8)[1].memory == 4000
    _, found = plan(tmp_path, dataset, [stage("teacher"), stage("student", "teacher")])
    assert found.memory == 1000 + 3 * IMAGES * 4 * 2  # signals while they are put together and packed


def test_memory_is_not_guessed_where_the_system_does_not_tell(
    tmp_path: Path, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pace, "anonymous_bytes", lambda: None)
    assert plan(tmp_path, dataset, [stage("teacher")])[1].memory is None
