"""The command that looks at the loss around a run's students: landscape."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from understudy.cli.options import StoreFolder, console, say, store_of
from understudy.errors import BadInput, listed, suggestion

if TYPE_CHECKING:
    from understudy.data.dataset import Dataset
    from understudy.ladder.graph import Job
    from understudy.recipe.building import Built
    from understudy.store import Store


def landscape(
    run: Annotated[Path, typer.Argument(help="Folder of a run.", metavar="RUN")],
    more: Annotated[list[str] | None, typer.Argument(metavar="ARM", hidden=True)] = None,
    arms: Annotated[
        list[str] | None,
        typer.Option(
            help="Students by name, such as --arms direct chain; all unless said.", metavar="NAME..."
        ),
    ] = None,
    points: Annotated[int, typer.Option(help="Places along each direction; odd.")] = 21,
    span: Annotated[float, typer.Option(help="How far to go, in lengths of the filters.")] = 0.5,
    images: Annotated[int, typer.Option(help="Training images that the loss is of.")] = 500,
    seed: Annotated[int, typer.Option(help="Of the directions and the choice of images.")] = 0,
    store: StoreFolder = None,
) -> None:
    """The loss around the finished students of a run, along two random directions as long as their filters."""
    if images < 1:
        raise BadInput(f"--images is a whole number, 1 or more; got {images}.")
    if not 0 <= seed < 2**31:
        raise BadInput(f"--seed is a whole number from 0 to {2**31 - 1}; got {seed}.")
    if more and not arms:
        raise BadInput(f"one run at a time: {run}, and not {listed(more)}. Students are named with --arms.")

    from understudy.training.landscape import grid

    steps = grid(points, span=span)
    kept = _store(run, store)
    built = _built(run, kept)
    jobs = _students(built, kept, run, named=[*(arms or ()), *(more or ())])

    from understudy.report.landscape import FILE, PICTURE, content, read_landscape, rise, standalone
    from understudy.report.page import write_report
    from understudy.report.result import read_result
    from understudy.store.files import write_json, write_text

    found = []
    with kept.lease(job.key for job in jobs):
        for job in jobs:
            began = time.perf_counter()
            found.append(_around(job, kept, built.dataset, steps=steps, images=images, seed=seed))
            say(f"{job.name}: {points}x{points} places in {time.perf_counter() - began:.1f} s")
    used = min(images, int((built.dataset.train.labels >= 0).sum()))
    value = content(found, steps=steps, images=used, seed=seed)
    write_json(run / FILE, value)
    write_text(run / PICTURE, standalone(read_landscape(run, read_result(run))))
    page = write_report(run)
    _show(
        value["arms"],
        rises=[rise(arm) for arm in value["arms"]],
        places=f"±{100 * span:g} %, {points}x{points}",
    )
    say(f"picture: {run / PICTURE}")
    say(f"report:  {page}")


def _store(run: Path, store: Path | None) -> Store:
    """The store of a run, which must be there.

    Raises:
        BadInput: there is no run, or no store beside it.
    """
    from understudy.report.result import read_result
    from understudy.store import Store

    read_result(run)
    folder = store_of(run, store)
    if not (folder / "store.json").is_file():
        raise BadInput(
            f"{folder} holds no store, and the weights of {run} are in one: say where it is with --store."
        )
    return Store(folder)


def _built(run: Path, kept: Store) -> Built:
    from understudy.recipe import check, read_file
    from understudy.recipe.building import build

    recipe = run / "recipe.yaml"
    if not recipe.is_file():
        raise BadInput(
            f"{recipe} is not there: the run was started from Python, and its networks and data cannot be built again. "
            f"Call understudy.training.landscape.landscape with your own."
        )
    return build(check(read_file(recipe)), cache=kept.folder / "data" if kept.folder.is_dir() else None)


def _students(built: Built, kept: Store, run: Path, *, named: Sequence[str]) -> list[Job]:
    """The finished students of the run's first seed.

    Raises:
        BadInput: one is named that is no student or not finished, or none is finished.
    """
    possible = built.ladder.students
    for name in named:
        if name not in possible:
            raise BadInput(
                f"--arms: {name!r} is no student of {run}. Students: {listed(possible)}.{suggestion(name, possible)}"
            )
    again = "Run its recipe again with the same --out and --store, or say where it is with --store."
    seed = built.recipe.seeds[0]
    found = []
    for name in dict.fromkeys(named or possible):
        job = next(job for job in built.jobs if job.name == name and job.seed == seed)
        if kept.result(job.key) is not None:
            found.append(job)
            continue
        missing = f"{name}, seed {seed}, is not kept in {kept.folder}"
        if named:
            raise BadInput(f"{missing}. {again}")
        say(f"note: {missing}; it is left out.")
    if not found:
        raise BadInput(f"no student of {run} is kept in {kept.folder}. {again}")
    return found


def _around(
    job: Job, kept: Store, dataset: Dataset, *, steps: Sequence[float], images: int, seed: int
) -> dict[str, Any]:
    """One student's entry of ``landscape.json``."""
    from understudy.ladder.networks import rebuilt
    from understudy.training.landscape import landscape as around
    from understudy.training.landscape import mean_loss, some_images

    device = job.stage.training.device if job.stage.training else "cpu"
    model = rebuilt(job, kept, dataset).to(device)
    preprocessing = job.stage.network.preprocessing(dataset)
    pairs = some_images(dataset.train, preprocessing, most=images, seed=seed)
    pairs = [(pixels.to(device), labels.to(device)) for pixels, labels in pairs]
    return {
        "name": job.name,
        "seed": job.seed,
        "key": job.key,
        "model": job.stage.network.label,
        "loss": mean_loss(model, pairs),
        "grid": around(model, pairs, steps=steps, seed=seed),
    }


def _show(arms: Sequence[dict[str, Any]], *, rises: Sequence[float | None], places: str) -> None:
    from rich.table import Table

    from understudy.report.numbers import NOTHING, three_figures

    title = f"Loss on training images, nats; around: {places} places"
    table = Table(title=title, title_justify="left", box=None)
    for column in ("student", "model", "as it is", "more around it"):
        table.add_column(column, justify="left" if column in ("student", "model") else "right")
    for arm, more in zip(arms, rises, strict=True):
        figures = (NOTHING if value is None else three_figures(value) for value in (arm["loss"], more))
        table.add_row(arm["name"], arm["model"], *figures)
    console().print(table)
