"""The section ``teaching`` of a recipe: what goes together, and what the layers below take of it."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from understudy.errors import BadInput
from understudy.recipe.schema import Model, Recipe, Teaching
from understudy.recipe.validating import (
    codes_training_of,
    dictionary_training_of,
    differing,
    trained_as,
    training_of,
)

if TYPE_CHECKING:
    from understudy.data.dataset import Dataset
    from understudy.ladder import Network
    from understudy.ladder.additions import Matching
    from understudy.teaching import Method, SoftTargets
    from understudy.teaching import Stochastic as Dropping
    from understudy.teaching.peers import Peers
    from understudy.training import Training

ADDED = ("balance", "curriculum", "sparse_codes")  # parts of a teaching that controls do not have
UNTAUGHT = ("scratch", "peers")  # shapes in which nobody teaches the student
OF_CONTROLS = {"control_labels"}  # keys of a balance that are about controls
_SETTINGS = {"temperature", "soft_weight", "combine", "hard_terms", "kl_reduction"}


def added(teaching: Teaching) -> list[str]:
    """Which parts a teaching has beside soft targets."""
    return [part for part in ADDED if getattr(teaching, part) is not None]


def plain_method_of(teaching: Teaching, dropping: Dropping | None = None) -> SoftTargets:
    """Soft targets as a recipe weighs them, and nothing else; with class weights on the labels where it asks for these."""
    from understudy.teaching import SoftTargets
    from understudy.teaching.balanced import BalancedHardTerm

    balance = teaching.balance
    if balance is not None and balance.control_labels == "balanced":
        return BalancedHardTerm(
            **_settings(teaching), stochastic=dropping, beta=balance.beta, defer=balance.defer
        )
    return SoftTargets(**_settings(teaching), stochastic=dropping)


def soft_method_of(teaching: Teaching, dropping: Dropping | None = None) -> SoftTargets:
    """Soft targets as a recipe weighs them, towards rare classes where it says so."""
    from understudy.teaching.balanced import BalancedTargets

    if teaching.balance is None:
        return plain_method_of(teaching, dropping)
    weights = teaching.balance.model_dump(exclude=OF_CONTROLS)
    return BalancedTargets(**_settings(teaching), stochastic=dropping, **weights)


def method_of(teaching: Teaching, dropping: Dropping | None = None, *, teachers: bool = True) -> Method:
    """The way to teach, all parts of it: soft targets or labels alone, in the order of a curriculum."""
    from understudy.teaching import Labels
    from understudy.teaching.curriculum import Curriculum

    method: Method = soft_method_of(teaching, dropping) if teachers else Labels()
    if teaching.curriculum is None:
        return method
    said = teaching.curriculum.model_dump()
    boundaries = tuple(said.pop("boundaries"))
    try:
        return Curriculum(method=method, temperature=teaching.temperature, boundaries=boundaries, **said)
    except BadInput as error:
        raise BadInput(f"teaching.{error}") from error


def peers_of(teaching: Teaching) -> Peers:
    """How peers teach each other, wherever there are some."""
    from understudy.teaching import Labels
    from understudy.teaching.peers import Peers

    return Peers(method=Labels(), **teaching.peers.model_dump())


def _settings(teaching: Teaching) -> dict[str, Any]:
    weights = teaching.teacher_weights
    return {
        **teaching.model_dump(include=_SETTINGS),
        "teacher_weights": None if weights is None else tuple(weights),
    }


def matching_of(
    recipe: Recipe, teaching: Teaching, *, student: Network, teacher: Network, dataset: Dataset
) -> Matching:
    """Which layers are matched, and how. Where the recipe does not say, those that a paper matches in these networks, if
    they fit here; else they are found by looking at both networks.

    Raises:
        BadInput: a layer that is not there, or maps that do not fit.
    """
    from understudy.ladder.additions import Matching
    from understudy.models.features import check_layers, check_pairs
    from understudy.teaching.sparse_codes import atoms_in

    section = teaching.sparse_codes
    assert section is not None
    if teacher.file is not None:
        raise BadInput(
            f"teaching.sparse_codes looks at the teacher's layers, and the teacher is the file {teacher.file}, which shows "
            f"none: give the network by name with its weights."
        )
    shapes = {"student": _layers(student, dataset), "teacher": _layers(teacher, dataset)}
    try:
        if section.layers is None:
            pairs = _usual_pairs(student, teacher, shapes)
        else:
            pairs = dict(section.layers)
            check_layers(pairs.keys(), shapes["student"], whose=f"the student {student.label}")
            check_layers(pairs.values(), shapes["teacher"], whose=f"the teacher {teacher.label}")
            check_pairs(pairs, shapes["student"], shapes["teacher"])
    except BadInput as error:
        raise BadInput(f"teaching.sparse_codes.layers: {error}") from error
    for layer in pairs.values():
        try:
            atoms_in(layer, shapes["teacher"][layer][0], section.atoms)
        except BadInput as error:
            raise BadInput(f"teaching.{error}") from error
    _check_dictionary_layers(section.dictionary_layers, pairs, shapes["teacher"])
    kept = {"atoms", "sparsity", "labels", "local_logits", "teacher_mode", "dictionary_layers"}
    return Matching(
        pairs=tuple(pairs.items()),
        training=codes_training_of(recipe, section),
        dictionary_training=dictionary_training_of(recipe, section),
        **section.model_dump(include=kept),
    )


def _usual_pairs(
    student: Network, teacher: Network, shapes: Mapping[str, Mapping[str, tuple[int, ...]]]
) -> dict[str, str]:
    """The published pairs, where both are built-in and have them on these images; else the last of each size."""
    from understudy.models.features import check_pairs, matched, published

    pairs = published(student.name, teacher.name)
    if pairs is not None:
        with contextlib.suppress(BadInput):  # small images leave maps of other sizes
            check_pairs(pairs, shapes["student"], shapes["teacher"])
            return pairs
    return matched(shapes["student"], shapes["teacher"])


def _check_dictionary_layers(
    others: Mapping[str, str], pairs: Mapping[str, str], shapes: Mapping[str, tuple[int, ...]]
) -> None:
    """Whether atoms that are learnt on one layer of the teacher can code the other."""
    from understudy.models.features import check_layers
    from understudy.teaching.sparse_codes import learnt_on

    path = "teaching.sparse_codes.dictionary_layers"
    try:
        learnt_on(tuple(pairs.items()), others)
    except BadInput as error:
        raise BadInput(f"teaching.{error}") from error
    try:
        check_layers(others.values(), shapes, whose="the teacher")
    except BadInput as error:
        raise BadInput(f"{path}: {error}") from error
    for layer, other in others.items():
        if shapes[layer][0] != shapes[other][0]:
            raise BadInput(
                f"{path}: the teacher's {layer!r} has {shapes[layer][0]} channels and {other!r} {shapes[other][0]}; atoms "
                f"learnt on one code the other only where both have as many."
            )


def _layers(network: Network, dataset: Dataset) -> dict[str, tuple[int, ...]]:
    import torch

    from understudy.models.features import layer_shapes

    with torch.random.fork_rng(devices=[]):
        model = network.build(dataset)
    height, width = network.arguments(dataset)["size"]
    return layer_shapes(model, channels=dataset.channels, size=(height, width))


# --- what goes together -------------------------------------------------------------------------------------------


def check_teaching(
    recipe: Recipe,
    teaching: Teaching,
    *,
    path: str,
    teachers: bool,
    trained: Sequence[tuple[str, Training]],
) -> None:
    """Whether the parts of a teaching fit each other and the rest of the recipe.

    Args:
        recipe: as it stands.
        teaching: of the recipe, or of one stage.
        path: where it stands, such as ``teaching``.
        teachers: whether somebody teaches.
        trained: of each network that it teaches, where its training stands in the recipe, and all of it.
    """
    curriculum, balance = teaching.curriculum, teaching.balance
    smoothed = [(f"{where}.label_smoothing", own.label_smoothing) for where, own in trained]
    sampled = [(f"{where}.sampling", own.sampling) for where, own in trained if own.sampling != "instance"]
    for part in ("balance", "sparse_codes"):
        if getattr(teaching, part) is not None and not teachers:
            raise BadInput(f"{path}.{part} is about what teachers say, and nobody teaches: leave it out.")
    if balance is not None and balance.control_labels == "balanced":
        for key, value in (*smoothed, ("data.views.mixup", recipe.data.views.mixup)):
            if value:
                raise BadInput(
                    f"{path}.balance.control_labels: balanced weighs each image by its one label, and {key} is {value:g}: "
                    f"leave one of them out."
                )
    if curriculum is not None:
        if curriculum.score in ("gap", "teacher") and not teachers:
            raise BadInput(
                f"{path}.curriculum.score {curriculum.score} needs a teacher, and nobody teaches. Without one: loss, "
                f"confidence or random."
            )
        for key, sampling in sampled:
            raise BadInput(f"{path}.curriculum and {key} {sampling} both say which samples come: choose one.")
        if recipe.structure is not None:
            raise BadInput(
                f"{path}.curriculum does not go with structure, whose search would see a part of the samples only: learn the "
                f"structure first."
            )
        method_of(teaching, teachers=teachers)
    if teaching.sparse_codes is not None:
        if teaching.sparse_codes.layers == {}:
            raise BadInput(
                f"{path}.sparse_codes.layers is empty: name pairs such as {{stage2: stage2}}, or leave it out to have them found."
            )
        if recipe.structure is not None:
            raise BadInput(
                f"{path}.sparse_codes does not go with structure, which begins with weights of its own: choose one."
            )
        codes_training_of(recipe, teaching.sparse_codes)
        dictionary_training_of(recipe, teaching.sparse_codes)


def check_short(recipe: Recipe) -> None:
    """The teaching of a ladder by shape."""
    assert recipe.models is not None
    shape, student, parts = recipe.ladder.shape, recipe.models.student, added(recipe.teaching)
    below = [(f"models.assistants.{i}", model) for i, model in enumerate(recipe.models.assistants)]
    below += [("models.student", student)] if student is not None else []
    trained = [trained_as(recipe, model, at) for at, model in below if not (model.weights or model.file)]
    check_teaching(recipe, recipe.teaching, path="teaching", teachers=shape not in UNTAUGHT, trained=trained)
    if shape in ("paths", "pacemaker") and (parts or (student is not None and student.peers)):
        what = f"teaching.{parts[0]}" if parts else "models.student.peers"
        why = (
            "which compares ladders with each other and has none without it"
            if shape == "paths"
            else "which trains the student in two stages of its own"
        )
        raise BadInput(f"{what} does not go with shape: {shape}, {why}; take direct, chain or dense.")
    has_peers = shape == "peers" or (student is not None and student.peers is not None)
    _check_controls(recipe, parts, has_peers=has_peers)
    if has_peers and "sparse_codes" in parts:
        raise BadInput(
            "teaching.sparse_codes finds the weights that a student begins with, and peers begin with their own: choose one."
        )


def _check_controls(recipe: Recipe, parts: Sequence[str], *, has_peers: bool) -> None:
    """Whether each control has what it is made of, can be computed, and is another arm than the ladder itself."""
    for control, part in (
        ("balanced_labels", "balance"),
        ("curriculum_reverse", "curriculum"),
        ("curriculum_random", "curriculum"),
        ("hints", "sparse_codes"),
    ):
        if control in recipe.controls and part not in parts:
            raise BadInput(f"controls: {control} goes with teaching.{part}, and this recipe has none.")
    curriculum, mixup = recipe.teaching.curriculum, recipe.data.views.mixup
    smoothing = _smoothing_of_a_control(recipe, "balanced_labels")
    one_label = "and data.views.mixup blends two: leave one of them out."
    same_order = "is the same as the ladder where teaching.curriculum.score is random: leave it out, or take another score."
    at_random = curriculum is not None and curriculum.score == "random"
    for control, wrong, said in (
        (
            "balanced_labels",
            smoothing,
            f"has no smoothed labels, and training.label_smoothing is {smoothing:g}: leave one of them out, or say "
            f"control_training: {{balanced_labels: {{label_smoothing: 0}}}}.",
        ),
        ("balanced_labels", mixup, f"weighs each image by its label, {one_label}"),
        ("dkd", mixup, f"tells the label's class from the others, {one_label}"),
        ("curriculum_reverse", at_random, same_order),
        ("curriculum_random", at_random, same_order),
        (
            "curriculum_reverse",
            curriculum is not None and curriculum.direction == "hard_first",
            "is the same as the ladder where teaching.curriculum.direction is hard_first: leave it out, or begin with the easy "
            "ones.",
        ),
        (
            "peers_alone",
            not has_peers,
            "goes with shape: peers or models.student.peers, and this recipe has neither.",
        ),
        (
            "peers_alone",
            not recipe.teaching.peers.weight,
            "is the same as the ladder where teaching.peers.weight is 0, so that peers do not teach each other: leave it out.",
        ),
    ):
        if wrong and control in recipe.controls:
            raise BadInput(f"controls: {control} {said}")


def _smoothing_of_a_control(recipe: Recipe, control: str) -> float:
    """The label smoothing with which the student of a control would be trained."""
    assert recipe.models is not None
    student = recipe.models.student
    usual = recipe.training if student is None else training_of(recipe, student, "models.student.training.")
    own = recipe.control_training.get(control, {})
    return differing(usual, own, f"control_training.{control}.").label_smoothing


def check_peers(recipe: Recipe, models: Sequence[tuple[str, Model]]) -> None:
    """What does not go with peers, wherever they are.

    Args:
        recipe: as it stands.
        models: all of its networks, each with where it stands.
    """
    together = recipe.ladder.shape == "peers"
    for path, model in models:
        if model.peers is None and not (together and path == "models.student"):
            continue
        if recipe.data.views.mixup:
            raise BadInput(
                f"{path} has peers, which see several views of one image, and data.views.mixup blends others into each: "
                f"leave mixup out."
            )
        if (model.training or {}).get("ema", recipe.training.ema) is not None:
            raise BadInput(
                f"{path} has peers, whose moving average is teaching.peers.ema: leave training.ema out, or set "
                f"{path}.training.ema: null."
            )
        if recipe.structure is not None:
            raise BadInput(
                f"{path} has peers, which begin with weights of their own, and so does structure: choose one."
            )
        if model.start is not None or model.pretrained:
            raise BadInput(
                f"{path} has peers, which begin with weights of their own: leave out start and pretrained."
            )
