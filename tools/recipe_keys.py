#!/usr/bin/env python3
"""Writes docs/reference/recipe-keys.md from the schema of recipes, so that the page cannot say anything else.

Run it after a change of a key: ``.venv/bin/python tools/recipe_keys.py``. With ``--check`` nothing is written; the exit
status is 1 where the page is not what would be written.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

from understudy.recipe.schema_json import recipe_schema

PAGE = Path(__file__).resolve().parents[1] / "docs" / "reference" / "recipe-keys.md"
HEAD = """\
# Every key of a recipe

<!-- written by tools/recipe_keys.py from the schema; change that instead -->

This page is made from what a recipe is checked against. [Recipe](recipe.md) explains the keys in their order of use.
`understudy schema` prints the same as JSON Schema, by which an editor completes and checks recipes while they are written.
With the YAML extension of VS Code, after `understudy schema` was written into a file:

```text
# yaml-language-server: $schema=recipe.schema.json
```

A key with a default may be left out. A network may be its name alone where it needs nothing else, `ladder` the name of its
shape. Under `training` of a network and `teaching` of a stage stands only what differs from the recipe's.
"""
# Sections in the order of a recipe; what is said of them where the schema has no sentence.
SECTIONS = {
    "Data": "data",
    "LongTail": "data.long_tail",
    "Views": "data.views",
    "LadderSection": "ladder",
    "Stochastic": "ladder.stochastic",
    "StageEntry": "a stage",
    "Models": "models",
    "Model": "a network",
    "PeersOf": "peers of a network",
    "StructureSection": "structure",
    "BudgetSection": "structure.budget",
    "QuantiseSection": "quantise",
    "Teaching": "teaching",
    "Balance": "teaching.balance",
    "CurriculumSection": "teaching.curriculum",
    "SparseCodesSection": "teaching.sparse_codes",
    "PeersTeaching": "teaching.peers",
    "Training": "training",
    "Signals": "signals",
    "DirectLong": "direct_long",
}


def page() -> str:
    """The whole page."""
    schema = recipe_schema()
    parts = schema["$defs"]
    ordered = [*SECTIONS, *(name for name in parts if name not in SECTIONS)]
    text = [HEAD, "## The recipe\n", table(schema, parts)]
    for name in ordered:
        if name in parts and "properties" in parts[name]:
            text += [f"\n## {SECTIONS.get(name, name)}\n", sentence(parts[name]), table(parts[name], parts)]
    return "\n".join(text)


def sentence(part: dict[str, Any]) -> str:
    said = part.get("description", "")
    return f"{said}\n" if said else ""


def table(part: dict[str, Any], parts: dict[str, Any]) -> str:
    """Keys, what they may be, and what they are unless said."""
    lines = ["| key | values | default | meaning |", "|---|---|---|---|"]
    required = part.get("required", [])
    for name, key in part["properties"].items():
        default = "must be given" if name in required else written(key)
        meaning = escaped(about(key, parts))
        lines.append(f"| `{name}` | {escaped(values(key))} | {escaped(default)} | {meaning} |")
    return "\n".join(lines) + "\n"


def about(key: dict[str, Any], parts: dict[str, Any]) -> str:
    """What is said of a key, else of the only section that it may be."""
    if said := key.get("description"):
        return str(said)
    sections = [choice["$ref"] for choice in (key, *key.get("anyOf", [])) if "$ref" in choice]
    if len(sections) != 1:
        return ""
    said = parts[sections[0].rpartition("/")[2]].get("description", "")
    return (said[:1].lower() + said[1:]).rstrip(".")


def written(key: dict[str, Any]) -> str:
    if "default" not in key or key["default"] is None or key["default"] == {}:
        return ""
    return json.dumps(key["default"], ensure_ascii=False).replace('"', "")


def values(key: dict[str, Any]) -> str:
    """What a key may be, in words.

    >>> values({"type": "integer", "minimum": 1})
    'whole number, at least 1'
    """
    if "$ref" in key:
        name = key["$ref"].rpartition("/")[2]
        heading = SECTIONS.get(name, name)
        return f"[{heading}](#{re.sub('[^a-z_ ]', '', heading.lower()).replace(' ', '-')})"
    if "anyOf" in key:
        said = [values(choice) for choice in key["anyOf"] if choice.get("type") != "null"]
        return ", or ".join(dict.fromkeys(said))
    if "const" in key:
        return str(key["const"])
    if "enum" in key:
        return ", ".join(str(word) for word in key["enum"])
    if key.get("type") == "array":
        if "prefixItems" in key:
            return f"list of {len(key['prefixItems'])} ({values(key['prefixItems'][0])})"
        inner = values(key["items"]) if key.get("items") else "anything"
        return f"list of ({inner})"
    kinds = {"integer": "whole number", "number": "number", "string": "text", "boolean": "true or false"}
    said = kinds.get(key.get("type", ""), "keys and values")
    limits = [
        f"{words} {key[name]:,}" if isinstance(key[name], int) else f"{words} {key[name]:g}"
        for name, words in (
            ("minimum", "at least"),
            ("exclusiveMinimum", "above"),
            ("maximum", "at most"),
            ("exclusiveMaximum", "below"),
        )
        if name in key
    ]
    return ", ".join([said, *limits])


def escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")


def main() -> int:
    text = page()
    if "--check" in sys.argv[1:]:
        same = PAGE.is_file() and PAGE.read_text("utf-8") == text
        if not same:
            print(f"{PAGE.name} is not up to date: run tools/recipe_keys.py", file=sys.stderr)
        return 0 if same else 1
    PAGE.write_text(text, "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
