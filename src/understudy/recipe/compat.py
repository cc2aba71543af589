"""What the published codes of the papers do, as plain keys of a recipe."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

from understudy.errors import BadInput, listed, suggestion
from understudy.recipe.reading import cut
from understudy.recipe.schema import Compat

UNTAUGHT_CONTROLS = ("scratch", "label_smoothing", "balanced_labels", "structure_alone", "peers_alone")
# What the codes do, as plain keys; a key that the recipe sets itself is left as it is. ``parts`` are of a teaching, where
# the recipe has them; ``untaught`` is of networks that nobody teaches.
_CIFAR100_STATISTICS = {
    "mean": [0.507, 0.487, 0.441],
    "std": [0.267, 0.256, 0.276],
}  # used by both for both sets
_OFFICIAL_TRAINING = {
    "epochs": 160,
    "batch_size": 128,
    "optimizer": "sgd",
    "momentum": 0.9,
    "nesterov": False,
    "weight_decay": 1e-4,
}
OFFICIAL: dict[str, dict[str, Any]] = {
    "takd": {
        "data": _CIFAR100_STATISTICS,
        "teaching": {"kl_reduction": "mean_over_classes"},
        "training": _OFFICIAL_TRAINING,
        "plain": {"schedule": "constant", "lr": 0.01},
        # as executed: the branch that sets 0.1 compares an epoch with half of itself and is never taken
        "other": {"schedule": "step", "lr": 0.01, "milestones": [0.75], "gamma": 0.1},
    },
    "dgkd": {
        "data": _CIFAR100_STATISTICS,
        "teaching": {
            "kl_reduction": "mean_over_classes",
            "temperature": 5.0,
            "soft_weight": 1.0,
            "combine": "sum",
            "hard_terms": "once",
        },
        "training": _OFFICIAL_TRAINING,
        "plain": {"schedule": "constant", "lr": 0.01},
        "other": {"schedule": "step", "lr": 0.1, "milestones": [0.5, 0.75], "gamma": 0.1},
    },
    # of CIFAR-100, with AdamW in place of Adam with an L2 term
    "srm": {
        "data": {"mean": [0.4914, 0.4824, 0.4467], "std": [0.2471, 0.2435, 0.2616]},
        "parts": {
            "sparse_codes": {
                "local_logits": "sigmoid",
                "teacher_mode": "train",
                "epochs": 160,
                "training": {"batch_size": 384, "milestones": [0.1875, 0.8125]},
                "dictionary_epochs": 100,
                "dictionary_training": {"batch_size": 512, "schedule": "step", "milestones": [0.1, 0.7]},
            }
        },
        "training": {
            "epochs": 200,
            "batch_size": 128,
            "optimizer": "adamw",
            "nesterov": False,
            "lr": 1e-3,
            "weight_decay": 1e-4,
            "schedule": "step",
            "milestones": [0.15, 0.65],
            "gamma": 0.1,
        },
    },
    # of a public re-implementation: there is no code of the authors
    "pcl": {
        "parts": {
            "peers": {
                "temperature": 3.0,
                "weight": 1.0,
                "ramp": 0.267,
                "ramp_divisor": "weight",
                "ema": 0.999,
                "ema_buffers": False,
            }
        },
        "training": {
            "epochs": 300,
            "batch_size": 128,
            "optimizer": "sgd",
            "momentum": 0.9,
            "nesterov": True,
            "weight_decay": 5e-4,
            "lr": 0.1,
            "schedule": "step",
            "milestones": [0.5, 0.75],
            "gamma": 0.1,
        },
    },
    # CE + KD at a rate of 0.1 and a decay of 2e-4 is half of both at twice the rate and half the decay
    "bkd": {
        "data": {"mean": [0.4914, 0.4822, 0.4465], "std": [0.2023, 0.1994, 0.2010]},
        "teaching": {"temperature": 2.0, "soft_weight": 0.5},
        "parts": {"balance": {"beta": 0.9999, "form": "renormalised", "control_labels": "balanced"}},
        "training": {
            "epochs": 200,
            "batch_size": 128,
            "optimizer": "sgd",
            "momentum": 0.9,
            "nesterov": False,
            "weight_decay": 1e-4,
            "lr": 0.2,
            "schedule": "step",
            "milestones": [0.8, 0.9],
            "gamma": 0.01,
            "warmup": 5.0,
        },
        "untaught": {"lr": 0.1, "weight_decay": 2e-4},
    },
}


def expanded(whole: dict[str, Any]) -> dict[str, Any]:
    """``compat`` turned into plain keys; the resolved recipe then says ``compat: null``.

    Deviations from the official codes that stay: nothing is chosen on the test set, teachers see no gradient, and the
    random streams are ours. Of ``srm``: AdamW in place of Adam with an L2 term, biases of the networks begin at 0 instead
    of being drawn from a normal distribution, ``scratch`` has batches of 128 (256 there) and the start of ``hints`` of 384
    (512), and the last dictionaries are taken, not those of the lowest training loss. Of ``pcl``: classifiers of peers begin
    unequal. Of ``srm`` again: one optimiser throughout, where the code begins a new one at each of its rates. Of ``dgkd`` in a
    recipe of stages: nobody is left out unless a stage says ``stochastic``. Of ``bkd``: a rate that warms up rises with every step, not every epoch, and shortcuts of a ResNet that change
    the number of channels are 1x1 convolutions, where the code has none with parameters.
    """
    compat = whole.pop("compat")
    if compat not in get_args(Compat):
        raise BadInput(
            f"compat is {cut(str(compat))}; it can be {listed(get_args(Compat))}."
            f"{suggestion(str(compat), get_args(Compat))}"
        )
    official = _by_weight(compat, whole)
    said_of_training = whole.get("training")
    by_recipe = set(said_of_training) if isinstance(said_of_training, dict) else set()
    for section in ("data", "teaching", "training"):
        said = whole.setdefault(section, {})
        if isinstance(said, dict):
            whole[section] = {**official.get(section, {}), **said}
    if "epochs" in by_recipe and "warmup" not in by_recipe and isinstance(whole["training"], dict):
        whole["training"].pop("warmup", None)  # is counted in epochs of the published training
    for part, keys in official.get("parts", {}).items():
        for teaching in _teachings(whole):
            if part == "peers" and teaching is whole["teaching"]:  # what peers say is there in any case
                teaching.setdefault(part, {})
            if isinstance(teaching.get(part), dict):
                teaching[part] = _filled(teaching[part], _left_open(keys, by_recipe))

    def by_family(model: Any, *, taught: bool = True) -> None:
        if isinstance(model, dict) and isinstance(model.get("name"), str) and not model.get("weights"):
            family = official.get("plain" if model["name"].startswith("plain_cnn") else "other", {})
            family = family if taught else {**family, **official.get("untaught", {})}
            said = model.get("training") or {}
            if isinstance(said, dict):
                model["training"] = {
                    **{key: value for key, value in family.items() if key not in by_recipe},
                    **said,
                }

    untaught = {key: value for key, value in official.get("untaught", {}).items() if key not in by_recipe}
    controls, own = whole.get("controls"), whole.get("control_training", {})
    if untaught and isinstance(controls, list) and isinstance(own, dict):
        whole_labels = (*UNTAUGHT_CONTROLS, "dkd", "logit_std")  # their loss has the whole hard term
        alone = {name: own.get(name, {}) for name in controls if name in whole_labels}
        filled = {name: {**untaught, **said} for name, said in alone.items() if isinstance(said, dict)}
        whole["control_training"] = {**own, **filled}

    models = whole.get("models")
    if isinstance(models, dict):
        assistants = models.get("assistants")
        between = assistants if isinstance(assistants, list) else []  # what else it may be is refused later
        by_family(models.get("teacher"), taught=False)
        shape = whole["ladder"].get("shape") if isinstance(whole.get("ladder"), dict) else None
        alone_or_peers = shape in ("scratch", "peers") and not models.get("teacher")
        by_family(models.get("student"), taught=not alone_or_peers)
        for model in between:
            by_family(model)
    ladder = whole.get("ladder")
    if isinstance(ladder, dict):
        stages = ladder.get("stages")
        for entry in stages if isinstance(stages, list) else []:
            if isinstance(entry, dict):
                by_family(entry.get("model"), taught=bool(entry.get("teachers")))
        if compat == "dgkd" and ladder.get("shape") == "dense" and "stochastic" not in ladder:
            ladder["stochastic"] = {"mode": "exact_k", "drop": 1}
    return whole


def _by_weight(compat: str, whole: Mapping[str, Any]) -> dict[str, Any]:
    """What the official code does, at this recipe's share of the soft term.

    ``bkd`` is the sum of a hard term and alpha times a soft one, where ours are shares: (1 - w) and w, alpha = w / (1 - w).
    With SGD a loss of (1 - w) times the size is the same training at 1 / (1 - w) of the rate and (1 - w) of the decay.
    """
    official = OFFICIAL[compat]
    teaching = whole.get("teaching")
    weight = teaching.get("soft_weight") if isinstance(teaching, Mapping) else None
    if "untaught" not in official or not isinstance(weight, int | float) or not 0 <= weight < 1:
        return official
    alone = official["untaught"]
    scaled = {"lr": alone["lr"] / (1 - weight), "weight_decay": alone["weight_decay"] * (1 - weight)}
    return {**official, "training": {**official["training"], **scaled}}


def _teachings(whole: dict[str, Any]) -> list[dict[str, Any]]:
    """The recipe's teaching, and what differs from it in stages."""
    ladder = whole.get("ladder")
    stages = ladder.get("stages") if isinstance(ladder, dict) else None
    holders = (whole, *(stages if isinstance(stages, list) else ()))
    found = [holder.get("teaching") for holder in holders if isinstance(holder, dict)]
    return [teaching for teaching in found if isinstance(teaching, dict)]


def _left_open(keys: Mapping[str, Any], by_recipe: set[str]) -> dict[str, Any]:
    """The keys of a part without what its trainings take from the recipe's, where that says it."""
    found: dict[str, Any] = {}
    for key, value in keys.items():
        if isinstance(value, dict):
            found[key] = {name: one for name, one in value.items() if name not in by_recipe}
        elif not (key.endswith("epochs") and "epochs" in by_recipe):
            found[key] = value
    return found


def _filled(said: dict[str, Any], keys: Mapping[str, Any]) -> dict[str, Any]:
    """``keys`` below what is said, mappings inside filled likewise."""
    both = {
        key: {**keys[key], **value}
        for key, value in said.items()
        if isinstance(value, dict) and isinstance(keys.get(key), dict)
    }
    return {**keys, **said, **both}
