"""Commands that train, or say what they would train: demo, run, plan."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from understudy.cli.options import (
    Force,
    Hours,
    Jobs,
    Json,
    Quiet,
    RecipeFile,
    Seeds,
    Set,
    StoreFolder,
    changed_by,
    check_jobs,
    command_line,
    console,
    notes,
    say,
    store_of,
)
from understudy.errors import BadInput, Interrupted

if TYPE_CHECKING:
    from understudy.ladder.runner import Outcome
    from understudy.ladder.stopping import Stopper


def demo(
    out: Annotated[Path, typer.Option(help="Folder of the run.")] = Path("runs/demo"),
    jobs: Jobs = 2,
    store: StoreFolder = None,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Teacher, assistants and student on handwritten digits: no download, about a minute."""
    from importlib.resources import files

    from understudy.recipe import read_text

    text = files("understudy").joinpath("demo.yaml").read_text("utf-8")
    raw = read_text(text, source="the demo's recipe")
    run_raw(raw, out=out, jobs=jobs, store=store, quiet=quiet, json=json)


def run(
    recipe: RecipeFile,
    seeds: Seeds = None,
    set_: Set = None,
    jobs: Jobs = 1,
    hours: Hours = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the run; runs/ and the recipe's name unless said.")
    ] = None,
    store: StoreFolder = None,
    force: Force = False,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Trains what is not kept yet, and shows the student with its controls beside it."""
    from understudy.recipe import read_file

    raw = changed_by(read_file(recipe), set_, seeds)
    where = out or Path("runs") / recipe.stem
    run_raw(raw, out=where, jobs=jobs, hours=hours, store=store, force=force, quiet=quiet, json=json)


def plan(
    recipe: RecipeFile,
    seeds: Seeds = None,
    set_: Set = None,
    jobs: Jobs = 1,
    out: Annotated[Path | None, typer.Option(help="As for run.")] = None,
    store: StoreFolder = None,
) -> None:
    """The graph, its cost, what is kept already and what is to do. Nothing is trained or written."""
    from understudy.recipe import check, read_file

    began = time.perf_counter()
    check_jobs(jobs)
    checked = check(changed_by(read_file(recipe), set_, seeds))

    from understudy.ladder.additions import matched_layers, unordered
    from understudy.ladder.estimate import forecast
    from understudy.ladder.graph import unique, warnings
    from understudy.recipe.building import build
    from understudy.report.summary import sentence_on_power
    from understudy.report.tables import PlanRow, plan_sentences, plan_table
    from understudy.store import Store
    from understudy.training.memory import keep_pages

    keep_pages()  # as run does, so that steps take as long
    kept = Store(store_of(out or Path("runs") / recipe.stem, store))
    built = build(checked)
    start = time.perf_counter() - began
    found = forecast(built.jobs, store=kept, dataset=built.dataset, parallel=jobs, start=start)
    rows = [
        PlanRow(
            name=job.name,
            seed=job.seed,
            model=job.stage.network.label,
            teachers=job.stage.teachers,
            parameters=job.cost.parameters,
            multiply_adds=job.cost.multiply_adds,
            epochs=job.stage.training.epochs if job.stage.training else 0,
            state=found.stages[job.key].state,
            seconds=found.stages[job.key].seconds,
        )
        for job in unique(built.jobs).values()
    ]
    console().print(plan_table(rows))
    for sentence in plan_sentences(found, store=kept.folder, parallel=jobs):
        say(sentence)
    if len(built.ladder.students) > 1 and "direct" in built.ladder.students:
        say(sentence_on_power(built.jobs, kept, seeds=checked.seeds, claim=checked.compare or ()))
    notes(built, [*warnings(built.jobs), *matched_layers(built.jobs), *unordered(built.jobs)])


def run_raw(
    raw: dict[str, Any],
    *,
    out: Path,
    jobs: int = 1,
    hours: float | None = None,
    store: Path | None = None,
    force: bool = False,
    quiet: bool = False,
    json: bool = False,
) -> None:
    check_jobs(jobs)
    if hours is not None and not 0 < hours < 1e6:
        raise BadInput(f"--hours is a positive number; got {hours:g}.")
    from understudy.recipe import check
    from understudy.report.run_folder import alone, check_out

    recipe = check(raw)
    check_out(out, recipe.as_dict(), force=force)

    from understudy.climb import climb
    from understudy.ladder.graph import warnings
    from understudy.ladder.spoken import signals_of
    from understudy.ladder.stopping import Stopper
    from understudy.recipe.building import build
    from understudy.report.events import Events
    from understudy.report.progress import Display
    from understudy.report.result import read_result
    from understudy.store import Store
    from understudy.training.memory import keep_pages

    keep_pages()
    kept = Store(store_of(out, store))
    built = build(recipe, cache=kept.folder / "data" if kept.folder.is_dir() else None)
    signals_of(built.jobs, store=kept, dataset=built.dataset)  # refuses those of another version
    kept.prepare()
    command = command_line()
    if json:
        with alone(out, kept.folder), Stopper(hours) as stopper, Events(built.jobs, store=kept) as events:
            events.run_started(out=out, command=command)
            for sentence in (*built.dataset.notes, *warnings(built.jobs)):
                events.message(sentence)
            outcomes = climb(
                built,
                out=out,
                store=kept,
                parallel=jobs,
                watcher=events.watcher,
                stop=lambda: stopper() or events.broken,
                command=command,
            )
            stopper.why = stopper.why or ("nobody reads the events" if events.broken else "")
            events.run_finished(read_result(out), out=out, why=stopper.why)
        _end(outcomes, stopper)
        return
    if not quiet:
        notes(built, warnings(built.jobs))
    with alone(out, kept.folder), Stopper(hours) as stopper, Display(built.jobs, quiet=quiet) as display:
        outcomes = climb(
            built,
            out=out,
            store=kept,
            parallel=jobs,
            watcher=display.watcher,
            stop=stopper,
            command=command,
        )
    _finish(outcomes, out=out)
    _end(outcomes, stopper)


def _finish(outcomes: Sequence[Outcome], *, out: Path) -> None:
    from understudy.report.result import read_result
    from understudy.report.tables import groups_table, problems, summary_table, warnings

    result = read_result(out)
    console().print(summary_table(result))
    if (by_group := groups_table({str(out): result})) is not None:
        console().print(by_group)
    for sentence in (*problems(result), *(f"health: {warning}" for warning in warnings(result))):
        say(sentence)
    if result["complete"] and all(outcome.from_store for outcome in outcomes):
        say("Every stage was kept already; nothing was trained.")
    if result["delivered"]:
        say(f"student: {out / 'student.safetensors'} (student.json beside it says how to build it)")
    say(f"report:  {out / 'report.html'}")


def _end(outcomes: Sequence[Outcome], stopper: Stopper) -> None:
    """Sets the exit status of a run that is not complete."""
    states = {outcome.state for outcome in outcomes}
    if "interrupted" in states:
        raise Interrupted(
            f"{stopper.why or 'a worker was asked to end'}; run the same command again to go on from the last checkpoint."
        )
    if states & {"failed", "left out"}:
        raise typer.Exit(1)
