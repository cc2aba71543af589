"""The command that prints the keys of a recipe for editors: schema."""

from __future__ import annotations

import json

from understudy.cli.options import say


def schema() -> None:
    """Prints the keys of a recipe as JSON Schema, for editors that complete and check YAML."""
    from understudy.recipe.schema_json import recipe_schema

    say(json.dumps(recipe_schema(), indent=2, ensure_ascii=False))
