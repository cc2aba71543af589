"""Whole tiny ladders: what is made, what is found, what fails, what is waited for, and what is made again."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest
import torch

from tests.ladder.tiny import (
    ASSISTANTS,
    STUDENT,
    TEACHER,
    jobs_of,
    made_up,
    stage,
    states,
    training,
    weights_of,
)
from understudy.data import Dataset
from understudy.data.views import Views
from understudy.errors import BadInput
from understudy.ladder import Ladder, make, shapes
from understudy.ladder.graph import Job, jobs
from understudy.ladder.runner import Outcome, Watcher, run
from understudy.ladder.spoken import signals_of
from understudy.ladder.workers import Event, attempt
from understudy.store import Store
from understudy.teaching import SoftTargets, Stochastic
from understudy.training.signals import Signals

DENSE = shapes.dense(TEACHER, ASSISTANTS[:1], STUDENT, SoftTargets(), stochastic=Stochastic(keep=0.5))
ASSISTANT = DENSE[1].name
STAGES = shapes.merged(DENSE, shapes.scratch(STUDENT))


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return made_up()


@pytest.fixture(scope="module")
def all_jobs(dataset: Dataset) -> list[Job]:
    return jobs(Ladder(STAGES, ("dense",)), dataset, seeds=[0], views=Views(), signals=Signals())


@pytest.fixture(scope="module")
def finished(
    all_jobs: list[Job], dataset: Dataset, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Store, list[Outcome]]:
    """A run that nothing disturbed; not to be changed."""
    store = Store(tmp_path_factory.mktemp("finished"))
    return store, run(all_jobs, store=store, dataset=dataset)


@pytest.fixture
def reference(finished: tuple[Store, list[Outcome]]) -> dict[str, bytes]:
    return weights_of(*finished)


def spoil(path: Path) -> None:
    """Changes one bit in the middle of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


def job_called(name: str, all_jobs: Iterable[Job]) -> Job:
    return next(job for job in all_jobs if job.name == name)


def lines_of(store: Store, key: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in (store.place(key) / "metrics.jsonl").read_text().splitlines()]


# ----------------------------------------------------------------------------------------------- made and found
def test_every_stage_is_made_once_inputs_first(all_jobs: list[Job], dataset: Dataset, tmp_path: Path) -> None:
    began: list[str] = []
    ended: list[Outcome] = []
    watcher = Watcher(began=lambda job: began.append(job.name), ended=ended.append)
    store = Store(tmp_path)
    outcomes = run(all_jobs, store=store, dataset=dataset, watcher=watcher)
    assert began == ["teacher", ASSISTANT, "dense", "scratch"]
    assert [outcome.job.name for outcome in ended] == began
    assert set(states(outcomes).values()) == {"done"}
    assert not any(outcome.from_store for outcome in outcomes)
    assert [outcome.job.name for outcome in outcomes] == [job.name for job in all_jobs]
    for outcome in outcomes:
        assert outcome.result is not None
        assert outcome.result.record["epochs"] == len(lines_of(store, outcome.job.key)) == 2
        assert outcome.result.record["steps"] == 2 * 3


def test_a_finished_stage_keeps_no_checkpoint_and_no_unfinished_file(
    finished: tuple[Store, list[Outcome]],
) -> None:
    store, outcomes = finished
    assert store.keys() == sorted(outcome.job.key for outcome in outcomes)
    for key in store.keys():
        names = {path.name for path in store.place(key).iterdir()}
        assert names == {"stage.json", "weights.safetensors", "outputs.safetensors", "metrics.jsonl"}


def test_a_second_run_trains_nothing_and_writes_no_result(
    all_jobs: list[Job], dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path)
    run(all_jobs, store=store, dataset=dataset)

    def times() -> dict[Path, int]:
        files = [path for path in store.stages.rglob("*") if path.is_file() and path.name != "stage.json"]
        return {path: path.stat().st_mtime_ns for path in files}

    before, records = times(), {path: path.read_bytes() for path in store.stages.rglob("stage.json")}
    monkeypatch.setattr(make, "fit", None)  # whoever trains now fails
    began: list[Job] = []
    outcomes = run(all_jobs, store=store, dataset=dataset, watcher=Watcher(began=began.append))
    assert began == []
    assert all(outcome.state == "done" and outcome.from_store for outcome in outcomes)
    assert times() == before
    assert {path: path.read_bytes() for path in store.stages.rglob("stage.json")} == records


def test_one_more_seed_trains_only_what_is_missing(dataset: Dataset, tmp_path: Path) -> None:
    stages = shapes.direct(TEACHER, STUDENT, SoftTargets())
    store = Store(tmp_path)
    run(jobs_of(stages, dataset, seeds=[0]), store=store, dataset=dataset)
    outcomes = run(jobs_of(stages, dataset, seeds=[0, 1]), store=store, dataset=dataset)
    assert [(o.job.name, o.job.seed, o.from_store) for o in outcomes] == [
        ("teacher", 0, True),
        ("direct", 0, True),
        ("direct", 1, False),
    ]


def test_two_stages_of_one_key_are_made_once(dataset: Dataset, tmp_path: Path) -> None:
    chain = shapes.chain(TEACHER, ASSISTANTS[:1], STUDENT, SoftTargets())
    dense = shapes.dense(TEACHER, ASSISTANTS[:1], STUDENT, SoftTargets())
    both = jobs_of(shapes.merged(chain, dense), dataset)
    began: list[str] = []
    outcomes = run(
        both,
        store=Store(tmp_path),
        dataset=dataset,
        watcher=Watcher(began=lambda job: began.append(job.name)),
    )
    assert len(both) == 5
    assert len(began) == 4
    assert set(states(outcomes)) == {"teacher", chain[1].name, "chain", dense[1].name, "dense"}
    assert set(states(outcomes).values()) == {"done"}
    results = {outcome.job.name: outcome.result for outcome in outcomes}
    assert results[chain[1].name] == results[dense[1].name]


def test_the_same_jobs_give_the_same_bits(
    all_jobs: list[Job], dataset: Dataset, tmp_path: Path, reference: dict[str, bytes]
) -> None:
    store = Store(tmp_path)
    assert weights_of(store, run(all_jobs, store=store, dataset=dataset)) == reference


def test_jobs_below_one_are_refused(all_jobs: list[Job], dataset: Dataset, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="--jobs is 1 or more; got 0"):
        run(all_jobs, store=Store(tmp_path / "store"), dataset=dataset, parallel=0)
    assert not (tmp_path / "store").exists()


def test_while_it_runs_its_stages_are_leased_and_afterwards_not(
    all_jobs: list[Job], dataset: Dataset, tmp_path: Path
) -> None:
    store = Store(tmp_path)
    held: list[set[str]] = []
    run(
        all_jobs, store=store, dataset=dataset, watcher=Watcher(began=lambda job: held.append(store.leased()))
    )
    signals = signals_of(all_jobs, store=store, dataset=dataset)
    assert len(signals) == 2
    assert held == [{job.key for job in all_jobs} | set(signals)] * 4
    assert store.leased() == set()


class Elsewhere:
    """Another place to work: everything the runner asks of one."""

    def __init__(self, store: Path, dataset: Dataset, *, places: int) -> None:
        self.store, self.dataset, self.places = store, dataset, places
        self.waiting: list[Job] = []
        self.most = 0
        self.closed = False

    def free(self) -> int:
        return self.places - len(self.waiting)

    def submit(self, job: Job) -> None:
        self.waiting.append(job)
        self.most = max(self.most, len(self.waiting))

    def events(self, timeout: float) -> list[Event]:
        if not self.waiting:
            return []
        job = self.waiting.pop()  # the last one first: nobody promised an order
        return [
            attempt(job, store=self.store, dataset=self.dataset, tell=lambda event: None, stop=lambda: False)
        ]

    def close(self) -> None:
        self.closed = True


def test_another_place_to_work_is_one_small_class(
    all_jobs: list[Job], dataset: Dataset, tmp_path: Path, reference: dict[str, bytes]
) -> None:
    place, store = Elsewhere(tmp_path, dataset, places=3), Store(tmp_path)
    outcomes = run(all_jobs, store=store, dataset=dataset, workers=place)
    assert weights_of(store, outcomes) == reference
    assert place.most == 2  # the teacher and scratch need nothing, the others need the teacher
    assert place.closed


# ------------------------------------------------------------------------------------------------------ failures
def test_a_failed_stage_stops_only_those_that_need_it(dataset: Dataset, tmp_path: Path) -> None:
    wild = training(lr=1e4, weight_decay=1e3, epochs=4)
    stages = [
        stage("teacher"),
        stage("wild", "teacher", role="assistant", training=wild),
        stage("below", "wild", "teacher", role="assistant"),
        stage("student", "below"),
        stage("direct", "teacher"),
        stage("scratch", role="student", training=training(lr=0.01)),
    ]
    ended: list[str] = []
    store = Store(tmp_path)
    outcomes = run(
        jobs_of(stages, dataset),
        store=store,
        dataset=dataset,
        watcher=Watcher(ended=lambda outcome: ended.append(outcome.job.name)),
    )
    assert states(outcomes) == {
        "teacher": "done",
        "wild": "failed",
        "below": "left out",
        "student": "left out",
        "direct": "done",
        "scratch": "done",
    }
    messages = {outcome.job.name: outcome.message for outcome in outcomes}
    assert "is not a finite number" in messages["wild"]
    assert "Try a smaller training.lr" in messages["wild"]
    assert "\n" not in messages["wild"]
    assert messages["below"] == "it needs wild, which could not be made"
    assert messages["student"] == "it needs below, which could not be made"
    assert sorted(ended) == sorted(messages)
    assert store.result(job_called("wild", [o.job for o in outcomes]).key) is None


def test_whatever_a_stage_raises_is_a_sentence_and_the_others_go_on(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = make.fit

    def broken(*positional: object, **named: object) -> object:
        if named["seed"] == 1:
            raise RuntimeError("two\nlines")
        return real(*positional, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(make, "fit", broken)
    outcomes = run(
        jobs_of([stage("s", role="student")], dataset, seeds=[0, 1, 2]),
        store=Store(tmp_path),
        dataset=dataset,
    )
    assert [outcome.state for outcome in outcomes] == ["done", "failed", "done"]
    assert outcomes[1].message.startswith("RuntimeError: two lines (test_runner.py, line ")


@pytest.mark.parametrize("error", [MemoryError, torch.OutOfMemoryError])
def test_too_little_memory_is_said_as_such(
    all_jobs: list[Job],
    dataset: Dataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: type[Exception],
) -> None:
    def full(*positional: object, **named: object) -> object:
        raise error

    monkeypatch.setattr(make, "fit", full)
    outcomes = run(all_jobs, store=Store(tmp_path), dataset=dataset)
    assert outcomes[0].message == "there was not enough memory. Try a smaller training.batch_size or --jobs."


# ------------------------------------------------------------------------------------------------------ stopping
class After:
    """Says stop from the ``count``-th time on that it is asked."""

    def __init__(self, count: int) -> None:
        self.left = count

    def __call__(self) -> bool:
        self.left -= 1
        return self.left < 0


def test_a_run_that_is_stopped_again_and_again_ends_with_the_bits_of_one_that_was_not(
    all_jobs: list[Job], dataset: Dataset, tmp_path: Path, reference: dict[str, bytes]
) -> None:
    store = Store(tmp_path)
    seen: list[dict[str, str]] = []
    for _ in range(40):
        outcomes = run(all_jobs, store=store, dataset=dataset, stop=After(6))
        seen.append(states(outcomes))
        if set(seen[-1].values()) == {"done"}:
            break
        assert set(seen[-1].values()) <= {"done", "interrupted"}
    assert len(seen) > 4  # it was stopped in the middle of stages
    assert weights_of(store, outcomes) == reference
    for job in all_jobs:
        assert [line["epoch"] for line in lines_of(store, job.key)] == [1, 2]


def test_a_stopped_stage_leaves_a_checkpoint_and_no_result(
    all_jobs: list[Job], dataset: Dataset, tmp_path: Path
) -> None:
    store = Store(tmp_path)
    ended: list[Outcome] = []
    outcomes = run(all_jobs, store=store, dataset=dataset, stop=After(5), watcher=Watcher(ended=ended.append))
    assert set(states(outcomes).values()) == {"interrupted"}
    assert [outcome.job.name for outcome in ended] == ["teacher"]  # the others had not begun
    assert store.keys() == [all_jobs[0].key]
    assert store.result(all_jobs[0].key) is None
    assert len(list((store.place(all_jobs[0].key) / "checkpoint").glob("0*.safetensors"))) == 1


def test_a_run_told_to_stop_at_once_writes_no_stage(
    all_jobs: list[Job], dataset: Dataset, tmp_path: Path
) -> None:
    outcomes = run(all_jobs, store=Store(tmp_path), dataset=dataset, stop=lambda: True)
    assert set(states(outcomes).values()) == {"interrupted"}
    assert Store(tmp_path).keys() == []


# ------------------------------------------------------------------------------------------------- made elsewhere
def test_what_another_run_makes_is_waited_for_and_other_work_is_taken_meanwhile(
    all_jobs: list[Job], dataset: Dataset, tmp_path: Path, reference: dict[str, bytes]
) -> None:
    store, said, done = Store(tmp_path), [], []  # type: ignore[var-annotated]
    store.prepare()
    teacher = all_jobs[0]
    with store.lock(teacher.key) as mine:
        assert mine

        def idle() -> None:
            if "scratch" in done:
                other.close()

        class Other:
            """The other run: keeps the lock until it is closed."""

            held = True

            def close(self) -> None:
                self.held = False

        other = Other()
        outcomes = run(
            all_jobs,
            store=store,
            dataset=dataset,
            stop=lambda: not other.held,
            watcher=Watcher(said=said.append, ended=lambda o: done.append(o.job.name), idle=idle),
        )
    assert said == ["teacher is being made by another run; it is waited for."]
    assert done == ["scratch"]
    assert states(outcomes) == {
        "teacher": "interrupted",
        ASSISTANT: "interrupted",
        "dense": "interrupted",
        "scratch": "done",
    }
    assert weights_of(store, run(all_jobs, store=store, dataset=dataset)) == reference


def test_what_another_run_has_made_meanwhile_is_taken_over(
    all_jobs: list[Job], dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path)
    first = all_jobs[:1]

    def began(job: Job) -> None:  # between the look into the store and the lock
        if not store.keys():
            make.make(job, store=store, dataset=dataset)

    (outcome,) = run(first, store=store, dataset=dataset, watcher=Watcher(began=began))
    assert outcome.state == "done"
    assert outcome.from_store


# --------------------------------------------------------------------------------------------------------- damage
DAMAGES: dict[str, Callable[[Path], None]] = {
    "a changed bit": lambda folder: spoil(folder / "weights.safetensors"),
    "a lost file": lambda folder: (folder / "weights.safetensors").unlink(),
    "a short file": lambda folder: (folder / "outputs.safetensors").write_bytes(b"short"),
    "an unreadable record": lambda folder: (folder / "stage.json").write_text("{"),
    "a record of something else": lambda folder: (folder / "stage.json").write_text('{"version": 1}'),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_input_is_said_set_aside_and_made_again(
    all_jobs: list[Job], dataset: Dataset, tmp_path: Path, reference: dict[str, bytes], damage: str
) -> None:
    store, said = Store(tmp_path), []  # type: ignore[var-annotated]
    teacher = all_jobs[0]
    run(all_jobs[:1], store=store, dataset=dataset)
    DAMAGES[damage](store.place(teacher.key))
    outcomes = run(all_jobs, store=store, dataset=dataset, watcher=Watcher(said=said.append))
    assert weights_of(store, outcomes) == reference
    assert not any(outcome.from_store for outcome in outcomes)
    (sentence,) = said
    assert str(store.place(teacher.key)) in sentence
    assert "stage teacher is set aside as" in sentence
    assert [path.name.partition("-")[0] for path in (store.folder / "damaged").iterdir()] == [teacher.key]


def test_damage_that_shows_when_all_is_finished_is_mended_without_training_the_rest_again(
    all_jobs: list[Job], dataset: Dataset, tmp_path: Path, reference: dict[str, bytes]
) -> None:
    store = Store(tmp_path)
    run(all_jobs, store=store, dataset=dataset)
    spoil(store.place(all_jobs[0].key) / "weights.safetensors")
    outcomes = run(all_jobs, store=store, dataset=dataset)
    assert {o.job.name: o.from_store for o in outcomes} == {
        "teacher": False,
        ASSISTANT: True,
        "dense": True,
        "scratch": True,
    }
    assert weights_of(store, outcomes) == reference


@pytest.mark.parametrize("damage", ["a changed bit", "an unreadable record"])
def test_damage_that_happens_while_a_run_goes_on_is_mended_in_that_run(
    all_jobs: list[Job], dataset: Dataset, tmp_path: Path, reference: dict[str, bytes], damage: str
) -> None:
    store, said, began = Store(tmp_path), [], []  # type: ignore[var-annotated]

    def begin(job: Job) -> None:
        began.append(job.name)
        if job.name == "dense" and began.count("dense") == 1:
            DAMAGES[damage](store.place(all_jobs[0].key))

    outcomes = run(all_jobs, store=store, dataset=dataset, watcher=Watcher(began=begin, said=said.append))
    assert began == ["teacher", ASSISTANT, "dense", "teacher", "dense", "scratch"]
    assert len(said) == 1
    assert "stage teacher is set aside" in said[0]
    assert weights_of(store, outcomes) == reference


def test_two_stages_that_find_the_same_damage_have_it_mended_once(
    all_jobs: list[Job], dataset: Dataset, tmp_path: Path
) -> None:
    store, said, began = Store(tmp_path), [], []  # type: ignore[var-annotated]
    stages = [stage("teacher"), stage("one", "teacher"), stage("two", "teacher", training=training(lr=0.01))]
    teacher, *_ = made = jobs_of(stages, dataset)

    def begin(job: Job) -> None:
        began.append(job.name)
        if began == ["teacher", "one", "two"]:
            spoil(store.place(teacher.key) / "weights.safetensors")

    class Both(Elsewhere):
        """Both students are tried before anything is said of either."""

        def events(self, timeout: float) -> list[Event]:
            return [event for _ in range(len(self.waiting)) for event in super(Both, self).events(timeout)]

    outcomes = run(
        made,
        store=store,
        dataset=dataset,
        workers=Both(tmp_path, dataset, places=2),
        watcher=Watcher(began=begin, said=said.append),
    )
    assert set(states(outcomes).values()) == {"done"}
    assert began.count("teacher") == 2
    assert len(said) == 1
    assert len(list((store.folder / "damaged").iterdir())) == 1


def test_a_record_that_goes_bad_under_the_run_that_makes_it_is_set_aside(
    all_jobs: list[Job], dataset: Dataset, tmp_path: Path
) -> None:
    store, said = Store(tmp_path), []  # type: ignore[var-annotated]

    def begin(job: Job) -> None:
        if not said:
            store.place(job.key).mkdir(parents=True)
            (store.place(job.key) / "stage.json").write_text("no record")

    (outcome,) = run(
        all_jobs[:1], store=store, dataset=dataset, watcher=Watcher(began=begin, said=said.append)
    )
    assert outcome.state == "done"
    assert len(said) == 1


def test_a_store_of_a_newer_format_is_refused(all_jobs: list[Job], dataset: Dataset, tmp_path: Path) -> None:
    (tmp_path / "store.json").write_text('{"version": 99}')
    with pytest.raises(BadInput, match="has format 99, this understudy reads format 1"):
        run(all_jobs, store=Store(tmp_path), dataset=dataset)


def test_what_another_run_made_anew_in_between_is_not_set_aside(dataset: Dataset, tmp_path: Path) -> None:
    store = Store(tmp_path)
    all_jobs = jobs_of([stage("teacher")], dataset)
    run(all_jobs, store=store, dataset=dataset)
    weights = store.place(all_jobs[0].key) / "weights.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(b"damaged")

    class Mended(Store):
        @contextlib.contextmanager
        def lock(self, key: str) -> Iterator[bool]:
            weights.write_bytes(whole)  # by another run, between this one's look and its lock
            with super().lock(key) as mine:
                yield mine

    (outcome,) = run(all_jobs, store=Mended(tmp_path), dataset=dataset)
    assert outcome.state == "done"
    assert not (tmp_path / "damaged").exists()
