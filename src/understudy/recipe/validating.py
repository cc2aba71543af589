"""Parts of a recipe against their types: values of the types, or one clear line that says what is wrong."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, get_args

from pydantic import BaseModel, TypeAdapter, ValidationError

from understudy.errors import BadInput, listed, suggestion
from understudy.recipe.reading import cut
from understudy.recipe.schema import Model, Recipe, SparseCodesSection, StageEntry, Teaching
from understudy.training.settings import Training

_ADAPTERS: dict[type, TypeAdapter[Any]] = {kind: TypeAdapter(kind) for kind in (Training, Teaching, Recipe)}


def training_of(recipe: Recipe, model: Model, path: str) -> Training:
    """The recipe's training with what differs for one network."""
    return differing(recipe.training, model.training, path)


def trained_as(recipe: Recipe, model: Model, path: str) -> tuple[str, Training]:
    """Where the training of the network at ``path`` stands in the recipe, and that training."""
    own = f"{path}.training"
    return own if model.training else "training", training_of(recipe, model, f"{own}.")


def differing(usual: Training, own: Mapping[str, Any], path: str) -> Training:
    """A training with the keys that differ from it; ``path`` is where those stand in the recipe."""
    merged = {**json.loads(_ADAPTERS[Training].dump_json(usual)), **own}
    training: Training = validated(Training, merged, path)
    return training


def structure_training_of(recipe: Recipe) -> Training:
    """The recipe's training with what differs in a search for a structure: at a constant rate unless said.

    Raises:
        BadInput: what a training cannot be, or not by SGD. AdamW divides a gradient by its own size, so that what a channel
            costs would no longer decide how fast it falls, and the usual strength would mean nothing.
    """
    assert recipe.structure is not None
    own = {"schedule": "constant", **recipe.structure.training}
    if recipe.structure.epochs is not None:
        own["epochs"] = recipe.structure.epochs
    training = differing(recipe.training, own, "structure.training.")
    if training.optimizer != "sgd":
        raise BadInput(
            f"structure: a search trains by sgd, and training.optimizer is {training.optimizer}, which takes from channels "
            "alike whatever they cost. Set structure.training: {optimizer: sgd, lr: 0.05}; all else may stay"
        )
    return training


def quantise_training_of(recipe: Recipe) -> Training:
    """The recipe's training with what differs in quantisation-aware distillation: float32, a small rate.

    Without batch normalisation, which is folded, a network does not stand the rate that it was trained with.
    """
    assert recipe.quantise is not None
    own = {"precision": "fp32", "lr": recipe.training.lr / 100, "clip": 1.0, **recipe.quantise.training}
    own["epochs"] = recipe.quantise.training.get("epochs", recipe.quantise.epochs)
    return differing(recipe.training, own, "quantise.training.")


def codes_training_of(recipe: Recipe, section: SparseCodesSection) -> Training:
    """The recipe's training with what differs where a student learns to tell codes."""
    own = dict(section.training)
    if section.epochs is not None:
        own = {"epochs": section.epochs, **own}
    return differing(recipe.training, own, "teaching.sparse_codes.training.")


def dictionary_training_of(recipe: Recipe, section: SparseCodesSection) -> Training:
    """The recipe's training with what differs for dictionaries: Adam at 0.001 without decay, as published, unless said."""
    epochs = section.dictionary_epochs or codes_training_of(recipe, section).epochs
    usual = {
        "optimizer": "adamw",
        "lr": 1e-3,
        "momentum": 0.9,
        "nesterov": False,
        "weight_decay": 0.0,
        "epochs": epochs,
    }
    own = {**usual, **section.dictionary_training}
    return differing(recipe.training, own, "teaching.sparse_codes.dictionary_training.")


def teaching_of(recipe: Recipe, entry: StageEntry, path: str) -> Teaching:
    """The recipe's teaching with what differs for one stage."""
    usual = recipe.teaching.model_dump()
    if not entry.teachers:  # what the recipe says of teachers is not about it
        usual |= {"balance": None, "curriculum": None, "sparse_codes": None}
    teaching: Teaching = validated(Teaching, {**usual, **entry.teaching}, path)
    return teaching


def validated(kind: type, value: Any, path: str) -> Any:
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
        if path and not path.endswith("training."):
            return path + inner.removeprefix("training.")
        return path.removesuffix("training.") + inner
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
    "structure": "{budget: {multiply_adds: 0.5x}}",
    "budget": "{multiply_adds: 0.5x}",
    "blocks": "{stage2: 2.0, stem: 0}",
    "long_tail": "{imbalance: 100}",
    "peers": "{count: 3}",
    "views": "{crop: 4, flip: true}",
    "training": "{epochs: 30}",
    "signals": "{dtype: float16}",
    "layers": "{stage2: stage2}",
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
