"""Reading a recipe: the only place that knows its format. Everything below takes plain arguments.

A recipe is YAML with a fixed set of keys. It is data: nothing in it is imported or called.
"""

from __future__ import annotations

from understudy.recipe.checking import check
from understudy.recipe.reading import changed, long_form, read_file, read_text
from understudy.recipe.schema import Recipe

__all__ = ["Recipe", "changed", "check", "long_form", "read_file", "read_text"]
