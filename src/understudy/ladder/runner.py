"""Runs the jobs of a ladder in graph order; what is kept is not made again."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from understudy.errors import BadInput, Damaged
from understudy.ladder.graph import Job, unique
from understudy.ladder.spoken import signals_of
from understudy.ladder.workers import Event, Here, Processes, Workers
from understudy.store.results import Result, Store

if TYPE_CHECKING:
    from understudy.data.dataset import Dataset

State = Literal["waiting", "running", "elsewhere", "done", "failed", "left out", "interrupted"]


@dataclass(kw_only=True)
class Outcome:
    """What became of one job.

    Attributes:
        job: which.
        state: ``done``; ``failed``; ``left out``: an input failed; ``interrupted``: the run ended before it was done
            (running, waiting or elsewhere: the run still goes on).
        result: where it is kept, once done.
        from_store: it was there before this run made it.
        message: why it failed.
    """

    job: Job
    state: State = "waiting"
    result: Result | None = None
    from_store: bool = False
    message: str = ""


@dataclass(kw_only=True)
class Watcher:
    """What a run tells whoever watches; every field may be replaced.

    Attributes:
        began: a job starts. progress: how it goes. said: a sentence about a job. ended: its outcome changed.
    """

    began: Callable[[Job], None] = field(default=lambda job: None)
    event: Callable[[Job, Event], None] = field(default=lambda job, event: None)
    ended: Callable[[Outcome], None] = field(default=lambda outcome: None)
    said: Callable[[str], None] = field(default=lambda sentence: None)
    idle: Callable[[], None] = field(default=lambda: None)


def run(
    all_jobs: Sequence[Job],
    *,
    store: Store,
    dataset: Dataset,
    parallel: int = 1,
    watcher: Watcher | None = None,
    stop: Callable[[], bool] = lambda: False,
    workers: Workers | None = None,
) -> list[Outcome]:
    """Makes every job or finds it in the store.

    Jobs whose inputs are there run side by side, up to ``parallel``. A job that another run makes at the same moment
    is left to it, and others are taken meanwhile. A failed job does not stop those that do not need it.

    Args:
        all_jobs: from ``understudy.ladder.graph.jobs``, inputs first.
        store: where results are.
        dataset: what is learned.
        parallel: jobs at a time; results do not depend on it.
        watcher: told what happens.
        stop: asked between steps; True ends the run with checkpoints kept.
        workers: another place to work than local processes.

    Returns:
        one outcome for each job, in the order given.
    """
    if parallel < 1:
        raise BadInput(f"--jobs is 1 or more; got {parallel}.")
    watcher = watcher or Watcher()
    store.prepare()
    by_key = unique(all_jobs)
    outcomes = {key: Outcome(job=job) for key, job in by_key.items()}

    def here(event: Event) -> None:
        watcher.event(by_key[event.key], event)

    signals = signals_of(list(by_key.values()), store=store, dataset=dataset)
    with store.lease([*by_key, *signals]):
        for outcome in outcomes.values():
            _look(outcome, store, watcher)
            if outcome.state == "done":
                watcher.ended(outcome)
        place: Workers
        if workers is not None:
            place = workers
        elif parallel == 1:
            place = Here(store=store.folder, dataset=dataset, stop=stop, tell=here)
        else:
            place = Processes(parallel, store=store.folder, dataset=dataset, stop=stop)
        again_at: dict[str, float] = {}
        try:
            # A worker may be told to stop when this process is not; then the run ends too.
            while not stop() and not any(o.state == "interrupted" for o in outcomes.values()):
                _leave_out(outcomes, watcher)
                ready = [
                    key
                    for key, outcome in outcomes.items()
                    if outcome.state in ("waiting", "elsewhere")
                    and all(outcomes[needed.key].state == "done" for needed in outcome.job.inputs)
                    and again_at.get(key, 0.0) <= time.monotonic()
                ]
                for key in ready[: place.free()]:
                    outcomes[key].state = "running"
                    if key not in again_at:  # else it was said before another run turned out to make it
                        watcher.began(by_key[key])
                    place.submit(by_key[key])
                    if stop():
                        break
                if all(outcome.state in ("done", "failed", "left out") for outcome in outcomes.values()):
                    break
                for event in place.events(timeout=0.2):
                    _take(event, outcomes, store, watcher, again_at)
                watcher.idle()
            else:
                deadline = time.monotonic() + 120
                while any(o.state == "running" for o in outcomes.values()) and time.monotonic() < deadline:
                    for event in place.events(timeout=0.2):
                        _take(event, outcomes, store, watcher, again_at)
        finally:
            place.close()
    for outcome in outcomes.values():
        if outcome.state in ("waiting", "running", "elsewhere"):
            outcome.state = "interrupted"
    return [
        Outcome(
            job=job,
            state=outcomes[job.key].state,
            result=outcomes[job.key].result,
            from_store=outcomes[job.key].from_store,
            message=outcomes[job.key].message,
        )
        for job in all_jobs
    ]


def _look(outcome: Outcome, store: Store, watcher: Watcher) -> None:
    """Takes a result from the store if it is there and whole; what is damaged is set aside and will be made again."""
    key = outcome.job.key
    try:
        result = store.result(key)
        if result is None:
            return
        store.check(result)
    except Damaged as error:
        with store.lock(key) as mine:
            if mine and _still_damaged(key, store):
                where = store.set_aside(key)
                watcher.said(f"{error}: stage {outcome.job.name} is set aside as {where} and made again.")
        return
    store.used(result)
    outcome.state, outcome.result, outcome.from_store = "done", result, True


def _still_damaged(key: str, store: Store) -> bool:
    """Asked again under the lock: another run may have set the stage aside, and even made it anew, in between."""
    try:
        result = store.result(key)
        if result is not None:
            store.check(result)
    except Damaged:
        return True
    return False


def _take(
    event: Event, outcomes: dict[str, Outcome], store: Store, watcher: Watcher, again_at: dict[str, float]
) -> None:
    outcome = outcomes[event.key]
    if event.kind in ("progress", "say"):
        watcher.event(outcome.job, event)
        return
    if event.kind == "done":
        outcome.state, outcome.from_store = "done", event.from_store
        outcome.result = store.result(event.key)
    elif event.kind == "busy":
        if event.key not in again_at:
            watcher.said(f"{outcome.job.name} is being made by another run; it is waited for.")
        outcome.state = "elsewhere"
        again_at[event.key] = time.monotonic() + 1.0
        return
    elif event.kind == "damaged":
        outcome.state = "waiting"
        _look(outcome, store, watcher)  # its own record may be what is damaged
        for needed in outcome.job.inputs:
            again = outcomes[needed.key]
            if again.state == "done":  # else another stage said so before, and it is being made again
                again.state, again.result = "waiting", None
                _look(again, store, watcher)
        return
    else:
        outcome.state = "failed" if event.kind == "failed" else "interrupted"
        outcome.message = event.message
    watcher.ended(outcome)


def _leave_out(outcomes: dict[str, Outcome], watcher: Watcher) -> None:
    for outcome in outcomes.values():
        if outcome.state != "waiting":
            continue
        for needed in outcome.job.inputs:
            if outcomes[needed.key].state in ("failed", "left out"):
                outcome.state = "left out"
                outcome.message = f"it needs {needed.name}, which could not be made"
                watcher.ended(outcome)
                break
