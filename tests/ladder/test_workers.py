"""Jobs in processes of their own: the same bits, and what happens when one of them is killed."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import types
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from tests.ladder.tiny import (
    jobs_of,
    made_up,
    network,
    network_by_the_environment,
    small_network,
    stage,
    states,
    training,
    weights_of,
)
from understudy import processes
from understudy.data import Dataset
from understudy.errors import BadInput
from understudy.ladder import Network, workers
from understudy.ladder.graph import Job
from understudy.ladder.runner import Outcome, Watcher, run
from understudy.ladder.workers import Event, Processes
from understudy.store import Store
from understudy.teaching import SoftTargets, Stochastic

LONG = training(epochs=100)
STOCHASTIC = SoftTargets(stochastic=Stochastic(mode="bernoulli_all", keep=0.5))
OWN = Network(name="own", factory=small_network, version="1")
STAGES = [
    stage("teacher", network=network(width=0.5)),
    stage("scratch", role="student", training=LONG),
    stage("own", "teacher", role="assistant", network=OWN),
    stage("student", "teacher", "own", method=STOCHASTIC),
]


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return made_up()


@pytest.fixture(scope="module")
def all_jobs(dataset: Dataset) -> list[Job]:
    return jobs_of(STAGES, dataset)


@pytest.fixture(scope="module")
def reference(
    all_jobs: list[Job], dataset: Dataset, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, bytes]:
    """What one job at a time, here, undisturbed, gives."""
    store = Store(tmp_path_factory.mktemp("reference"))
    return weights_of(store, run(all_jobs, store=store, dataset=dataset))


def pid_of(place: Processes, name: str) -> int:
    """The process that makes a stage at this moment."""
    (process,) = [one.process for one in place.workers if one.job is not None and one.job.name == name]
    assert process.pid is not None
    return process.pid


def checkpoints(store: Store, all_jobs: list[Job], name: str) -> list[Path]:
    key = next(job.key for job in all_jobs if job.name == name)
    return list((store.place(key) / "checkpoint").glob("0*.safetensors"))


def test_several_processes_give_the_bits_of_one_and_a_killed_one_costs_its_stage_only(
    all_jobs: list[Job], dataset: Dataset, tmp_path: Path, reference: dict[str, bytes]
) -> None:
    store = Store(tmp_path)
    place = Processes(3, store=tmp_path, dataset=dataset, stop=lambda: False)
    killed: list[int] = []
    began: list[str] = []

    def event(job: Job, happened: Event) -> None:
        if job.name == "scratch" and happened.progress is not None and not killed:
            killed.append(pid_of(place, "scratch"))
            os.kill(killed[0], signal.SIGKILL)

    watcher = Watcher(event=event, began=lambda job: began.append(job.name))
    outcomes = run(all_jobs, store=store, dataset=dataset, workers=place, watcher=watcher)
    assert states(outcomes) == {"teacher": "done", "scratch": "failed", "own": "done", "student": "done"}
    message = next(outcome.message for outcome in outcomes if outcome.job.name == "scratch")
    assert message == (
        "its worker process was killed by signal 9 (out of memory? try a smaller --jobs); "
        "run the same command again, it goes on from its checkpoint."
    )
    assert killed
    assert began[:2] == ["teacher", "scratch"]  # side by side
    assert multiprocessing.active_children() == []
    assert len(checkpoints(store, all_jobs, "scratch")) == 1

    again = run(all_jobs, store=store, dataset=dataset)
    assert {o.job.name: o.from_store for o in again} == {
        "teacher": True,
        "scratch": False,
        "own": True,
        "student": True,
    }
    assert weights_of(store, again) == reference


def test_a_stopped_run_keeps_checkpoints_and_ends_with_the_same_bits(
    all_jobs: list[Job], dataset: Dataset, tmp_path: Path, reference: dict[str, bytes]
) -> None:
    store, seen = Store(tmp_path), []  # type: ignore[var-annotated]

    def event(job: Job, happened: Event) -> None:
        if job.name == "scratch" and happened.progress is not None:
            seen.append(happened.progress.epoch)

    outcomes = run(
        all_jobs,
        store=store,
        dataset=dataset,
        parallel=2,
        watcher=Watcher(event=event),
        stop=lambda: bool(seen),
    )
    assert states(outcomes)["scratch"] == "interrupted"
    assert len(checkpoints(store, all_jobs, "scratch")) == 1
    assert multiprocessing.active_children() == []
    assert weights_of(store, run(all_jobs, store=store, dataset=dataset)) == reference


def test_a_worker_that_is_asked_to_end_keeps_its_checkpoint_and_ends_the_run(
    all_jobs: list[Job], dataset: Dataset, tmp_path: Path
) -> None:
    store, asked = Store(tmp_path), []  # type: ignore[var-annotated]
    place = Processes(1, store=tmp_path, dataset=dataset, stop=lambda: False)

    def event(job: Job, happened: Event) -> None:
        if happened.progress is not None and not asked:
            asked.append(job.name)
            os.kill(pid_of(place, job.name), signal.SIGTERM)

    alone = [job for job in all_jobs if job.name == "scratch"]
    (outcome,) = run(alone, store=store, dataset=dataset, workers=place, watcher=Watcher(event=event))
    assert outcome.state == "interrupted"
    assert len(checkpoints(store, all_jobs, "scratch")) == 1


def test_a_worker_that_died_while_it_had_nothing_to_do_is_replaced(
    all_jobs: list[Job], dataset: Dataset, tmp_path: Path, reference: dict[str, bytes]
) -> None:
    store = Store(tmp_path)
    place = Processes(1, store=tmp_path, dataset=dataset, stop=lambda: False)

    def ended(outcome: Outcome) -> None:
        if outcome.job.name == "teacher":
            (worker,) = place.workers
            worker.process.kill()
            worker.process.join()

    some = [job for job in all_jobs if job.name in ("teacher", "own")]
    outcomes = run(some, store=store, dataset=dataset, workers=place, watcher=Watcher(ended=ended))
    assert states(outcomes) == {"teacher": "done", "own": "done"}
    made = weights_of(store, outcomes)
    assert made == {name: reference[name] for name in made}


def factory_here(**arguments: Any) -> Any:
    return small_network(**arguments)


LAMBDA = lambda **arguments: small_network(**arguments)  # noqa: E731 - what is tested is a lambda


def local() -> Any:
    def inner(**arguments: Any) -> Any:
        return small_network(**arguments)

    return inner


@pytest.mark.parametrize("factory", [LAMBDA, local()], ids=["a lambda", "a function inside a function"])
def test_a_factory_that_cannot_be_sent_is_refused_with_what_to_do(
    dataset: Dataset, tmp_path: Path, factory: Any
) -> None:
    mine = Network(name="mine", factory=factory, version="1")
    made = jobs_of([stage("teacher", network=mine)], dataset)
    with pytest.raises(BadInput, match="stage 'teacher' cannot be sent to another process") as error:
        run(made, store=Store(tmp_path), dataset=dataset, parallel=2)
    assert "Define its factory at the top of a module, or run with --jobs 1." in str(error.value)
    assert "\n" not in str(error.value)
    assert multiprocessing.active_children() == []
    assert states(run(made, store=Store(tmp_path), dataset=dataset)) == {"teacher": "done"}


def test_a_factory_that_the_other_process_does_not_find_fails_its_stage_with_a_sentence(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = types.ModuleType("only_known_here")
    module.factory = factory_here.__class__(factory_here.__code__, factory_here.__globals__, "factory")  # type: ignore[attr-defined]
    module.factory.__module__ = module.__name__
    module.factory.__qualname__ = "factory"
    monkeypatch.setitem(sys.modules, module.__name__, module)
    mine = Network(name="mine", factory=module.factory, version="1")
    stages = [stage("lost", network=mine), stage("other")]
    outcomes = run(jobs_of(stages, dataset), store=Store(tmp_path), dataset=dataset, parallel=2)
    assert states(outcomes) == {"lost": "failed", "other": "done"}
    message = next(outcome.message for outcome in outcomes if outcome.job.name == "lost")
    assert "a worker process cannot find what it is made of" in message
    assert "No module named 'only_known_here'" in message
    assert "run with --jobs 1" in message


def test_a_worker_has_the_environment_of_today_and_not_of_the_day_its_server_began(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    processes.context()  # the server begins here at the latest
    monkeypatch.setenv("HIDDEN_UNITS", "3")
    mine = Network(name="mine", factory=network_by_the_environment, version="1")
    made = jobs_of([stage("a", network=mine), stage("b", network=mine, training=training(lr=0.01))], dataset)
    store = Store(tmp_path)
    assert states(run(made, store=store, dataset=dataset, parallel=2)) == {"a": "done", "b": "done"}
    assert load_file(store.place(made[0].key) / "weights.safetensors")["1.weight"].shape[0] == 3


@pytest.mark.parametrize(
    ("cores", "running", "threads", "free"),
    [
        (2, 1, 1, True),
        (2, 2, 1, False),
        (1, 1, 1, False),
        (4, 2, 1, True),
        (4, 3, 1, False),
        (4, 1, 4, False),
    ],
)
def test_teachers_speak_ahead_where_each_running_job_has_a_core_to_spare(
    monkeypatch: pytest.MonkeyPatch, dataset: Dataset, cores: int, running: int, threads: int, free: bool
) -> None:
    monkeypatch.setattr(workers, "cores", lambda: cores)
    (job,) = jobs_of([stage("a", training=training(threads=threads))], dataset)
    assert workers._core_free(job, running) is free


def test_how_many_jobs_run_is_known_to_all_processes(dataset: Dataset, tmp_path: Path) -> None:
    places = Processes(2, store=tmp_path, dataset=dataset, stop=lambda: False)
    (job,) = jobs_of([stage("a")], dataset)
    try:
        assert places.running.value == 0
        places.submit(job)
        assert places.running.value == 1
        while not any(event.kind == "done" for event in places.events(timeout=0.2)):
            pass
        assert places.running.value == 0
    finally:
        places.close()
