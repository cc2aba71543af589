"""From the mapping in a recipe file to a checked recipe, or to one clear line."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, TypeAdapter, ValidationError

from understudy.errors import BadInput, listed, suggestion
from understudy.recipe.compat import expanded
from understudy.recipe.reading import long_form
from understudy.recipe.schema import Model, Recipe, StageEntry, Teaching
from understudy.training.settings import Training

_TRAINING: TypeAdapter[Training] = TypeAdapter(Training)
_TEACHING: TypeAdapter[Teaching] = TypeAdapter(Teaching)
_RECIPE: TypeAdapter[Recipe] = TypeAdapter(Recipe)


def check(raw: Mapping[str, Any]) -> Recipe:
    """A recipe from its mapping: short forms made long, ``compat`` expanded, defaults filled in, everything checked.

    Raises:
        BadInput: one line that names the path of the first thing wrong, its value, and what is possible.
    """
    whole = long_form(json.loads(json.dumps(raw)))
    if whole.get("compat") is not None:
        whole = expanded(whole)
    recipe: Recipe = _validated(_RECIPE, whole, "")
    _check_models(recipe)
    return recipe


def training_of(recipe: Recipe, model: Model, path: str) -> Training:
    """The recipe's training with what differs for one network."""
    merged = {**json.loads(_TRAINING.dump_json(recipe.training)), **model.training}
    training: Training = _validated(_TRAINING, merged, path)
    return training


def teaching_of(recipe: Recipe, entry: StageEntry, path: str) -> Teaching:
    """The recipe's teaching with what differs for one stage."""
    teaching: Teaching = _validated(_TEACHING, {**recipe.teaching.model_dump(), **entry.teaching}, path)
    return teaching


def _validated(adapter: TypeAdapter[Any], value: Any, path: str) -> Any:
    """``value`` checked; the first error as one line."""
    if adapter is not _TRAINING and isinstance(value, dict) and isinstance(value.get("training"), dict):
        _known_training(value["training"], f"{path}training")
    elif adapter is _TRAINING:
        _known_training(value, path.rstrip("."))
    try:
        # JSON mode: lists become tuples, and a word is never taken for a number
        return adapter.validate_json(json.dumps(value, allow_nan=False), strict=True)
    except ValidationError as error:
        raise BadInput(_first(error, value, path)) from error


def _known_training(said: Mapping[str, Any], path: str) -> None:
    possible = list(Training.__dataclass_fields__)
    for key in said:
        if key not in possible:
            raise BadInput(
                f"{path}.{key} is no key. Possible: {listed(possible)}.{suggestion(key, possible)}"
            )


def _first(error: ValidationError, value: Any, path: str) -> str:
    problems = error.errors(include_url=False)
    # Of several, an unknown key says most: what was meant is then also missing.
    problem = next((p for p in problems if p["type"] == "extra_forbidden"), problems[0])
    steps = [
        step
        for step in problem["loc"]
        if not (isinstance(step, str) and step.startswith(("function-", "constrained-", "tuple[", "json")))
    ]
    where = path + ".".join(str(step) for step in _real(steps, value))
    if problem["type"] == "extra_forbidden":
        key = str(steps[-1])
        possible = _keys_beside(steps)
        return f"{where} is no key. Possible: {listed(possible)}.{suggestion(key, possible)}"
    if problem["type"] == "missing":
        return f"{where} is missing."
    message = problem["msg"]
    if problem["type"] == "value_error":
        inner = message.removeprefix("Value error, ")
        return (
            inner
            if where in ("", "training") or where.rstrip(".") in inner
            else f"{where.rstrip('.')}: {inner}"
        )
    shown = json.dumps(problem["input"], ensure_ascii=False, default=str)
    shown = shown if len(shown) <= 80 else shown[:77] + "..."
    message = message.replace("Input should be", "it should be")
    message = message[0].lower() + message[1:]
    for theirs, ours in _WORDS.items():
        message = message.replace(theirs, ours)
    hint = ""
    if problem["type"] == "literal_error" and isinstance(problem["input"], str):
        hint = suggestion(problem["input"], re.findall(r"'([^']*)'", message))
    return f"{where} is {shown}; {message}.{hint}"


_WORDS = {
    "an object": "a mapping of keys",
    "a valid array": "a list",
    "a valid integer": "a whole number",
    "a valid number": "a number",
    "a valid string": "a word",
    "a valid boolean": "true or false",
    "greater than or equal to": "at least",
    "less than or equal to": "at most",
    "greater than": "more than",
}


def _real(steps: Sequence[Any], value: Any) -> Iterator[Any]:
    """Steps of an error's place that lead through ``value``; pydantic adds the names of the types it tried."""
    here = value
    for position, step in enumerate(steps):
        if isinstance(here, dict) and (step in here or position == len(steps) - 1):
            here = here.get(step)
            yield step
        elif isinstance(here, list) and isinstance(step, int) and step < len(here):
            here = here[step]
            yield step


def _keys_beside(steps: Sequence[Any]) -> list[str]:
    """The keys that are possible where an unknown one stood."""
    here: Any = Recipe
    for step in steps[:-1]:
        if isinstance(step, int):
            continue
        field = here.model_fields.get(step) if hasattr(here, "model_fields") else None
        if field is None:
            return []
        inner = [
            t for t in _types(field.annotation) if isinstance(t, type) and issubclass(t, BaseModel | Training)
        ]
        if not inner:
            return []
        here = inner[0]
    return list(getattr(here, "model_fields", None) or getattr(here, "__dataclass_fields__", {}))


def _types(annotation: Any) -> Iterator[Any]:
    yield annotation
    for inner in get_args(annotation):
        yield from _types(inner)


def _check_models(recipe: Recipe) -> None:
    """What the types cannot say: which parts go together, names of networks, partial trainings."""
    from understudy.models.names import check_name

    ladder = recipe.ladder
    sources = [word for word in ("name", "path", "hub") if getattr(recipe.data, word) is not None]
    if len(sources) != 1:
        raise BadInput(f"data needs exactly one of name, path and hub; it has {listed(sources)}.")
    if len(set(recipe.seeds)) != len(recipe.seeds):
        raise BadInput(f"seeds has a number twice: {recipe.seeds}. Each seed is one repetition.")
    if len(set(recipe.controls)) != len(recipe.controls):
        raise BadInput(f"controls names an arm twice: {listed(recipe.controls)}.")
    models: list[tuple[str, Model]]
    if ladder.stages is not None:
        if ladder.shape is not None or recipe.models is not None:
            other = "ladder.shape" if ladder.shape is not None else "models"
            raise BadInput(f"ladder.stages is the long form and {other} the short one; use one of them.")
        if ladder.stochastic is not None:
            raise BadInput(
                "ladder.stochastic goes with shape: dense; in the long form it belongs to a stage."
            )
        if not ladder.stages:
            raise BadInput("ladder.stages is empty.")
        models = [(f"ladder.stages.{i}.model", entry.model) for i, entry in enumerate(ladder.stages)]
        for position, entry in enumerate(ladder.stages):
            teaching_of(recipe, entry, f"ladder.stages.{position}.teaching.")
            if entry.start is not None and entry.model.start is not None:
                raise BadInput(
                    f"ladder.stages.{position} starts from the stage {entry.start!r} and from a file; choose one."
                )
    else:
        if ladder.shape is None:
            raise BadInput("ladder needs a shape (scratch, direct, chain, dense or paths) or stages.")
        if ladder.student is not None:
            raise BadInput(
                "ladder.student goes with ladder.stages; in the short form the student is models.student."
            )
        if recipe.models is None:
            raise BadInput("models is missing: name a student, and for anything but scratch a teacher.")
        needs_teacher = ladder.shape != "scratch" or set(recipe.controls) - {"scratch"}
        if needs_teacher and recipe.models.teacher is None:
            raise BadInput(
                "models.teacher is missing: every shape and control but scratch learns from a teacher."
            )
        needs_assistants = {ladder.shape, *recipe.controls} & {"chain", "dense", "paths"}
        if needs_assistants and not recipe.models.assistants:
            raise BadInput(
                f"models.assistants is empty: {listed(sorted(needs_assistants))} climbs over assistants. "
                f"Name some between teacher and student, or use shape: direct."
            )
        if ladder.stochastic is not None and ladder.shape != "dense":
            raise BadInput(f"ladder.stochastic goes with shape: dense; the shape is {ladder.shape}.")
        if recipe.models.student.weights is not None:
            raise BadInput(
                "models.student.weights: the student is what is taught; use start: to begin from weights."
            )
        models = [(f"models.assistants.{i}", model) for i, model in enumerate(recipe.models.assistants)]
        models += [("models.student", recipe.models.student)]
        models = ([("models.teacher", recipe.models.teacher)] if recipe.models.teacher else []) + models
    for path, model in models:
        try:
            check_name(model.name)
        except BadInput as error:
            raise BadInput(f"{path}: {error}") from error
        if model.weights is not None and (model.start is not None or model.training):
            raise BadInput(f"{path} has weights, so nothing is trained: leave out start and training.")
        if model.pretrained and (model.weights or model.start):
            raise BadInput(f"{path} is pretrained and has weights of its own; choose one.")
        training_of(recipe, model, f"{path}.training.")
        for key in ("weights", "start"):
            file = getattr(model, key)
            if file is not None and not Path(file).is_file():
                raise BadInput(f"{path}.{key}: there is no file {file}.")
