"""What the official codes of the papers do, as plain keys of a recipe."""

from __future__ import annotations

from typing import Any, get_args

from understudy.errors import BadInput, listed, suggestion
from understudy.recipe.reading import cut
from understudy.recipe.schema import Compat

# What the official codes do, as plain keys; a key that the recipe sets itself is left as it is.
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
_OFFICIAL: dict[str, dict[str, Any]] = {
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
}


def expanded(whole: dict[str, Any]) -> dict[str, Any]:
    """``compat`` turned into plain keys; the resolved recipe then says ``compat: null``.

    Deviations from the official codes that stay: nothing is chosen on the test set, teachers see no gradient, and the
    random streams are ours.
    """
    compat = whole.pop("compat")
    if compat not in get_args(Compat):
        raise BadInput(
            f"compat is {cut(str(compat))}; it can be {listed(get_args(Compat))}."
            f"{suggestion(str(compat), get_args(Compat))}"
        )
    official = _OFFICIAL[compat]
    for section in ("data", "teaching", "training"):
        said = whole.setdefault(section, {})
        if isinstance(said, dict):
            whole[section] = {**official[section], **said}
    own = whole["training"] if isinstance(whole["training"], dict) else {}

    def by_family(model: Any) -> None:
        if isinstance(model, dict) and isinstance(model.get("name"), str) and not model.get("weights"):
            family = official["plain" if model["name"].startswith("plain_cnn") else "other"]
            said = model.get("training") or {}
            if isinstance(said, dict):
                model["training"] = {
                    **{key: value for key, value in family.items() if key not in own},
                    **said,
                }

    models = whole.get("models")
    if isinstance(models, dict):
        assistants = models.get("assistants")
        between = assistants if isinstance(assistants, list) else []  # what else it may be is refused later
        for model in (models.get("teacher"), models.get("student"), *between):
            by_family(model)
    ladder = whole.get("ladder")
    if isinstance(ladder, dict):
        stages = ladder.get("stages")
        for entry in stages if isinstance(stages, list) else []:
            by_family(entry.get("model") if isinstance(entry, dict) else None)
        if compat == "dgkd" and ladder.get("shape") == "dense" and "stochastic" not in ladder:
            ladder["stochastic"] = {"mode": "exact_k", "drop": 1}
    return whole
