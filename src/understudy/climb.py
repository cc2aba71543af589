"""From what a recipe means to a finished folder: runs the jobs and writes down what became of them as it goes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from understudy.ladder.runner import Outcome, Watcher, run
from understudy.recipe.building import Built
from understudy.report.page import write_report
from understudy.report.run_folder import RECIPE, RESULT, choose, deliver, result_of, withdraw
from understudy.store import Store, files
from understudy.training.precision import environment


def climb(
    built: Built,
    *,
    out: Path,
    store: Store,
    parallel: int = 1,
    watcher: Watcher | None = None,
    stop: Callable[[], bool] = lambda: False,
    command: str = "",
) -> list[Outcome]:
    """Makes what is not kept yet, and leaves a run's folder; ``result.json`` is written anew after every stage.

    Args:
        built: from :func:`~understudy.recipe.building.build`.
        out: the run's folder; the caller has checked that it may be written and is alone in it.
        store: where results are.
        parallel: jobs at a time.
        watcher: told what happens.
        stop: asked between steps; True ends the run with checkpoints kept.
        command: how to run it again, for the report.

    Returns:
        one outcome for each job.

    Raises:
        CannotWrite: no space or right to write in ``out`` or the store.
    """
    watcher = watcher or Watcher()
    device = next((job.stage.training.device for job in built.jobs if job.stage.training), "cpu")
    so_far = {job.key: Outcome(job=job) for job in built.jobs}

    def write(outcomes: Sequence[Outcome]) -> None:
        result = result_of(
            outcomes,
            ladder=built.ladder,
            dataset=built.dataset,
            recipe=built.recipe.as_dict(),
            environment=environment(device),
            command=command,
        )
        files.write_json(out / RESULT, result)

    def ended(outcome: Outcome) -> None:
        watcher.ended(outcome)
        so_far[outcome.job.key] = outcome
        write([replace(so_far[job.key], job=job) for job in built.jobs])

    files.write_text(out / RECIPE, built.recipe.as_yaml())
    write(list(so_far.values()))
    outcomes = run(
        built.jobs,
        store=store,
        dataset=built.dataset,
        parallel=parallel,
        watcher=replace(watcher, ended=ended),
        stop=stop,
    )
    chosen = choose(outcomes, built.ladder)
    if chosen is None:
        withdraw(out)
    else:
        deliver(out, chosen, store=store, dataset=built.dataset)
    write(outcomes)
    write_report(out)
    return outcomes
