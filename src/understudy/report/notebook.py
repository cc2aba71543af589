"""What a notebook shows of a ladder or a result: a fragment of HTML, without script or outside requests."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, StrictUndefined

from understudy.report import numbers
from understudy.report.drawing import Drawing, drawing
from understudy.report.kinds import edges
from understudy.report.numbers import plain
from understudy.report.page import headline, missing
from understudy.report.tables import problems

if TYPE_CHECKING:
    from understudy.ladder.graph import Ladder

FILLS = {
    "teacher": "#f2c14e",
    "assistant": "#7fb7e6",
    "preparation": "#d6e8dc",
    "search": "#ecc8dd",
    "structure": "#d48ab5",
    "student": "#8fd19e",
    "control": "#b8b8c4",
}
DASHES = {"starts": "5 4", "chooses": "1.5 3", "shapes": "9 3", "holds": "6 2"}

# Colours are drawn thinly over whatever the notebook's background is, and lines and text take the notebook's own.
_TEMPLATE = """\
<div class="understudy" style="overflow-x: auto">
{% if headline %}
<p>{{ headline }}{% if missing %} {{ missing }}{% endif %}</p>
{% for problem in problems %}<p>{{ problem }}</p>{% endfor %}
<table style="color: inherit; border-spacing: 1.2em .2em; border-collapse: separate; margin-left: -1.2em">
<thead><tr>{% for word in ("stage", "model") %}<th style="text-align: left">{{ word }}</th>{% endfor %}
{% for word in ("parameters", "MMAC", "n", "test accuracy, %") %}<th style="text-align: right">{{ word }}</th>{% endfor %}
{% if against %}<th style="text-align: right">to {{ against }}, points</th>{% endif %}</tr></thead>
<tbody>{% for row in summary %}<tr>
<td style="text-align: left">{% if row.name == delivered %}<b>{{ row.name | plain }}</b>{% else %}{{ row.name | plain }}{% endif %}</td>
<td style="text-align: left">{{ row.get("model", "") | plain }}</td>
{% for figure in (row.get("parameters") | count, row.get("multiply_adds") | mmac, row.n, row.mean | accuracy(row.get("std"))) %}
<td style="text-align: right">{{ figure }}</td>{% endfor %}
{% if against %}<td style="text-align: right">{{ row | difference }}</td>{% endif %}
</tr>{% endfor %}</tbody></table>
{% endif %}
<svg width="{{ drawing.width | round | int }}" viewBox="0 0 {{ drawing.width | round | int }} {{ drawing.height | round | int }}" style="max-width: 100%; height: auto" role="img" aria-label="Which stage learns from which" font-family="sans-serif" fill="currentColor">
<defs><marker id="{{ head }}" viewBox="0 0 8 8" refX="1" refY="4" markerWidth="7" markerHeight="7" markerUnits="userSpaceOnUse" orient="auto"><path d="M0 0 L8 4 L0 8 z" fill="currentColor" fill-opacity="0.55"/></marker></defs>
{% for arrow in drawing.arrows %}
<path d="{{ arrow.path }}" marker-end="url(#{{ head }})" fill="none" stroke="currentColor" stroke-opacity="0.55" stroke-width="1.3"{% if arrow.kind in dashes %} stroke-dasharray="{{ dashes[arrow.kind] }}"{% endif %}><title>{{ arrow.about }}</title></path>
{% endfor %}
{% for stage in drawing.boxes %}
<g><title>{{ stage.about }}</title>
{% if stage.stacked > 1 %}
<path d="M{{ stage.x + 10 }} {{ (stage.y - 5) | round(1) }}h{{ drawing.box_width - 11 }}a6 6 0 0 1 6 6v{{ drawing.box_height - 12 }}" fill="none" stroke="currentColor"/>
{% endif %}
<rect x="{{ stage.x | round(1) }}" y="{{ stage.y | round(1) }}" width="{{ drawing.box_width }}" height="{{ drawing.box_height }}" rx="6" fill="{{ fills[stage.kind] }}" fill-opacity="0.3" stroke="currentColor" stroke-width="{{ 2.5 if stage.delivered else 1 }}"/>
{% for line in stage.title %}
<text x="{{ (stage.x + 11) | round(1) }}" y="{{ (stage.y + 20 + 17 * loop.index0) | round(1) }}" font-size="13" font-weight="600">{{ line }}</text>
{% endfor %}
{% for line in stage.small %}
<text x="{{ (stage.x + 11) | round(1) }}" y="{{ (stage.y + 20 + 17 * (stage.title | length + loop.index0)) | round(1) }}" font-size="12" fill-opacity="0.75">{{ line }}</text>
{% endfor %}
</g>
{% endfor %}
</svg>
</div>
"""


def picture_of_ladder(ladder: Ladder) -> str:
    """The ladder's graph; figures are not known before it has been run."""
    shown: dict[str, Any] = {
        "ladder": {
            "delivered": list(ladder.delivered),
            "controls": ladder.controls,
            "graph": [
                {
                    "name": stage.name,
                    "model": stage.network.label,
                    "role": stage.role,
                    "teachers": list(stage.teachers),
                }
                for stage in ladder.stages
            ],
            "edges": edges(ladder),
        },
        "stages": [],
        "summary": [],
        # one student is marked as what will be delivered; of several paths none is chosen yet
        "delivered": {"name": ladder.delivered[0]} if len(ladder.delivered) == 1 else None,
    }
    return _rendered(drawing=drawing(shown), headline="")


def picture_of_result(result: Mapping[str, Any]) -> str:
    """Headline, table and graph of a run, from the content of its ``result.json``."""
    compared = any(entry.get("difference") for entry in result["summary"])
    return _rendered(
        drawing=drawing(result),
        headline=headline(result),
        missing=missing(result),
        problems=problems(result),
        summary=result["summary"],
        delivered=(result.get("delivered") or {}).get("name"),
        against=(result.get("compare") or {}).get("against") if compared else None,
    )


def _difference(entry: Mapping[str, Any]) -> str:
    found = entry.get("difference")
    if not found:
        return ""
    text = numbers.points(found["mean"])
    if found.get("interval"):
        low, high = found["interval"]
        text += f" ({numbers.points(low)} to {numbers.points(high)})"
    return text


def _rendered(*, drawing: Drawing, **said: Any) -> str:
    # A notebook shows many pictures on one page, and the heads of the arrows are found by name on it.
    head = "understudy-" + hashlib.sha256(repr(drawing).encode("utf-8", "replace")).hexdigest()[:12]
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(
        accuracy=numbers.accuracy,
        count=numbers.count,
        mmac=numbers.mmac,
        plain=plain,
        difference=_difference,
    )
    page = environment.from_string(_TEMPLATE).render(
        drawing=drawing, head=head, fills=FILLS, dashes=DASHES, **said
    )
    return page.encode("utf-8", "replace").decode("utf-8")  # half a surrogate pair in a file's name, say
