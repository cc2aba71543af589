"""The command from a teacher to a student for a device: compress."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from understudy.cli.deploy import check_int8
from understudy.cli.options import Jobs, Quiet, Set, StoreFolder, check_jobs, say, store_of
from understudy.errors import BadInput

if TYPE_CHECKING:
    from understudy.compress import Plan

LEAST_SECONDS = 1.0  # that pilots and run get where the hours are over: they end with a checkpoint and say so


def compress(
    teacher: Annotated[str, typer.Option(help="The teacher's network, such as timm/resnet18 or resnet-56.")],
    data: Annotated[str, typer.Option(help="A folder of class folders, an .npz file, hub:NAME, or digits.")],
    out: Annotated[Path, typer.Option(help="Folder of the run.")],
    budget: Annotated[
        list[str],
        typer.Option(
            help="What the student may cost: 20MMAC, 300k (parameters), or a part: 0.5xMAC, 0.19xparameters. "
            "May be repeated.",
            metavar="COST",
        ),
    ],
    weights: Annotated[
        Path | None, typer.Option(help="The teacher's weights; without them it is trained first.")
    ] = None,
    student: Annotated[
        str | None, typer.Option(help="A network for the student; the teacher's, made smaller, unless said.")
    ] = None,
    hours: Annotated[
        float | None, typer.Option(help="For all of it; 30 epochs for each stage unless said.")
    ] = None,
    seeds: Annotated[int, typer.Option(help="How many students; the best on validation is taken.")] = 1,
    set_: Set = None,
    int8: Annotated[bool, typer.Option("--int8", help="Write an int8 file as well.")] = False,
    max_drop: Annotated[
        float, typer.Option(help="Points of accuracy that int8 may cost.", metavar="POINTS")
    ] = 0.5,
    jobs: Jobs = 1,
    store: StoreFolder = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Stop after the plan.")] = False,
    quiet: Quiet = False,
) -> None:
    """From a teacher, data and a budget to a student in a file: the plan first, with its reasons, then all of it."""
    began = _now()
    check_jobs(jobs)
    if hours is not None and not 0 < hours < 1e6:
        raise BadInput(f"--hours is a positive number; got {hours:g}.")
    if not 1 <= seeds <= 1000:
        raise BadInput(f"--seeds is a whole number from 1 to 1000; got {seeds}.")
    if weights is not None and not weights.is_file():
        raise BadInput(f"--weights: there is no file {weights}.")
    check_int8(max_drop=max_drop)
    pilots = _pilots_beside(out)

    from understudy.deploy.export import check_packages

    check_packages("onnx", prove=True)

    from understudy.compress import PLAN_FILE, Wish, keep_plan, kept_plan, piloted, planned
    from understudy.report.numbers import duration
    from understudy.store import Store
    from understudy.training.memory import keep_pages

    keep_pages()
    network: dict[str, Any] = {"name": teacher}
    if weights is not None:
        network["weights"] = str(weights)
    wish = Wish(
        data=_data(data),
        teacher=network,
        student=student,
        **_budget(budget),
        hours=hours,
        seeds=tuple(range(seeds)),
        settings=_settings(set_),
    )
    place = store_of(out, store)
    file = pilots / PLAN_FILE
    kept = kept_plan(file, wish)
    plan = kept or planned(wish, store=Store(place), parallel=jobs)
    for sentence in plan.reasons:
        say(sentence)
    say(f"All of it takes about {duration(plan.seconds)} here.")
    if kept is not None:
        say(f"This plan was made before and is gone on with ({file}).")
    if dry_run:
        return
    if kept is None:
        _check_run(out, plan)
        keep_plan(file, wish, plan)
    recipe, sentences = piloted(
        plan, out=pilots, store=place, hours=_left(hours, since=began), jobs=jobs, quiet=quiet
    )
    for sentence in sentences:
        say(sentence)

    from understudy.cli.deploy import deliver
    from understudy.cli.run import run_raw

    run_raw(dict(recipe), out=out, jobs=jobs, hours=_left(hours, since=began), store=store, quiet=quiet)
    deliver(out, int8=int8, max_drop=max_drop)


def _check_run(out: Path, plan: Plan) -> None:
    """Whether a run that is in ``out`` already can be of this plan, which is new; before hours go into its pilots.

    Raises:
        BadInput: it was trained otherwise.
    """
    from understudy.recipe import check
    from understudy.recipe.reading import read_file
    from understudy.report.run_folder import RECIPE

    if not (out / RECIPE).is_file():
        return
    there = read_file(out / RECIPE).get("training")
    here = check(plan.recipe).as_dict()["training"]
    if isinstance(there, dict) and there != here:
        key = next(key for key in {**here, **there} if here.get(key) != there.get(key))
        raise BadInput(
            f"--out {out} holds a run of another plan: its training.{key} is {there.get(key)}, and this plan's {here.get(key)}. "
            f"Choose another --out."
        )


def _now() -> float:
    return time.monotonic()


def _left(hours: float | None, *, since: float) -> float | None:
    """Of the hours, what is left; a little always is."""
    if hours is None:
        return None
    return max(LEAST_SECONDS, hours * 3600 - (_now() - since)) / 3600


def _pilots_beside(out: Path) -> Path:
    """The folder for the plan and the pilots.

    Raises:
        BadInput: it or ``out`` cannot be a folder.
    """
    from understudy.report.run_folder import check_out

    if out.name in ("", ".."):
        raise BadInput(f"--out {out} has no name of its own; name a folder, such as runs/small.")
    check_out(out, {}, force=True)
    pilots = out.with_name(f"{out.name}-pilots")
    if pilots.exists() and not pilots.is_dir():
        raise BadInput(
            f"{pilots} is a file, and compress keeps its plan and pilots there. Choose another --out."
        )
    return pilots


def _data(place: str) -> dict[str, Any]:
    if place.startswith("hub:"):
        return {"hub": place.removeprefix("hub:")}
    return {"name": place} if place == "digits" else {"path": place}


def _settings(set_: list[str] | None) -> dict[str, Any]:
    from understudy.recipe import changed

    said = {setting.partition("=")[0].partition(".")[0] for setting in set_ or []}
    for section in ("models", "structure", "ladder", "controls", "seeds"):
        if section in said:
            raise BadInput(
                f"--set {section}: compress decides on that itself; write a recipe for understudy run."
            )
    settings = changed({}, set_ or [])
    return {section: settings[section] for section in said if section in settings}


_PARAMETERS = r"(\d+\.?\d*|\.\d+)([kmgb]|[kmgb]?parameters?|[x×]parameters?)"


def _budget(costs: list[str]) -> dict[str, str]:
    """Which of them is of multiply-adds and which of parameters; what they come to is checked where they are used."""
    found: dict[str, str] = {}
    for cost in costs:
        bare = cost.replace(" ", "").lower()
        what = "multiply_adds" if "mac" in bare or "flop" in bare else "parameters"
        if bare.endswith(("x", "×")):
            raise BadInput(f"--budget {cost}: a part of what? Write {cost}MAC or {cost}parameters.")
        if what in found:
            raise BadInput(f"--budget is given twice for {what.replace('_', '-')}: {found[what]} and {cost}.")
        if what == "parameters" and not re.fullmatch(_PARAMETERS, bare):
            raise BadInput(
                f"--budget {cost} is neither multiply-adds nor parameters. "
                "Write such as 20MMAC or 0.5xMAC, 300k or 0.19xparameters."
            )
        part = re.fullmatch(r"([0-9.]+[x×])(macs?|parameters?)", bare)
        if part:
            found[what] = part[1]
        elif what == "parameters":
            count = re.sub(r"parameters?$", "", bare)
            found[what] = count if count[-1].isalpha() else f"{float(count) / 1000}k"
        else:
            found[what] = cost
    return found
