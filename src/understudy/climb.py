"""From what a recipe or a program means to a finished run: makes the stages and writes down what became of them."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from understudy.callbacks import Callback, Caller, OnError, check_callbacks, together
from understudy.errors import BadInput, Interrupted, StageFailed, listed, suggestion
from understudy.ladder.graph import Job, Ladder, Repeat, temperature_of, warnings
from understudy.ladder.networks import rebuilt
from understudy.ladder.planning import planned
from understudy.ladder.runner import Outcome, Watcher
from understudy.ladder.runner import run as run_jobs
from understudy.ladder.spoken import signals_of
from understudy.ladder.stopping import Stopper
from understudy.outcome import RunResult, outcome_of
from understudy.recipe import check, read_file
from understudy.recipe.building import Built, build
from understudy.report import card
from understudy.report.analysis import Analyst
from understudy.report.page import write_report
from understudy.report.progress import Display
from understudy.report.result import read_result
from understudy.report.run_folder import (
    INT8,
    RECIPE,
    RESULT,
    alone,
    check_out,
    choose,
    deliver,
    result_of,
    withdraw,
)
from understudy.store import Store, files
from understudy.training.precision import environment

if TYPE_CHECKING:
    from understudy.data.dataset import Dataset
    from understudy.data.views import ViewPolicy, Views
    from understudy.training.signals import Signals


@dataclass(frozen=True, kw_only=True)
class Climb:
    """All that is made in one run.

    Attributes:
        ladder, dataset, jobs: what is made of what.
        said: a recipe as a mapping, or as much of one as a program says.
        recipe: the text of ``recipe.yaml``; None where there is no recipe.
    """

    ladder: Ladder
    dataset: Dataset
    jobs: Sequence[Job]
    said: Mapping[str, Any]
    recipe: str | None


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
        built: from ``understudy.recipe.building.build``.
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
    return _made(
        _of_recipe(built),
        out=out,
        store=store,
        parallel=parallel,
        watcher=watcher or Watcher(),
        stop=stop,
        command=command,
    )[0]


def _of_recipe(built: Built) -> Climb:
    return Climb(
        ladder=built.ladder,
        dataset=built.dataset,
        jobs=built.jobs,
        said=built.recipe.as_dict(),
        recipe=built.recipe.as_yaml(),
    )


def _made(
    what: Climb,
    *,
    out: Path | None,
    store: Store,
    parallel: int,
    watcher: Watcher,
    stop: Callable[[], bool],
    command: str,
) -> tuple[list[Outcome], dict[str, Any]]:
    """The one way to climb, for the command and for programs: outcomes, and the content of ``result.json``."""
    device = next((job.stage.training.device for job in what.jobs if job.stage.training), "cpu")
    analyst = Analyst(store, what.dataset, temperature=temperature_of(what.jobs))
    so_far = {job.key: Outcome(job=job) for job in what.jobs}

    def written(outcomes: Sequence[Outcome]) -> dict[str, Any]:
        result = result_of(
            outcomes,
            ladder=what.ladder,
            dataset=what.dataset,
            recipe=what.said,
            environment=environment(device),
            command=command,
            analyst=analyst,
        )
        if what.recipe is None:
            result["recipe"] = "none: this run was started from Python"
        if out is not None:
            files.write_json(out / RESULT, result)
        return result

    def now() -> list[Outcome]:
        """One outcome for every job; jobs of one key share it."""
        return [replace(so_far[job.key], job=job) for job in what.jobs]

    def ended(outcome: Outcome) -> None:
        watcher.ended(outcome)
        so_far[outcome.job.key] = outcome
        if out is not None:
            written(now())

    if out is not None:
        if what.recipe is not None:
            files.write_text(out / RECIPE, what.recipe)
        else:
            (out / RECIPE).unlink(missing_ok=True)  # another run's, which was to be written over
        written(now())
    outcomes = run_jobs(
        what.jobs,
        store=store,
        dataset=what.dataset,
        parallel=parallel,
        watcher=replace(watcher, ended=ended),
        stop=stop,
    )
    chosen = choose(outcomes, what.ladder)
    if out is None:
        return outcomes, written(outcomes)
    if chosen is None:
        withdraw(out)
    else:
        deliver(out, chosen, store=store, dataset=what.dataset)
        rounded = [
            one
            for one in outcomes
            if one.job.stage.quantised
            and one.job.start
            and one.job.start.key == chosen.job.key
            and one.result
        ]
        for one in rounded:
            deliver(out, one, store=store, dataset=what.dataset, name=INT8)
    result = written(outcomes)
    if chosen is not None:
        card.write_card(out)
    write_report(out)
    return outcomes, result


# --- from Python ------------------------------------------------------------------------------------------------


def run(
    ladder: Ladder,
    data: Dataset,
    *,
    seeds: Sequence[int] = (0,),
    out: str | Path | None = None,
    store: str | Path | None = None,
    views: Views | ViewPolicy | None = None,
    signals: Signals | None = None,
    repeat: Repeat = "student",
    ladder_seed: int = 0,
    compare: Sequence[str] | None = None,
    jobs: int = 1,
    hours: float | None = None,
    callbacks: Sequence[Callback] = (),
    on_callback_error: OnError = "warn",
    quiet: bool = False,
    force: bool = False,
) -> RunResult:
    """Trains what is not kept yet, as ``understudy run`` does.

    Args:
        ladder: from ``understudy.dense`` and its neighbours, or of stages.
        data: from ``understudy.load`` or ``understudy.from_torch``.
        seeds: of the students and controls.
        out: the run's folder, with the report and the student as files; None: none is written.
        store: where results are kept; None: what UNDERSTUDY_STORE says, else ``.store`` beside ``out``, or in ``runs``.
        views: augmentation of the training images, a ``ViewPolicy``; or ``Views``, which say besides which view each
            epoch shows; None: the images as they are.
        signals: how what teachers say is kept; None: every logit as float16.
        repeat: what varies with the seeds: ``student``, ``assistants`` or ``ladder``.
        ladder_seed: of the stages that do not vary.
        compare: arms whose difference to ``direct`` is the claim, named beforehand.
        jobs: stages trained side by side, each in a process; the program then needs ``if __name__ == "__main__":``.
        hours: stop after so many, with a checkpoint.
        callbacks: told how it goes, see ``understudy.Callback``.
        on_callback_error: ``warn``: one that raises is named and not called any more; ``stop``: the run ends.
        quiet: show nothing but what went wrong.
        force: write over another run in ``out``; the store is not touched.

    Returns:
        what became of it. Stages that failed are in ``problems`` as long as there is a student.

    Raises:
        BadInput: what is asked for does not fit.
        StageFailed: a stage failed, and therefore there is no student.
        Interrupted: Ctrl-C, a signal, or the hours are over; run again it goes on from the last checkpoint.
        CallbackFailed: a callback raised, and ``on_callback_error`` is ``stop``.
    """
    from understudy.data.dataset import Dataset
    from understudy.data.views import ViewPolicy, Views
    from understudy.training.signals import Signals

    if not isinstance(ladder, Ladder):
        raise BadInput(
            f"the ladder is a {type(ladder).__name__}; understudy.dense(...) and its neighbours make one."
        )
    if not isinstance(data, Dataset):
        raise BadInput(
            f"the data are a {type(data).__name__}; understudy.load(name='digits') or load(path=...) gives data, and "
            f"from_torch(train, test) takes a torch Dataset."
        )
    _check_options(jobs, hours)
    kinds: tuple[tuple[str, Any, tuple[type, ...]], ...] = (
        ("views", views, (Views, ViewPolicy)),
        ("signals", signals, (Signals,)),
    )
    for what, value, classes in kinds:
        if value is not None and not isinstance(value, classes):
            named = " or ".join(f"understudy.{one.__name__}(...)" for one in classes)
            raise BadInput(f"{what} is {value!r}; it is {named}.")
    if isinstance(ladder_seed, bool) or not isinstance(ladder_seed, int) or ladder_seed < 0:
        raise BadInput(f"ladder_seed is a whole number, 0 or more; got {ladder_seed!r}.")
    if isinstance(compare, str) or not isinstance(compare, Sequence | None):
        raise BadInput(f"compare is a list of arms, such as ['dense']; got {compare!r}.")
    check_callbacks(callbacks, on_callback_error)
    possible = [name for name in ladder.students if name != "direct"]
    if compare and "direct" not in ladder.students:
        raise BadInput(
            f"compare names {listed(compare)}, and differences are to direct, which this ladder does not have. "
            f"Add direct to the controls, or leave out compare."
        )
    for name in compare or ():
        if name not in possible:
            raise BadInput(
                f"compare names {name!r}, which is no arm beside direct. Arms: {listed(possible)}."
                f"{suggestion(str(name), possible)}"
            )
    made = planned(
        ladder,
        data,
        seeds=seeds,
        views=views if isinstance(views, Views) else Views(policy=views or ViewPolicy()),
        signals=signals or Signals(),
        repeat=repeat,
        ladder_seed=ladder_seed,
    )
    said = {
        "ladder": {"shape": getattr(ladder, "shape", "stages")},
        "seeds": list(seeds),
        "repeat": repeat,
        "ladder_seed": ladder_seed,
        "compare": None if compare is None else list(compare),
    }
    where = None if out is None else Path(out)
    kept = _store(where, store)
    if where is not None:
        _check_folder(where, made, kept, force=force)
    return _run(
        Climb(ladder=ladder, dataset=data, jobs=made, said=said, recipe=None),
        out=where,
        store=kept,
        jobs=jobs,
        hours=hours,
        callbacks=callbacks,
        on_callback_error=on_callback_error,
        quiet=quiet,
        command=_program(),
    )


def run_recipe(
    recipe: str | Path | Mapping[str, Any],
    *,
    out: str | Path | None = None,
    store: str | Path | None = None,
    jobs: int = 1,
    hours: float | None = None,
    callbacks: Sequence[Callback] = (),
    on_callback_error: OnError = "warn",
    quiet: bool = False,
    force: bool = False,
) -> RunResult:
    """Runs a recipe, as ``understudy run`` does, with callbacks and a result to go on with.

    Args:
        recipe: a file, or its content as a mapping.
        out, store, jobs, hours, callbacks, on_callback_error, quiet, force: as for ``run``.

    Returns, Raises: as ``run``.
    """
    _check_options(jobs, hours)
    check_callbacks(callbacks, on_callback_error)
    raw = recipe if isinstance(recipe, Mapping) else read_file(Path(recipe))
    checked = check(raw)
    where = None if out is None else Path(out)
    if where is not None:
        check_out(where, checked.as_dict(), force=force)
    kept = _store(where, store)
    built = build(checked, cache=kept.folder / "data" if kept.folder.is_dir() else None)
    return _run(
        _of_recipe(built),
        out=where,
        store=kept,
        jobs=jobs,
        hours=hours,
        callbacks=callbacks,
        on_callback_error=on_callback_error,
        quiet=quiet,
        command=_program(),
    )


def _check_options(jobs: int, hours: float | None) -> None:
    if isinstance(jobs, bool) or not isinstance(jobs, int) or not 1 <= jobs <= 1024:
        raise BadInput(f"jobs is a whole number from 1 to 1024; got {jobs!r}.")
    if hours is not None and not (isinstance(hours, int | float) and 0 < hours < 1e6):
        raise BadInput(f"hours is a positive number; got {hours!r}.")


def _store(out: Path | None, store: str | Path | None) -> Store:
    named = store or os.environ.get("UNDERSTUDY_STORE")
    return Store(Path(named) if named else (out.parent if out else Path("runs")) / ".store")


def _program() -> str:
    """How this program was started, for the report."""
    script = Path(sys.argv[0]) if sys.argv and sys.argv[0] else None
    if script is not None and script.is_file() and script.suffix == ".py":
        return shlex.join(["python", *sys.argv])
    return "understudy.run(...) in an interactive session"


def _run(
    what: Climb,
    *,
    out: Path | None,
    store: Store,
    jobs: int,
    hours: float | None,
    callbacks: Sequence[Callback],
    on_callback_error: OnError,
    quiet: bool,
    command: str,
) -> RunResult:
    signals_of(what.jobs, store=store, dataset=what.dataset)  # refuses those of another version
    store.prepare()
    with Stopper(hours) as stopper:
        if out is None:
            outcomes, result, caller = _watched(
                what, None, store, jobs, callbacks, on_callback_error, quiet, command, stopper
            )
        else:
            with alone(out, store.folder):
                outcomes, result, caller = _watched(
                    what, out, store, jobs, callbacks, on_callback_error, quiet, command, stopper
                )
    caller.check()
    if any(outcome.state == "interrupted" for outcome in outcomes):
        raise Interrupted(f"{stopper.why or 'interrupted'}; run again, it goes on from the last checkpoint.")
    chosen = choose(outcomes, what.ladder)
    if chosen is None:
        failed = next(outcome for outcome in outcomes if outcome.state == "failed")
        raise StageFailed(f"stage {failed.job.name} failed, and so there is no student: {failed.message}")
    job = next(one for one in what.jobs if one.key == chosen.job.key)
    return outcome_of(
        result,
        out=out,
        prepare=partial(job.stage.network.preprocessing, what.dataset),
        rebuild=partial(rebuilt, job, store, what.dataset),
    )


def _watched(
    what: Climb,
    out: Path | None,
    store: Store,
    jobs: int,
    callbacks: Sequence[Callback],
    on_callback_error: OnError,
    quiet: bool,
    command: str,
    stopper: Stopper,
) -> tuple[list[Outcome], dict[str, Any], Caller]:
    """Climbs, with someone at the screen and callbacks told."""
    with Display(what.jobs, quiet=quiet) as display:
        if not quiet:
            for sentence in (*what.dataset.notes, *warnings(what.jobs)):
                display.watcher.said(f"note: {sentence}")
        caller = Caller(
            callbacks=callbacks, store=store, on_error=on_callback_error, warn=display.watcher.said
        )
        outcomes, result = _made(
            what,
            out=out,
            store=store,
            parallel=jobs,
            watcher=together(display.watcher, caller.watcher()),
            stop=lambda: stopper() or caller.stop(),
            command=command,
        )
        caller.run_ended(result, out)
    return outcomes, result, caller


def _check_folder(out: Path, jobs: Sequence[Job], store: Store, *, force: bool) -> None:
    """Whether a program's run may go into ``out``: an empty place, or this run with fewer seeds or controls.

    Without a recipe the keys of the stages say whether it is the same run.

    Raises:
        BadInput: it holds another run (what differs is named), a run of a recipe, or something that is no run.
    """
    for place in (out, *out.parents):
        if place.exists() and not place.is_dir():
            raise BadInput(f"out {out} is, or lies below, a file ({place}); name a folder.")
    if force or not out.is_dir() or not any(out.iterdir()):
        return
    over = "Choose another out, or force=True to write over it (what the store keeps is not touched)."
    if (out / RECIPE).exists():
        raise BadInput(f"out {out} holds the run of a recipe. {over}")
    if not (out / RESULT).exists():
        raise BadInput(f"out {out} holds files that no run left. Choose another folder.")
    try:
        before = read_result(out)
    except BadInput as error:
        raise BadInput(f"{error} {over}") from error
    now = {(job.name, job.seed): job for job in jobs}
    for stage in before["stages"]:
        job = now.get((stage["name"], stage["seed"]))
        who = f"stage {stage['name']!r}, seed {stage['seed']}"
        if job is None:
            raise BadInput(f"out {out} holds another run: {who} is there and not here. {over}")
        if job.key != stage.get("key"):
            raise BadInput(
                f"out {out} holds another run: {who} {_how(stage.get('key', ''), job, store)}. {over}"
            )


def _how(key: str, job: Job, store: Store) -> str:
    """How a stage that is kept under ``key`` differs from ``job``, as far as its record says so."""
    kept = store.place(key) / "stage.json"
    found: list[str] = []
    if kept.is_file() and (result := store.result(key)) is not None:
        found = _differing(result.record.get("definition", {}), job.definition, "")
    return f"differs ({listed(found[:4])})" if found else "was made from something else"


def _differing(old: Any, new: Any, path: str) -> list[str]:
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        return [
            line
            for name in {**old, **new}
            if old.get(name) != new.get(name)
            for line in _differing(old.get(name), new.get(name), f"{path}.{name}" if path else name)
        ]
    shown = [text if len(text) <= 40 else text[:37] + "..." for text in (str(old), str(new))]
    return [f"{path} is {shown[0]} there and {shown[1]} here"]
