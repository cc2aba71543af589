"""The keys of a recipe as JSON Schema, for editors: short forms are allowed as they are in a file."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from typing import Any

from understudy.recipe.schema import Recipe
from understudy.training.settings import Training

# About keys whose sentence stands neither in the schema nor in a docstring.
_SAID = {
    ("Recipe", "version"): "of the format of recipes",
    ("Recipe", "repeat"): "what is trained anew for every seed",
    ("Model", "std"): "likewise",
    ("StageEntry", "name"): "unique in its ladder",
    ("StageEntry", "teachers"): "stages it learns from; the order counts",
    ("StageEntry", "stochastic"): "teachers left out of a batch at random",
    (
        "LadderSection",
        "stochastic",
    ): "teachers left out of a batch at random, while the student of a dense ladder learns",
    ("DirectLong", "match"): "what the epochs of the ladder are counted in",
}
DIALECT = "https://json-schema.org/draft/2020-12/schema"


def recipe_schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of what a recipe file may hold.

    It is as strict as a recipe about names of keys, types and limits; what goes with what (a chain needs assistants,
    say) only ``understudy plan`` says. A network may be its name alone, ``ladder`` the name of a shape alone.
    """
    from understudy.teaching.soft_targets import SoftTargets, Stochastic

    schema: dict[str, Any] = Recipe.model_json_schema()
    parts = schema["$defs"]
    for part in parts.values():
        part.pop("title", None)
        part.setdefault("additionalProperties", False)
        for key in part.get("properties", {}).values():
            key.pop("title", None)
    parts["Training"]["description"] = "How stages are trained."
    for kind, name in ((Training, "Training"), (SoftTargets, "Teaching"), (Stochastic, "Stochastic")):
        sentences = attributes_of(kind)
        for key, value in parts[name]["properties"].items():
            if "description" not in value and key in sentences:
                value["description"] = sentences[key]
    for (name, key), sentence in _SAID.items():
        part = schema if name == "Recipe" else parts[name]
        part["properties"][key].setdefault("description", sentence)
    # What differs for one network or stage has the keys of the whole, each on its own terms.
    _point(parts["Model"], "training", "Training")
    _point(parts["StageEntry"], "teaching", "Teaching")
    parts["Models"]["properties"]["student"] = _or_name("Model", "taught by the others")
    parts["Models"]["properties"]["teacher"] = _or_name("Model", "the largest")
    parts["Models"]["properties"]["assistants"] = {
        "type": "array",
        "items": _or_name("Model", "between teacher and student"),
        "default": [],
        "description": "largest first",
    }
    parts["StageEntry"]["properties"]["model"] = _or_name("Model", "the network of the stage")
    _or(parts["Model"], "peers", {"type": "integer", "minimum": 2, "maximum": 32}, {"type": "boolean"})
    for part in ("balance", "curriculum", "sparse_codes"):
        _or(parts["Teaching"], part, {"type": "boolean"})
    shapes = _words(parts["LadderSection"]["properties"]["shape"])
    for key in schema["properties"].values():
        key.pop("title", None)
    schema["properties"]["ladder"] = {
        "anyOf": [{"$ref": "#/$defs/LadderSection"}, {"enum": shapes}],
        "default": {"shape": "direct"},
    }
    schema["required"] = ["data"]
    _without_patterns(schema)
    schema["description"] = (
        "A recipe of understudy: data, a ladder, its models, and how they are trained and taught."
    )
    return {
        "$schema": DIALECT,
        "title": "understudy recipe",
        **{k: v for k, v in schema.items() if k != "title"},
    }


def _without_patterns(value: Any) -> None:
    """Leaves out regular expressions: those with classes of Unicode are not understood by every editor."""
    if isinstance(value, dict):
        if isinstance(value.get("pattern"), str):
            del value["pattern"]
        for entry in value.values():
            _without_patterns(entry)
    elif isinstance(value, list):
        for entry in value:
            _without_patterns(entry)


def _point(part: dict[str, Any], key: str, target: str) -> None:
    said = part["properties"][key].get("description", "")
    part["properties"][key] = {"$ref": f"#/$defs/{target}", "description": said, "default": {}}


def _or_name(target: str, description: str) -> dict[str, Any]:
    return {
        "anyOf": [{"$ref": f"#/$defs/{target}"}, {"type": "string", "minLength": 1}],
        "description": description,
    }


def _or(part: dict[str, Any], key: str, *short: dict[str, Any]) -> None:
    """Lets a key have short forms beside what it is in full."""
    part["properties"][key]["anyOf"] += short


def _words(key: dict[str, Any]) -> list[str]:
    return next(list(choice["enum"]) for choice in key["anyOf"] if "enum" in choice)


def attributes_of(kind: type) -> dict[str, str]:
    """The sentence about each attribute in a docstring's list of them, without its final full stop.

    >>> attributes_of(Training)["epochs"]
    'passes over the training set'
    """
    found: dict[str, str] = {}
    for name, sentence in _entries(inspect.getdoc(kind) or ""):
        found[name] = re.sub(r"``([^`]*)``", r"\1", sentence).rstrip(".")
    return found


def _entries(text: str) -> Iterator[tuple[str, str]]:
    block = text.partition("Attributes:\n")[2]
    name, words = "", ""
    for line in [*block.splitlines(), "end"]:
        entry = re.match(r"    (\w+): (.*)", line)
        if entry is None and line.startswith("        "):
            words += " " + line.strip()
            continue
        if name:
            yield name, words
        if entry is None:
            return
        name, words = entry[1], entry[2].strip()
