"""From the mapping in a recipe file to a checked recipe, or to one clear line."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from understudy.errors import BadInput, listed, suggestion
from understudy.recipe.compat import expanded
from understudy.recipe.reading import cut, long_form
from understudy.recipe.schema import Model, Recipe
from understudy.recipe.teachings import UNTAUGHT, check_peers, check_short, check_teaching
from understudy.recipe.validating import (
    differing,
    quantise_training_of,
    structure_training_of,
    teaching_of,
    trained_as,
    training_of,
    validated,
)


def check(raw: Mapping[str, Any]) -> Recipe:
    """A recipe from its mapping: short forms made long, ``compat`` expanded, defaults filled in, everything checked.

    Raises:
        BadInput: one line that names the path of the first thing wrong, its value, and what is possible.
    """
    try:
        whole = long_form(json.loads(json.dumps(raw, default=_written, allow_nan=False)))
    except (TypeError, ValueError) as error:
        raise BadInput(f"the recipe cannot be written down: {error}.") from error
    if whole.get("compat") is not None:
        whole = expanded(whole)
    recipe: Recipe = validated(Recipe, whole, "")
    _check_models(recipe)
    return recipe


def _written(value: object) -> str:
    if isinstance(value, os.PathLike):
        return os.fspath(value)  # type: ignore[no-any-return]
    raise TypeError(f"{value!r} is a {type(value).__name__}")


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
    for key in ("name", "width", "strip", "peers", "pretrained", "weights", "start", "training"):
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
    for control, own in recipe.control_training.items():
        if control not in recipe.controls:
            raise BadInput(
                f"control_training.{cut(control, quoted=False)}: that is none of this recipe's controls, which are "
                f"{listed(recipe.controls) or 'none'}.{suggestion(control, recipe.controls)}"
            )
        differing(recipe.training, own, f"control_training.{control}.")
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
            path = f"ladder.stages.{position}.teaching"
            teaching = teaching_of(recipe, entry, f"{path}.")
            if entry.model.weights is None and entry.model.file is None:
                trained = [trained_as(recipe, entry.model, f"ladder.stages.{position}.model")]
                check_teaching(recipe, teaching, path=path, teachers=bool(entry.teachers), trained=trained)
            if entry.start is not None and entry.model.start is not None:
                raise BadInput(
                    f"ladder.stages.{position} starts from the stage {entry.start!r} and from a file; choose one."
                )
        if recipe.structure is not None:
            raise BadInput("structure goes with ladder.shape; in the long form every stage is written down.")
    else:
        if ladder.shape is None:
            raise BadInput(
                "ladder needs a shape (scratch, direct, chain, dense, paths, pacemaker or peers) or stages."
            )
        if ladder.student is not None:
            raise BadInput(
                "ladder.student goes with ladder.stages; in the short form the student is models.student."
            )
        if recipe.models is None:
            raise BadInput("models is missing: name a student, and for anything but scratch a teacher.")
        alone = {"scratch", "label_smoothing", "peers", "peers_alone", "balanced_labels"}
        if ladder.shape in UNTAUGHT:
            alone |= {"curriculum_reverse", "curriculum_random"}
        taught = [name for name in (ladder.shape, *recipe.controls) if name not in alone]
        if taught and recipe.models.teacher is None:
            raise BadInput(f"models.teacher is missing: {taught[0]} learns from a teacher.")
        _check_structure(recipe)
        check_short(recipe)
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
    check_peers(recipe, models)
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
