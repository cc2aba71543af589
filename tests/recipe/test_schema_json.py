"""The keys of a recipe as JSON Schema, and the page that is made from it."""

from __future__ import annotations

import copy
import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from understudy.recipe import check, read_file, read_text
from understudy.recipe.schema import Recipe
from understudy.recipe.schema_json import attributes_of, recipe_schema

ROOT = Path(__file__).resolve().parents[2]
SCHEMA = recipe_schema()
BASE: dict[str, Any] = {
    "data": {"name": "digits", "views": {"crop": 1}},
    "ladder": {"shape": "dense", "stochastic": {"keep": 0.5}},
    "models": {
        "teacher": "plain_cnn-4",
        "assistants": ["plain_cnn-2"],
        "student": {"name": "plain_cnn-2", "width": 0.5},
    },
    "teaching": {"temperature": 2},
    "training": {"epochs": 3, "lr": 0.1, "clip": 1.0},
    "seeds": [0, 1],
}
LONG = {
    "data": {"name": "digits"},
    "ladder": {
        "stages": [
            {"name": "teacher", "model": "plain_cnn-4"},
            {
                "name": "student",
                "model": {"name": "plain_cnn-2", "training": {"epochs": 2}},
                "teachers": ["teacher"],
            },
        ]
    },
}


def fits(value: Any, schema: dict[str, Any]) -> bool:
    """Validation by the part of draft 2020-12 that the schema uses; an unknown keyword is an error of the test."""
    known = {
        "$ref",
        "anyOf",
        "type",
        "enum",
        "const",
        "properties",
        "required",
        "additionalProperties",
        "propertyNames",
        "items",
        "prefixItems",
        "minItems",
        "maxItems",
        "minLength",
        "maxLength",
        "minimum",
        "maximum",
        "exclusiveMinimum",
        "exclusiveMaximum",
        "description",
        "default",
        "title",
        "$schema",
        "$defs",
    }
    assert set(schema) <= known, set(schema) - known
    if "$ref" in schema and not fits(value, SCHEMA["$defs"][schema["$ref"].removeprefix("#/$defs/")]):
        return False
    if "anyOf" in schema and not any(fits(value, choice) for choice in schema["anyOf"]):
        return False
    if "enum" in schema and value not in schema["enum"]:
        return False
    if "const" in schema and value != schema["const"]:
        return False
    number = isinstance(value, int | float) and not isinstance(value, bool)
    kinds = {
        "object": isinstance(value, dict),
        "array": isinstance(value, list),
        "string": isinstance(value, str),
        "integer": number and float(value).is_integer(),
        "number": number,
        "boolean": isinstance(value, bool),
        "null": value is None,
    }
    if "type" in schema and not kinds[schema["type"]]:
        return False
    if isinstance(value, dict):
        properties = schema.get("properties", {})
        rest = schema.get("additionalProperties", True)
        for name, entry in value.items():
            if name in properties:
                if not fits(entry, properties[name]):
                    return False
            elif rest is False or (isinstance(rest, dict) and not fits(entry, rest)):
                return False
        return all(name in value for name in schema.get("required", []))
    if isinstance(value, list):
        low, high = schema.get("minItems", 0), schema.get("maxItems", len(value))
        each = zip(value, schema.get("prefixItems", [schema.get("items", {})] * len(value)), strict=False)
        return low <= len(value) <= high and all(fits(entry, inner) for entry, inner in each)
    if isinstance(value, str):
        return schema.get("minLength", 0) <= len(value) <= schema.get("maxLength", len(value))
    if number:
        return (
            schema.get("minimum", value) <= value <= schema.get("maximum", value)
            and value > schema.get("exclusiveMinimum", value - 1)
            and value < schema.get("exclusiveMaximum", value + 1)
        )
    return True


RECIPES = sorted([*ROOT.glob("examples/*.yaml"), *ROOT.glob("src/understudy/*.yaml")])


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.name)
def test_every_recipe_of_ours_fits_as_it_is_written_and_as_it_is_resolved(recipe: Path) -> None:
    raw = read_file(recipe)
    assert fits(raw, SCHEMA)
    assert fits(check(raw).as_dict(), SCHEMA)


PARTS = {"balance": True, "curriculum": True, "sparse_codes": True}
PEERS = [{"name": "resnet-8", "peers": said} for said in (3, True, False, {"split": "stage2"})]


@pytest.mark.parametrize(
    "recipe",
    [
        BASE,
        LONG,
        {**BASE, "ladder": "chain"},
        {**BASE, "teaching": PARTS},
        {**BASE, "teaching": dict.fromkeys(PARTS, False)},
        {**BASE, "models": {**BASE["models"], "assistants": PEERS}},
    ],
    ids=["short", "long", "a word", "parts", "no parts", "peers"],
)
def test_short_forms_fit(recipe: dict[str, Any]) -> None:
    check(recipe)
    assert fits(recipe, SCHEMA)
    assert fits(json.loads(json.dumps(check(recipe).as_dict())), SCHEMA)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("training.epoch", 3),
        ("training.epochs", "many"),
        ("training.schedule", "linear"),
        ("teaching.temperature", 0),
        ("data.validation", 1.0),
        ("data.views.flip", "yes"),
        ("ladder", "ladder"),
        ("ladder.stochastic.keep", 1.5),
        ("models.student", 3),
        ("models.student.widht", 2),
        ("models.student.peers", 1),
        ("models.student.peers", {"count": 1}),
        ("teaching.balance", 1),
        ("teaching.curriculum", {"score": "gapp"}),
        ("teaching.sparse_codes", {"sparsity": 0}),
        ("data.long_tail", {"imbalance": 0.5}),
        ("seeds", []),
        ("controls", ["direkt"]),
        ("nothing", 1),
    ],
)
def test_what_a_recipe_refuses_does_not_fit(path: str, value: Any) -> None:
    changed = copy.deepcopy(BASE)
    here: Any = changed
    *steps, last = path.split(".")
    for step in steps:
        here = here[step]
    here[last] = value
    with pytest.raises(ValueError, match=r"."):
        check(changed)
    assert not fits(changed, SCHEMA)


def test_only_the_data_must_be_given() -> None:
    assert SCHEMA["required"] == ["data"]
    assert set(SCHEMA["properties"]) == set(Recipe.model_fields)


def test_every_key_has_a_sentence() -> None:
    silent = [
        f"{name}.{key}"
        for name, part in {**SCHEMA["$defs"], "Recipe": SCHEMA}.items()
        for key, value in part.get("properties", {}).items()
        if not value.get("description") and "$ref" not in json.dumps(value)
    ]
    assert silent == []


def test_sentences_are_those_of_the_docstring() -> None:
    from understudy.training import Training

    sentences = attributes_of(Training)
    assert set(sentences) == set(Training.__dataclass_fields__)
    assert sentences["decay"].endswith("so that biases and normalisation scales are left alone")


def test_the_command_prints_it() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "understudy", "schema"], capture_output=True, text=True, check=True, timeout=60
    )
    assert json.loads(done.stdout) == json.loads(json.dumps(SCHEMA))
    assert read_text(done.stdout.replace("\t", " "), source="the schema")["title"] == "understudy recipe"


def test_the_page_of_all_keys_is_up_to_date() -> None:
    spec = importlib.util.spec_from_file_location("recipe_keys", ROOT / "tools" / "recipe_keys.py")
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    assert script.PAGE.read_text("utf-8") == script.page(), "run tools/recipe_keys.py"
