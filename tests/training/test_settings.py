from __future__ import annotations

import json
import math
from dataclasses import fields, replace
from typing import Any

import pytest

from understudy.errors import BadInput
from understudy.training import Training

NAMES = [field.name for field in fields(Training)]

# For every setting that decides a result: where it matters, and another value there.
MATTERS: dict[str, tuple[dict[str, Any], Any]] = {
    "epochs": ({}, 31),
    "batch_size": ({}, 64),
    "sampling": ({}, "balanced"),
    "optimizer": ({}, "adamw"),
    "lr": ({}, 0.1),
    "momentum": ({}, 0.8),
    "nesterov": ({}, False),
    "weight_decay": ({}, 1e-4),
    "decay": ({}, "weights"),
    "schedule": ({}, "cosine"),
    "warmup": ({"schedule": "cosine"}, 2.0),
    "milestones": ({"schedule": "step"}, (0.5, 0.8)),
    "gamma": ({"schedule": "step"}, 0.2),
    "clip": ({}, 1.0),
    "ema": ({}, 0.99),
    "accumulate": ({}, 2),
    "precision": ({"precision": "fp32"}, "bf16"),
    "device": ({"device": "cpu"}, "cuda"),
    "threads": ({"device": "cpu"}, 2),
}
# And those that do not: two are about when and how, one is in the definition of the task.
MUST_NOT: dict[str, Any] = {"checkpoint_minutes": 1.0, "workers": 0, "label_smoothing": 0.1}
# Settings that something else switches off.
SWITCHED_OFF: list[tuple[dict[str, Any], str, Any]] = [
    ({"optimizer": "adamw"}, "nesterov", False),
    ({"schedule": "one_cycle"}, "gamma", 0.2),
    ({"schedule": "one_cycle"}, "milestones", (0.1,)),
    ({"schedule": "cosine"}, "gamma", 0.2),
    ({"schedule": "cosine"}, "milestones", (0.1,)),
    ({"schedule": "constant"}, "gamma", 0.2),
    ({"schedule": "constant"}, "milestones", (0.1,)),
    ({"weight_decay": 0.0}, "decay", "weights"),
    ({"device": "cuda"}, "threads", 4),
]


def test_every_setting_is_either_part_of_the_key_or_known_not_to_be() -> None:
    assert sorted([*MATTERS, *MUST_NOT]) == sorted(NAMES)


@pytest.mark.parametrize("name", MATTERS)
def test_a_setting_that_decides_the_result_changes_the_definition(name: str) -> None:
    where, value = MATTERS[name]
    usual = Training(**where)
    assert getattr(usual, name) != value
    assert replace(usual, **{name: value}).definition() != usual.definition()


@pytest.mark.parametrize("name", MUST_NOT)
def test_a_setting_that_decides_nothing_leaves_the_definition_alone(name: str) -> None:
    assert getattr(Training(), name) != MUST_NOT[name]
    assert Training(**{name: MUST_NOT[name]}).definition() == Training().definition()


@pytest.mark.parametrize(("where", "name", "value"), SWITCHED_OFF)
def test_a_setting_that_is_not_looked_at_leaves_the_definition_alone(
    where: dict[str, Any], name: str, value: Any
) -> None:
    usual = Training(**where)
    assert getattr(usual, name) != value
    assert replace(usual, **{name: value}).definition() == usual.definition()


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("schedule", ["constant", "step", "cosine", "one_cycle"])
def test_a_definition_is_plain_json(optimizer: Any, schedule: Any) -> None:
    said = Training(optimizer=optimizer, schedule=schedule, clip=1.0, ema=0.9).definition()
    again = json.loads(json.dumps(said))
    assert again == {name: list(value) if isinstance(value, tuple) else value for name, value in said.items()}


WHOLE = {
    "epochs": ("from 1 to 100000", (0, -1, 100_001, 1.5, "3", True, None)),
    "batch_size": ("from 2 to 1000000", (1, 0, 1_000_001, 64.0, "64", True, None)),
    "accumulate": ("from 1 to 100000", (0, 100_001, 2.0, True, None)),
    "threads": ("from 1 to 1024", (0, 1025, 1.0, True, None)),
    "workers": ("from 0 to 256", (-1, 257, 0.5, False, None)),
}


@pytest.mark.parametrize(
    ("name", "possible", "value"),
    [(name, possible, value) for name, (possible, wrong) in WHOLE.items() for value in wrong],
)
def test_a_count_outside_of_its_range_is_refused_in_one_line(name: str, possible: str, value: Any) -> None:
    with pytest.raises(BadInput) as error:
        Training(**{name: value})
    assert str(error.value) == f"training.{name} is a whole number {possible}; got {value!r}."


REAL = {
    "lr": ("(0, 10000]", (0, -0.1, 10_001, math.nan, math.inf, "0.1", True, None)),
    "momentum": ("[0, 1)", (-0.1, 1, math.nan, None)),
    "weight_decay": ("[0, 1000]", (-1e-4, 1001, math.inf, None)),
    "warmup": ("[0, 30]", (-1, 30.5, math.nan, None)),
    "gamma": ("(0, 1]", (0, 1.1, math.nan, None)),
    "clip": ("(0, 1e+09]", (0, -1.0, math.inf, "1")),
    "label_smoothing": ("[0, 1)", (-0.1, 1, math.nan, None)),
    "ema": ("(0, 1)", (0, 1, math.nan, True)),
    "checkpoint_minutes": ("(0, 1e+06]", (0, math.inf, None)),
}


@pytest.mark.parametrize(
    ("name", "possible", "value"),
    [(name, possible, value) for name, (possible, wrong) in REAL.items() for value in wrong],
)
def test_a_number_outside_of_its_range_is_refused_in_one_line(name: str, possible: str, value: Any) -> None:
    with pytest.raises(BadInput) as error:
        Training(**{name: value})
    assert str(error.value) == f"training.{name} is a number in {possible}; got {value!r}."


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("lr", 10_000),
        ("momentum", 0.999),
        ("weight_decay", 0),
        ("gamma", 1),
        ("clip", None),
        ("ema", None),
        ("label_smoothing", 0),
        ("batch_size", 2),
        ("workers", 0),
        ("epochs", 1),
    ],
)
def test_the_ends_of_the_ranges_are_possible(name: str, value: Any) -> None:
    assert getattr(Training(**{name: value}), name) == value


@pytest.mark.parametrize(
    ("name", "possible"),
    [
        ("optimizer", "sgd, adamw"),
        ("schedule", "constant, step, cosine, one_cycle"),
        ("precision", "auto, fp32, bf16"),
        ("device", "auto, cpu, cuda"),
        ("decay", "all, weights"),
        ("sampling", "instance, balanced, square_root"),
    ],
)
def test_an_unknown_word_is_refused_with_those_that_are_known(name: str, possible: str) -> None:
    with pytest.raises(BadInput) as error:
        Training(**{name: "unknown"})
    assert str(error.value) == f"training.{name} 'unknown' is none of {possible}."


@pytest.mark.parametrize(
    "milestones", [(0.0, 0.5), (0.5, 1.0), (0.75, 0.5), (0.5, 0.5), (80.0, 120.0), (math.nan,)]
)
def test_milestones_are_rising_fractions(milestones: tuple[float, ...]) -> None:
    with pytest.raises(BadInput) as error:
        Training(schedule="step", milestones=milestones)
    assert str(error.value) == (
        "training.milestones are rising fractions of the training in (0, 1), such as [0.5, 0.75]; "
        f"got {list(milestones)}."
    )


def test_settings_at_their_defaults_are_not_in_keys_that_are_older() -> None:
    assert not {"clip", "ema", "accumulate", "decay", "sampling"} & set(Training().definition())


def test_settings_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(BadInput) as error:
        Training(schedule="one_cycle", warmup=1.0)
    assert str(error.value) == (
        "training.warmup goes with another schedule: one_cycle has its own rise. Set warmup: 0."
    )
    with pytest.raises(BadInput) as error:
        Training(momentum=0.0)
    assert str(error.value) == "training.nesterov needs a momentum; set nesterov: false or momentum: 0.9."
    Training(momentum=0.0, nesterov=False)
    Training(momentum=0.0, optimizer="adamw")
