"""Structures that a run found: budget, what was reached, who found it, and the widths before and after."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from understudy.report import numbers
from understudy.report.bars import Bar, bars
from understudy.report.numbers import listing, plain

NOUNS = {"multiply_adds": "multiply-adds", "parameters": "parameters"}


@dataclass(frozen=True, kw_only=True)
class Tried:
    """What one search left, cut to the budget; ``accuracy`` and ``reached`` are fractions."""

    search: str
    taken: bool
    accuracy: float | None
    threshold: float | None
    reached: float | None


@dataclass(frozen=True, kw_only=True)
class Found:
    """A structure that was chosen, as the page shows it."""

    name: str
    sentences: list[str]
    chart: Markup
    layers: list[Bar]
    tried: list[Tried]


def structures(result: Mapping[str, Any]) -> list[Found]:
    """Every structure that was chosen, in the order of the stages."""
    stages = [stage for stage in result["stages"] if stage["state"] == "done" and stage.get("choice")]
    several = len({stage["name"] for stage in stages}) < len(stages)
    made = []
    for stage in stages:
        choice = stage["choice"]
        name = plain(stage["name"]) + (f", seed {stage['seed']}" if several else "")
        layers = [
            Bar(name=plain(one["layer"]), before=one["before"], after=one["after"])
            for one in choice.get("widths") or []
        ]
        made.append(
            Found(
                name=name,
                sentences=[
                    *in_words(stage),
                    *_lost(layers),
                    *_taken(choice),
                    *_shapes(result, stage["name"]),
                ],
                chart=Markup(
                    bars(layers, kind="structure", about=f"{name}: channels of each layer, before and after")
                ),
                layers=layers,
                tried=_tried(choice),
            )
        )
    return made


def in_words(stage: Mapping[str, Any]) -> list[str]:
    """Of a stage with a ``choice``: the budget, and what there is left of the network, in sentences."""
    choice = stage["choice"]
    whole, reached = choice.get("whole") or {}, choice.get("reached") or {}
    asked = [_limit(what, limit, whole.get(what)) for what, limit in (choice.get("budget") or {}).items()]
    said = [f"Budget: at most {listing(asked)}."] if asked else []
    left = [_amount(what, stage[what]) for what in NOUNS if stage.get(what) is not None]
    used = [f"{100 * share:.1f} % of the {NOUNS.get(what, plain(what))}" for what, share in reached.items()]
    if left:
        text = f"What is left has {listing(left)}"
        said.append(f"{text}: {listing(used)} allowed." if used else f"{text}.")
    return said


def _limit(what: str, limit: float, whole: int | None) -> str:
    """A limit with what the whole network has: ``20.6 MMAC, 0.5 of the whole network’s 41.3``."""
    if isinstance(limit, int):
        return _amount(what, limit) + (
            "" if whole is None else f", where the whole network has {_number(what, whole)}"
        )
    if whole is None:
        return f"{limit:g} of the whole network’s {NOUNS.get(what, plain(what))}"
    most = math.floor(limit * whole * (1 + 1e-12))
    return f"{_amount(what, most)}, {limit:g} of the whole network’s {_number(what, whole)}"


def _amount(what: str, number: int) -> str:
    return f"{_number(what, number)} {'MMAC' if what == 'multiply_adds' else 'parameters'}"


def _number(what: str, number: int) -> str:
    return numbers.mmac(number) if what == "multiply_adds" else numbers.count(number)


def _lost(layers: list[Bar]) -> list[str]:
    if not layers:
        return []
    before, after = sum(layer.before for layer in layers), sum(layer.after for layer in layers)
    whole = sum(layer.after >= layer.before for layer in layers)
    dropped = sum(layer.after == 0 < layer.before for layer in layers)
    text = f"Of {before:,} output channels of {_layers(len(layers))} {after:,} are kept"
    parts = [f"{_layers(whole)} {'keeps' if whole == 1 else 'keep'} all"] if whole else []
    parts += [f"{_layers(dropped)} {'is' if dropped == 1 else 'are'} dropped"] if dropped else []
    return [f"{text}; {listing(parts)}." if parts else f"{text}."]


def _layers(number: int) -> str:
    return f"{number} layer" if number == 1 else f"{number} layers"


def _taken(choice: Mapping[str, Any]) -> list[str]:
    if "search" in choice and choice["search"] is None:
        return ["Nothing was searched: every layer gives up the same share of its channels."]
    if not choice.get("search"):
        return []
    text = f"Found by {plain(choice['search'])}"
    if choice.get("threshold") is not None:
        text += f"; the threshold on its channels’ magnitudes is {choice['threshold']:.3g}"
    said = [f"{text}."]
    shown = [
        f"{numbers.percent(one['validation'])} % ({plain(one['search'])})"
        for one in choice.get("candidates") or []
        if one.get("validation") is not None
    ]
    if shown:
        said.append(f"Validation accuracy right after the cut, before any training: {', '.join(shown)}.")
    return said


def _shapes(result: Mapping[str, Any], name: str) -> list[str]:
    edges = result["ladder"]["edges"]
    shaped = [plain(edge["to"]) for edge in edges if edge["from"] == name and edge["kind"] == "shapes"]
    return [f"Networks of this structure: {listing(shaped)}."] if shaped else []


def _tried(choice: Mapping[str, Any]) -> list[Tried]:
    return [
        Tried(
            search=plain(one["search"]),
            taken=one["search"] == choice.get("search"),
            accuracy=one.get("validation"),
            threshold=one.get("threshold"),
            reached=max((one.get("reached") or {}).values(), default=None),
        )
        for one in choice.get("candidates") or []
    ]


def structure_of(result: Mapping[str, Any], stage: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The stage that chose which channels ``stage`` has; None: it has all of them, or its chooser is not known."""
    sources = [
        edge["from"]
        for edge in result["ladder"]["edges"]
        if edge["to"] == stage["name"] and edge["kind"] == "shapes"
    ]
    found = [other for other in result["stages"] if other["name"] in sources and other.get("choice")]
    same_seed = [other for other in found if other["seed"] == stage["seed"]]
    return next(iter([*same_seed, *found]), None)
