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
from understudy.recipe.reading import cut, long_form
from understudy.recipe.schema import Model, Recipe, StageEntry, Teaching
from understudy.training.settings import Training

_ADAPTERS: dict[type, TypeAdapter[Any]] = {kind: TypeAdapter(kind) for kind in (Training, Teaching, Recipe)}


def check(raw: Mapping[str, Any]) -> Recipe:
    """A recipe from its mapping: short forms made long, ``compat`` expanded, defaults filled in, everything checked.

    Raises:
        BadInput: one line that names the path of the first thing wrong, its value, and what is possible.
    """
    whole = long_form(json.loads(json.dumps(raw)))
    if whole.get("compat") is not None:
        whole = expanded(whole)
    recipe: Recipe = _validated(Recipe, whole, "")
    _check_models(recipe)
    return recipe


def training_of(recipe: Recipe, model: Model, path: str) -> Training:
    """The recipe's training with what differs for one network."""
    merged = {**json.loads(_ADAPTERS[Training].dump_json(recipe.training)), **model.training}
    training: Training = _validated(Training, merged, path)
    return training


def structure_training_of(recipe: Recipe) -> Training:
    """The recipe's training with what differs in a search for a structure: at a constant rate unless said."""
    assert recipe.structure is not None
    own = {"schedule": "constant", **recipe.structure.training}
    if recipe.structure.epochs is not None:
        own["epochs"] = recipe.structure.epochs
    merged = {**json.loads(_ADAPTERS[Training].dump_json(recipe.training)), **own}
    training: Training = _validated(Training, merged, "structure.training.")
    return training


def quantise_training_of(recipe: Recipe) -> Training:
    """The recipe's training with what differs in quantisation-aware distillation: float32, a small rate.

    Without batch normalisation, which is folded, a network does not stand the rate that it was trained with.
    """
    assert recipe.quantise is not None
    own = {"precision": "fp32", "lr": recipe.training.lr / 100, "clip": 1.0, **recipe.quantise.training}
    merged = {**json.loads(_ADAPTERS[Training].dump_json(recipe.training)), **own}
    merged["epochs"] = recipe.quantise.training.get("epochs", recipe.quantise.epochs)
    training: Training = _validated(Training, merged, "quantise.training.")
    return training


def teaching_of(recipe: Recipe, entry: StageEntry, path: str) -> Teaching:
    """The recipe's teaching with what differs for one stage."""
    teaching: Teaching = _validated(Teaching, {**recipe.teaching.model_dump(), **entry.teaching}, path)
    return teaching


def _validated(kind: type, value: Any, path: str) -> Any:
    """``value`` checked; the first error as one line."""
    if kind is Training:
        _known_training(value, path)
    elif isinstance(value.get("training"), dict):
        _known_training(value["training"], f"{path}training.")
    try:
        # JSON mode: lists become tuples, and a word is never taken for a number
        return _ADAPTERS[kind].validate_json(json.dumps(value, allow_nan=False), strict=True)
    except ValidationError as error:
        raise BadInput(_first(error, kind, value, path)) from error


def _known_training(said: Mapping[str, Any], path: str) -> None:
    possible = list(Training.__dataclass_fields__)
    for key in said:
        if key not in possible:
            raise BadInput(_unknown(path + cut(key, quoted=False), key, possible))


def _first(error: ValidationError, kind_of_value: type, value: Any, path: str) -> str:
    problems = error.errors(include_url=False)
    # Of several, an unknown key says most: what was meant is then also missing.
    problem = next((p for p in problems if p["type"] == "extra_forbidden"), problems[0])
    steps = list(_real(problem["loc"], value))
    if "size" in steps:  # of a number and of a pair, pydantic complains about both
        steps = steps[: steps.index("size") + 1]
    where = path + ".".join(cut(str(step), quoted=False) for step in steps)
    kind, given, limits = problem["type"], problem["input"], problem.get("ctx", {})
    if kind == "extra_forbidden":
        return _unknown(where, str(steps[-1]), _keys_beside(steps, kind_of_value))
    if kind == "missing":
        return f"{where} is missing."
    if kind == "value_error":
        # Training's own checks; they speak of the recipe's training, which need not be where this one stands
        inner = problem["msg"].removeprefix("Value error, ")
        return path.removesuffix("training.") + inner if path else inner
    shown = json.dumps(given, ensure_ascii=False, default=str)
    shown = shown if len(shown) <= 80 else shown[:77] + "..."
    example = _EXAMPLES.get(steps[-1], "") if steps else ""
    hint = f", such as {example}" if example else ""
    if kind == "literal_error":
        possible = re.findall(r"'([^']*)'", limits["expected"]) or [limits["expected"]]
        near = _SAME.get(str(given), "") if _SAME.get(str(given)) in possible else ""
        meant = f" Did you mean {near!r}?" if near else suggestion(str(given), possible)
        return f"{where} is {shown}; it can be {listed(possible)}.{meant}"
    if steps and steps[-1] == "size":
        return f"{where} is {shown}; it is a number of pixels from 1 to 4096, or [height, width]."
    if kind in ("model_type", "dataclass_type") and limits.get("class_name") == "Model":
        return f"{where} is {shown}; it should be a network such as plain_cnn-4, or keys such as {{name: plain_cnn-4}}."
    if kind in ("too_short", "too_long"):
        at_least = kind == "too_short"
        count = limits["min_length" if at_least else "max_length"]
        how_many = f"{'at least' if at_least else 'at most'} {count} {'entry' if count == 1 else 'entries'}"
        return f"{where} is {shown}; it should have {how_many}{hint}."
    if kind in ("string_too_short", "string_too_long"):
        wanted = (
            "should not be empty"
            if kind == "string_too_short"
            else f"has {limits['max_length']} signs at most"
        )
        return f"{where} is {shown}; it {wanted}."
    if kind == "string_pattern_mismatch":
        return f"{where} is {shown}; the name of a stage is one line of visible signs without spaces at its ends."
    if kind in _LIMITS:
        sign, name = _LIMITS[kind]
        limit = limits[name]
        return f"{where} is {shown}; it should be {sign} {limit if isinstance(limit, int) else f'{limit:g}'}."
    wanted = next((ours for theirs, ours in _WANTED.items() if kind.startswith(theirs)), "")
    if not wanted:
        message = problem["msg"]
        return f"{where} is {shown}; {message[0].lower() + message[1:]}."
    return f"{where} is {shown}; it should be {wanted}{hint}."


def _unknown(where: str, key: str, possible: Sequence[str]) -> str:
    meant = _SAME.get(key.lower(), "")
    near = f" Did you mean {meant!r}?" if meant in possible else suggestion(key, possible)
    return f"{where} is no key. Possible: {listed(possible)}.{near}"


# what other programs call the same thing
_SAME = {
    "learning_rate": "lr",
    "batch": "batch_size",
    "alpha": "soft_weight",
    "lambda": "soft_weight",
    "lambda_": "soft_weight",
    "t": "temperature",
    "tau": "temperature",
    "wd": "weight_decay",
    "scheduler": "schedule",
    "dtype": "precision",
    "amp": "precision",
    "seed": "seeds",
    "model": "models",
    "dataset": "data",
    "gpu": "cuda",
    "cuda:0": "cuda",
    "adam": "adamw",
    "float32": "fp32",
    "bfloat16": "bf16",
    "takd": "chain",
    "dgkd": "dense",
}
_EXAMPLES = {
    "data": "{name: digits}",
    "seeds": "[0, 1, 2]",
    "controls": "[scratch, direct]",
    "assistants": "[plain_cnn-8, plain_cnn-4]",
    "milestones": "[0.5, 0.75]",
    "teacher_weights": "[1, 0.5]",
    "models": "{teacher: plain_cnn-10, student: plain_cnn-2}",
    "ladder": "{shape: dense}",
    "stochastic": "{keep: 0.75}",
    "transforms": "[{name: ColorJitter, brightness: 0.2}]",
    "columns": "{image: img, label: fine_label}",
    "multiply_adds": "0.5x or 20MMAC",
    "parameters": "0.19x or 300k",
}
_LIMITS = {
    "greater_than_equal": ("at least", "ge"),
    "less_than_equal": ("at most", "le"),
    "greater_than": ("more than", "gt"),
    "less_than": ("less than", "lt"),
}
_WANTED = {
    "model": "keys with values",
    "dataclass": "keys with values",
    "dict": "keys with values",
    "list": "a list",
    "tuple": "a list",
    "int": "a whole number",
    "float": "a number",
    "string": "a word",
    "bool": "true or false",
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


def _keys_beside(steps: Sequence[Any], top: type) -> list[str]:
    """The keys that are possible where an unknown one stood."""
    here: Any = top
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


def _is_file(name: str) -> bool:
    try:
        return Path(name).is_file()
    except OSError:  # a name too long for any file, a folder that may not be looked into
        return False


def _check_network(model: Model, path: str) -> None:
    """A name that can be built, or a file and nothing that does not go with it."""
    from understudy.models.frozen_files import format_of
    from understudy.models.names import check_name
    from understudy.models.strips import check_strip

    if model.file is None:
        assert model.name is not None
        check_name(model.name)
        if model.strip is not None:
            check_strip(model.strip)
        return
    if path == "models.student":
        raise BadInput(
            "the student is what is taught, and a network in a file is not trained: give a name instead."
        )
    for key in ("name", "width", "strip", "pretrained", "weights", "start", "training"):
        if getattr(model, key) != Model.model_fields[key].get_default():
            raise BadInput(f"file is a teacher that is there already, whole: leave out {key}.")
    if format_of(Path(model.file)) == "logits":
        for key in ("size", "mean", "std"):
            if getattr(model, key) is not None:
                raise BadInput(f"file holds logits, which look at no image any more: leave out {key}.")


def _check_structure(recipe: Recipe) -> None:
    """What goes with a structure that is learnt, and what is missing without one."""
    assert recipe.models is not None
    section = recipe.structure
    if section is None:
        if recipe.models.student is None:
            raise BadInput(
                "models.student is missing: name what is taught, or learn a structure from the teacher."
            )
        for control in ("uniform", "structure_alone"):
            if control in recipe.controls:
                raise BadInput(f"controls: {control} goes with structure, and this recipe has none.")
        return
    if recipe.models.teacher is None:
        raise BadInput("models.teacher is missing: a structure is learnt from it.")
    if recipe.models.assistants:
        raise BadInput(
            "models.assistants and structure: the assistants are structures found on the way; say how many as "
            "structure.assistants."
        )
    if section.budget.multiply_adds is None and section.budget.parameters is None:
        raise BadInput("structure.budget is empty: say multiply_adds: 0.5x, or parameters: 300k, or both.")
    if len(set(section.strengths)) != len(section.strengths):
        raise BadInput(f"structure.strengths has a number twice: {section.strengths}.")
    if len(section.strengths) > 1 and not recipe.data.validation:
        raise BadInput(
            "structure.strengths are chosen among on the validation split, and data.validation is 0: give one strength."
        )
    structure_training_of(recipe)


def _check_models(recipe: Recipe) -> None:
    """What the types cannot say: which parts go together, names of networks, partial trainings."""
    ladder = recipe.ladder
    if recipe.quantise is not None:
        quantise_training_of(recipe)
    sources = [word for word in ("name", "path", "hub") if getattr(recipe.data, word) is not None]
    if len(sources) != 1:
        raise BadInput(f"data needs exactly one of name, path and hub; it has {listed(sources)}.")
    if len(set(recipe.seeds)) != len(recipe.seeds):
        raise BadInput(f"seeds has a number twice: {recipe.seeds}. Each seed is one repetition.")
    if recipe.compare is not None and len(set(recipe.compare)) != len(recipe.compare):
        raise BadInput(f"compare names an arm twice: {listed(recipe.compare)}.")
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
        if recipe.structure is not None:
            raise BadInput("structure goes with ladder.shape; in the long form every stage is written down.")
    else:
        if ladder.shape is None:
            raise BadInput(
                "ladder needs a shape (scratch, direct, chain, dense, paths or pacemaker) or stages."
            )
        if ladder.student is not None:
            raise BadInput(
                "ladder.student goes with ladder.stages; in the short form the student is models.student."
            )
        if recipe.models is None:
            raise BadInput("models is missing: name a student, and for anything but scratch a teacher.")
        needs_teacher = ladder.shape != "scratch" or set(recipe.controls) - {"scratch", "label_smoothing"}
        if needs_teacher and recipe.models.teacher is None:
            raise BadInput(
                "models.teacher is missing: every shape and control but scratch and label_smoothing "
                "learns from a teacher."
            )
        _check_structure(recipe)
        needs_assistants = {ladder.shape, *recipe.controls} & {"chain", "dense", "paths", "mean_teachers"}
        if needs_assistants and recipe.structure is not None and not recipe.structure.assistants:
            raise BadInput(
                f"structure.assistants is 0: {listed(sorted(needs_assistants))} needs assistants. "
                f"Ask for some structures on the way, or use shape: direct."
            )
        if needs_assistants and recipe.structure is None and not recipe.models.assistants:
            raise BadInput(
                f"models.assistants is empty: {listed(sorted(needs_assistants))} needs assistants. "
                f"Name some between teacher and student, or use shape: direct."
            )
        if ladder.stochastic is not None and ladder.shape != "dense":
            raise BadInput(f"ladder.stochastic goes with shape: dense; the shape is {ladder.shape}.")
        if ladder.reading != "ensemble" and ladder.shape != "pacemaker":
            raise BadInput(f"ladder.reading goes with shape: pacemaker; the shape is {ladder.shape}.")
        student = recipe.models.student
        if student is not None and student.weights is not None:
            raise BadInput(
                "models.student.weights: the student is what is taught; use start: to begin from weights."
            )
        models = [(f"models.assistants.{i}", model) for i, model in enumerate(recipe.models.assistants)]
        models += [("models.student", student)] if student is not None else []
        models = ([("models.teacher", recipe.models.teacher)] if recipe.models.teacher else []) + models
    for path, model in models:
        if model.name is None and model.file is None:
            raise BadInput(f"{path}.name is missing.")
        try:
            _check_network(model, path)
        except BadInput as error:
            raise BadInput(f"{path}: {error}") from error
        if model.weights is not None and (model.start is not None or model.training):
            raise BadInput(f"{path} has weights, so nothing is trained: leave out start and training.")
        if model.pretrained and (model.weights or model.start):
            raise BadInput(f"{path} is pretrained and has weights of its own; choose one.")
        training_of(recipe, model, f"{path}.training.")
        for key in ("weights", "start", "file"):
            file = getattr(model, key)
            if file is not None and not _is_file(file):
                raise BadInput(f"{path}.{key}: there is no file {cut(file, quoted=False)}.")
