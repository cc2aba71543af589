"""What a stage is drawn as follows from its role, from the controls, and from who chooses among whom."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from understudy.report.frame import SHAPE_OF
from understudy.report.kinds import KINDS, kinds

Results = Callable[..., dict[str, Any]]


def test_roles_and_controls(made_up: Results) -> None:
    assert kinds(made_up()) == {
        "teacher": "teacher",
        "dense/plain_cnn-8": "assistant",
        "dense/plain_cnn-4": "assistant",
        "dense": "student",
        "scratch": "control",
        "direct": "control",
    }


def test_searches_and_structures(shaped: Results) -> None:
    found = kinds(shaped())
    assert {name for name, kind in found.items() if kind == "search"} == {
        "structure/search 1",
        "structure/search 3",
    }
    assert {name for name, kind in found.items() if kind == "structure"} == {
        "structure 0.548x MAC",
        "structure",
    }
    assert found["dense/mobilenet_v2 0.548x MAC"] == "assistant"
    assert found["dense"] == "student"


def test_before_any_stage_is_done_the_graph_says_it(shaped: Results) -> None:
    result = shaped()
    before = kinds(result)
    result |= {"stages": [], "summary": []}
    assert kinds(result) == before


def test_every_kind_has_a_shape() -> None:
    assert tuple(SHAPE_OF) == KINDS
