"""From a teacher, data and a budget to a student: a plan with its reasons, then pilots, the ladder, and a file."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from understudy.errors import BadInput, listed
from understudy.ladder.assistants import Pilot, ranked
from understudy.recipe import check
from understudy.recipe.building import build, dataset_of
from understudy.recipe.parts import rung_of
from understudy.recipe.pilots import Pilots, pilots_of
from understudy.store.files import write_json

if TYPE_CHECKING:
    from understudy.data.dataset import Dataset
    from understudy.ladder import Network
    from understudy.outcome import RunResult
    from understudy.recipe import Recipe
    from understudy.store import Store
    from understudy.structure.budget import Limits
    from understudy.structure.cost import Cost

USUAL_EPOCHS = 30
FEWEST_EPOCHS = 4  # below it an assistant takes more from the student than it gives: no pilots, no assistant
PILOT_SHARE = 0.1  # of the student's epochs, for each pilot
HELD_BACK = 0.15  # of the hours, for what a forecast misses, the exported file and its checks
SEARCH_LR = 0.05  # of a structure search by SGD, where all else is trained by AdamW
WAYPOINTS = (0.25, 0.5, 0.75)  # candidates for the assistant, between teacher and student in ratios of cost
MOST_CANDIDATES = 4
LONG_FORECAST = 11  # epochs of the second forecast, beside one of 1: the difference is the price of ten
PLAN_FILE, PLAN_VERSION = "plan.json", 2


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What a person asks for.

    Attributes:
        data: section ``data`` of a recipe.
        teacher: a network of a recipe, its weights given or trained first.
        student: name of a network; None: what a structure search leaves of the teacher's.
        multiply_adds, parameters: the budget, as a recipe has it; at least one. A share is one of the teacher's.
        hours: for all of it; None: ``USUAL_EPOCHS`` epochs for each stage.
        seeds: of the student.
        settings: keys that are taken over into the recipe, such as ``training``; its epochs only without hours.
    """

    data: Mapping[str, Any]
    teacher: Mapping[str, Any]
    student: str | None = None
    multiply_adds: str | None = None
    parameters: str | None = None
    hours: float | None = None
    seeds: tuple[int, ...] = (0,)
    settings: Mapping[str, Any] | None = None


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What will be done, and why.

    Attributes:
        recipe: with every candidate for an assistant.
        dataset: of it.
        epochs: of every stage but the pilots. pilot_epochs: of each pilot; 0: there are none.
        seconds: that all of it takes here, about.
        reasons: sentences.
    """

    recipe: Mapping[str, Any]
    dataset: Dataset
    epochs: int
    pilot_epochs: int
    seconds: float
    reasons: tuple[str, ...]


def planned(wish: Wish, *, store: Store, parallel: int = 1) -> Plan:
    """Decides on structure, assistants, shape and epochs; nothing is trained but a few steps that are thrown away.

    Raises:
        BadInput: a budget, network, data or setting that do not fit, or hours too short for one epoch.
    """
    epochs = _section(wish, "training").get("epochs", USUAL_EPOCHS)
    if wish.hours is not None and epochs != USUAL_EPOCHS:
        raise BadInput("--hours decides the epochs; leave training.epochs out, or the hours.")
    said = _recipe(wish, assistants=(), epochs=epochs)
    recipe = check(said)
    dataset = dataset_of(recipe)
    budget, reasons = _student(wish, recipe, dataset)
    searches = budget is not None
    candidates: Sequence[Any] = WAYPOINTS if searches else _family(wish, recipe, dataset)

    def with_one(epochs: int) -> dict[str, Any]:
        return _recipe(wish, assistants=candidates[len(candidates) // 2 :][:1], epochs=epochs, budget=budget)

    if wish.hours is not None:
        short, long = (_forecast(with_one(count), store, parallel) for count in (1, LONG_FORECAST))
        pilots = len(candidates) + 1 if len(candidates) > 1 else 0
        epochs = fitting_epochs(short, long, seconds=wish.hours * 3600 * (1 - HELD_BACK), pilots=pilots)
        if epochs < 1:
            raise BadInput(
                f"--hours {wish.hours:g} is too short: one epoch of every stage takes about "
                f"{short / 3600:.2g} hours here. Give more, or a smaller student or data set."
            )
    if epochs < FEWEST_EPOCHS or not candidates:
        candidates = ()
        why = (
            "there is no network between teacher and student"
            if epochs >= FEWEST_EPOCHS
            else (f"{epochs} epochs are too few to share with an assistant")
        )
        reasons.append(f"No assistant: {why}; the teacher teaches the student directly.")
    pilot_epochs = max(1, round(PILOT_SHARE * epochs)) if len(candidates) > 1 else 0
    if candidates:
        reasons += _on_assistants(candidates, pilot_epochs, searches)
    final = _recipe(wish, assistants=candidates, epochs=epochs, budget=budget)
    seconds = _forecast(with_one(epochs), store, parallel)
    if pilot_epochs:
        seconds *= 1 + PILOT_SHARE * (len(candidates) + 1) / 3
    fits = "" if wish.hours is None else f", so that all of it fits into {wish.hours:g} h"
    reasons += _on_int8(recipe, dataset)
    reasons.append(f"Every stage is trained for {epochs} epochs{fits}.")
    return Plan(
        recipe=final,
        dataset=dataset,
        epochs=epochs,
        pilot_epochs=pilot_epochs,
        seconds=seconds,
        reasons=tuple(reasons),
    )


def fitting_epochs(short: float, long: float, *, seconds: float, pilots: int) -> int:
    """How many epochs of every stage fit into so many seconds.

    Args:
        short, long: seconds of the whole ladder with 1 and with ``LONG_FORECAST`` epochs. What does not grow with the
            epochs is a fixed cost, such as reading the images and looking at the test set.
        seconds: that there are.
        pilots: trainings of a ``PILOT_SHARE`` of the epochs, each of a network that takes a third of the ladder's time.

    >>> fitting_epochs(30.0, 130.0, seconds=120.0, pilots=0)  # 20 seconds, and 10 for an epoch
    10
    """
    # the longer one may be no longer: measured on a busy machine, or kept in the store
    an_epoch = max(1e-3, (long - short) / (LONG_FORECAST - 1) if long > short else short)
    fixed = max(0.0, short - an_epoch)
    return int((seconds - fixed * (1 + pilots / 3)) / (an_epoch * (1 + PILOT_SHARE * pilots / 3)))


def keep_plan(file: Path, wish: Wish, plan: Plan) -> None:
    """Writes what was wished and decided, so that the same wish is gone on with as it was begun.

    Raises:
        CannotWrite: no space or right to write.
    """
    decided = {
        "epochs": plan.epochs,
        "pilot_epochs": plan.pilot_epochs,
        "seconds": plan.seconds,
        "reasons": list(plan.reasons),
        "recipe": plan.recipe,
    }
    known = {"version": PLAN_VERSION, "wish": _plain(wish), "data": plan.dataset.fingerprint}
    write_json(file, {**known, "plan": decided})


def kept_plan(file: Path, wish: Wish) -> Plan | None:
    """The plan that was kept for an equal wish and the same data; None where there is none, or a damaged one.

    Raises:
        BadInput: the data are not there any more.
    """
    try:
        said = json.loads(file.read_text("utf-8"))
        if (
            not isinstance(said, dict)
            or said.get("version") != PLAN_VERSION
            or said.get("wish") != _plain(wish)
        ):
            return None
        decided = said["plan"]
        epochs, pilot_epochs, seconds = (decided[key] for key in ("epochs", "pilot_epochs", "seconds"))
        reasons = decided["reasons"]
        whole = all(type(count) is int for count in (epochs, pilot_epochs)) and 0 <= pilot_epochs <= epochs
        sound = isinstance(seconds, int | float) and math.isfinite(seconds)
        if not (
            whole and sound and isinstance(reasons, list) and all(isinstance(one, str) for one in reasons)
        ):
            return None
        if not isinstance(decided["recipe"], dict):
            return None
        recipe = check(decided["recipe"])
        if pilot_epochs and len(_assistants(decided["recipe"])) < 2:
            return None
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError, BadInput):
        return None
    dataset = dataset_of(recipe)
    if said.get("data") != dataset.fingerprint:
        return None
    return Plan(
        recipe=decided["recipe"],
        dataset=dataset,
        epochs=epochs,
        pilot_epochs=pilot_epochs,
        seconds=seconds,
        reasons=tuple(reasons),
    )


def _plain(wish: Wish) -> Any:
    """As JSON gives it back."""
    return json.loads(json.dumps(asdict(wish)))


def piloted(
    plan: Plan, *, out: Path, store: Path, hours: float | None = None, jobs: int = 1, quiet: bool = False
) -> tuple[Mapping[str, Any], tuple[str, ...]]:
    """Runs the pilots into ``out`` and takes the best candidate: the recipe to run, and why.

    Raises:
        Interrupted: run again, it goes on from the last checkpoint.
        StageFailed: a pilot failed.
    """
    from understudy.climb import run
    from understudy.recipe.building import signals_of, views_of

    if not plan.pilot_epochs:
        return plan.recipe, ()
    recipe = check(plan.recipe)
    pilots = pilots_of(recipe, epochs=plan.pilot_epochs, dataset=plan.dataset)
    result = run(
        pilots.ladder,
        plan.dataset,
        seeds=recipe.seeds[:1],
        out=out,
        store=store,
        views=views_of(recipe),
        signals=signals_of(recipe),
        ladder_seed=recipe.ladder_seed,
        jobs=jobs,
        hours=hours,
        quiet=quiet,
        force=True,
    )
    best, sentences = _taken(pilots, result)
    kept = _assistants(plan.recipe)[best]
    return _with_assistants(plan.recipe, [kept]), sentences


def _taken(pilots: Pilots, result: RunResult) -> tuple[int, tuple[str, ...]]:
    """Position of the best candidate, and what is said of it."""
    stages = {stage.name: stage for stage in result.stages}

    def accuracy(name: str) -> float:
        return float(stages[name].validation.get("accuracy", 0.0))

    shown = []
    for name in pilots.candidates:
        beside = stages[name].analysis.get("teachers", {}).get(pilots.teacher, {})
        shown.append(
            Pilot(name=name, accuracy=accuracy(name), agreement=float(beside.get("agreement") or 0.0))
        )
    teacher, student = accuracy(pilots.teacher), accuracy(pilots.student)
    best = ranked(shown, teacher=teacher, student=student)[0]
    nearest = min(shown, key=lambda one: abs(one.accuracy - (teacher + student) / 2))
    why = "its accuracy lies nearest to the middle of teacher and student"
    if nearest.name != best.name:
        why = "its accuracy lies near the middle of teacher and student, and of those it agrees most with the teacher"
    lines = ", ".join(
        f"{stages[one.name].model} {100 * one.accuracy:.1f} % (agrees with the teacher on {100 * one.agreement:.1f} %)"
        for one in shown
    )
    sentences = (
        f"Pilots, on the validation split: {lines}; teacher {100 * teacher:.1f} %, student {100 * student:.1f} %.",
        f"The assistant is {stages[best.name].model}: {why}.",
    )
    return pilots.candidates.index(best.name), sentences


# --- the recipe -----------------------------------------------------------------------------------------------------


def _section(wish: Wish, name: str) -> dict[str, Any]:
    """What the settings say in a section of the recipe.

    Raises:
        BadInput: something else than keys and values.
    """
    said = (wish.settings or {}).get(name, {})
    if not isinstance(said, Mapping):
        raise BadInput(
            f"{name}: {said!r} is no section; set one of its keys, such as --set {_EXAMPLES[name]}."
        )
    return dict(said)


_EXAMPLES = {"training": "training.batch_size=64", "data": "data.validation=0.2"}


def _recipe(
    wish: Wish, *, assistants: Sequence[Any], epochs: int, budget: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """A recipe for the wish; ``assistants`` are waypoints of structures for ``budget``, or names of networks."""
    settings = {
        key: dict(value) if isinstance(value, Mapping) else value
        for key, value in (wish.settings or {}).items()
        if key not in ("training", "data")
    }
    training = {**_section(wish, "training"), "epochs": epochs}
    data = {**wish.data, **_section(wish, "data")}
    models: dict[str, Any] = {"teacher": dict(wish.teacher)}
    if wish.student is not None:
        models["student"] = wish.student
    said: dict[str, Any] = {
        "data": data,
        "models": models,
        **settings,
        "training": training,
        "controls": ["direct"] if assistants else [],
        "seeds": list(wish.seeds),
        "ladder": {"shape": "dense" if assistants else "direct"},
    }
    if budget is None and wish.student is None:
        budget = _said_budget(wish)
    if budget is not None:
        said["structure"] = {"budget": dict(budget)}
        if training.get("optimizer") == "adamw":  # with which a search does not go
            said["structure"]["training"] = {"optimizer": "sgd", "lr": SEARCH_LR}
    return _with_assistants(said, assistants)


def _with_assistants(said: Mapping[str, Any], assistants: Sequence[Any]) -> dict[str, Any]:
    if not assistants:
        return dict(said)
    if "structure" in said:
        return {**said, "structure": {**said["structure"], "assistants": list(assistants)}}
    return {**said, "models": {**said["models"], "assistants": list(assistants)}}


def _assistants(said: Mapping[str, Any]) -> list[Any]:
    found = said["structure"].get("assistants") if "structure" in said else said["models"].get("assistants")
    return list(found or [])


def _said_budget(wish: Wish) -> dict[str, str]:
    said = {"multiply_adds": wish.multiply_adds, "parameters": wish.parameters}
    return {what: text for what, text in said.items() if text is not None}


def _left_over(limits: Limits, student: Cost) -> dict[str, str]:
    """The budget of a search in a student: in numbers, as shares are the teacher's; without what it holds already."""
    units = {"multiply_adds": "kMAC", "parameters": "k"}
    found = {what: getattr(limits, what) for what in units}
    return {
        what: f"{limit / 1000:.3f}{units[what]}"
        for what, limit in found.items()
        if limit is not None and limit < getattr(student, what)
    }


def _student(wish: Wish, recipe: Recipe, dataset: Dataset) -> tuple[dict[str, str] | None, list[str]]:
    """The budget of the structure search, None where the named student is within it as it is; and why."""
    from understudy.ladder.structured import label
    from understudy.structure.budget import Budget

    assert recipe.models is not None
    assert recipe.models.teacher is not None
    teacher = rung_of(recipe, recipe.models.teacher, "models.teacher")
    budget = Budget(multiply_adds=wish.multiply_adds, parameters=wish.parameters)
    above = _cost(teacher.network, dataset)
    limits = budget.limits(above)

    def numbers(which: Iterable[str]) -> str:
        return " and ".join(f"{getattr(limits, what):,} {_NOUNS[what]}" for what in which)

    reasons = [f"The teacher {teacher.network.label} costs {_in_words(above)} an image."]
    if wish.student is None:
        reasons.append(
            f"The student is what a structure search leaves of the teacher within {label(budget)}: "
            f"{numbers(_said_budget(wish))} at most."
        )
        return _said_budget(wish), reasons
    assert recipe.models.student is not None
    student = _cost(rung_of(recipe, recipe.models.student, "models.student").network, dataset)
    if limits.hold(student):
        reasons.append(
            f"The student {wish.student} costs {_in_words(student)} and is within {label(budget)} as it is."
        )
        return None, reasons
    lower = _left_over(limits, student)
    whose = (
        " of the teacher's" if any(isinstance(asked, float) for asked in budget.definition().values()) else ""
    )
    reasons.append(
        f"The student {wish.student} costs {_in_words(student)}; a structure search makes it fit into "
        f"{label(budget)}{whose}: {numbers(lower)} at most."
    )
    return lower, reasons


_NOUNS = {"multiply_adds": "multiply-adds", "parameters": "parameters"}


def _family(wish: Wish, recipe: Recipe, dataset: Dataset) -> tuple[str, ...]:
    """Built-in networks of the student's or the teacher's family whose cost lies between them, largest first."""
    from understudy.ladder import Network
    from understudy.models.names import built_in_names, is_built_in, parse_name

    assert recipe.models is not None
    assert recipe.models.teacher is not None
    assert recipe.models.student is not None
    ends = [
        rung_of(recipe, model, "models").network for model in (recipe.models.teacher, recipe.models.student)
    ]
    families = {parse_name(end.name).family for end in ends if end.factory is None and is_built_in(end.name)}
    top, bottom = (_cost(end, dataset).multiply_adds for end in ends)
    between = []
    for name in built_in_names():
        if parse_name(name).family in families and name not in {end.name for end in ends}:
            try:
                cost = _cost(Network(name=name), dataset).multiply_adds
            except BadInput:  # images too small for it
                continue
            if bottom < cost < top:
                between.append((cost, name))
    names = [name for _, name in sorted(between, reverse=True)]
    if len(names) <= MOST_CANDIDATES:
        return tuple(names)
    return tuple(names[round(i * (len(names) - 1) / (MOST_CANDIDATES - 1))] for i in range(MOST_CANDIDATES))


def _cost(network: Network, dataset: Dataset) -> Cost:
    import torch

    from understudy.structure.cost import cost

    with torch.random.fork_rng(devices=[]):
        model = network.build(dataset)
    height, width = network.arguments(dataset)["size"]
    return cost(model, channels=dataset.channels, size=(height, width))


def _in_words(cost: Cost) -> str:
    return f"{cost.multiply_adds / 1e6:,.2f} MMAC and {cost.parameters:,} parameters"


def _on_assistants(candidates: Sequence[Any], pilot_epochs: int, searches: bool) -> list[str]:
    where = (
        f"structures at {listed([f'{part:g}' for part in candidates])} of the way from the whole network"
        if searches
        else listed(candidates)
    )
    if pilot_epochs:
        first = (
            f"Candidates for an assistant: {where}. Each has a pilot of {pilot_epochs} epochs, as has the student; "
            f"taken is the one whose accuracy lies nearest to the middle of teacher and student."
        )
    else:
        first = f"The assistant is the only network between teacher and student: {where}."
    return [
        first,
        "The shape is dense: what teachers say is kept, so a second teacher costs the student next to nothing. "
        "The control direct shows what the assistant was worth.",
    ]


def _on_int8(recipe: Recipe, dataset: Dataset) -> list[str]:
    """What of the student's network quantises badly: better known before it is trained."""
    import torch

    from understudy.deploy.advice import warnings_on_quantising

    assert recipe.models is not None
    assert recipe.models.teacher is not None
    chosen = recipe.models.student or recipe.models.teacher
    with torch.random.fork_rng(devices=[]):
        model = rung_of(recipe, chosen, "models.student").network.build(dataset)
    return [f"If it is to be int8: {sentence}" for sentence in warnings_on_quantising(model)]


def _forecast(said: Mapping[str, Any], store: Store, parallel: int) -> float:
    """Seconds that a recipe takes here."""
    from understudy.ladder.estimate import forecast

    built = build(check(said))
    return forecast(built.jobs, store=store, dataset=built.dataset, parallel=parallel).seconds
