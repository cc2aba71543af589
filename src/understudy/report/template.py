"""Pages from templates: everything put into one is escaped, and a name that is missing is an error."""

from __future__ import annotations

from importlib import resources
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined

from understudy.report import numbers


def filled(template: str, **values: Any) -> str:
    """A page as HTML.

    Args:
        template: a file beside this one.
        values: what it names.
    """
    environment = Environment(
        loader=FunctionLoader(_read),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        accuracy=numbers.accuracy,
        count=numbers.count,
        duration=numbers.duration,
        mmac=numbers.mmac,
        plain=numbers.plain,
        points=numbers.points,
        p_value=numbers.p_value,
        tally=numbers.tally,
        or_nothing=lambda value: numbers.NOTHING if value in (None, "", 0) else value,
    )
    page = environment.get_template(template).render(**values)
    return page.encode("utf-8", "replace").decode("utf-8")  # half a surrogate pair in a file's name, say


def _read(name: str) -> str:
    return resources.files("understudy.report").joinpath(name).read_text("utf-8")
