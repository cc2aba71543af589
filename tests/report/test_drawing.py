"""The ladder as a picture: where its boxes stand, where its arrows go, and what shares a box."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest

from tests.report.samples import SHAPES, sample
from understudy.report.drawing import Drawing, drawing

Results = Callable[..., dict[str, Any]]


@pytest.mark.parametrize("name", SHAPES)
def test_boxes_stand_apart_inside_the_drawing(name: str, request: pytest.FixtureRequest) -> None:
    drawn = drawing(sample(name, request))
    for box in drawn.boxes:
        assert 0 <= box.x <= drawn.width - drawn.box_width
        assert 0 <= box.y <= drawn.height - drawn.box_height
    places = sorted((box.x, box.y) for box in drawn.boxes)
    for (x, y), (next_x, next_y) in pairwise(places):
        assert next_x > x + drawn.box_width or (next_x == x and next_y > y + drawn.box_height)


@pytest.mark.parametrize("name", SHAPES)
def test_arrows_lead_to_the_right_and_pass_behind_no_box(name: str, request: pytest.FixtureRequest) -> None:
    drawn = drawing(sample(name, request))
    for arrow in drawn.arrows:
        x = y = 0.0
        for command, figures in re.findall(r"([MCH])([^MCH]*)", arrow.path):
            points = [float(number) for number in re.findall(r"-?[\d.]+", figures)]
            if command == "H":  # the part that passes a column
                for box in drawn.boxes:
                    if x - 1 <= box.x <= points[0]:
                        assert not box.y < y < box.y + drawn.box_height
            assert points[-2 if command != "H" else 0] >= x
            x, y = (points[0], y) if command == "H" else (points[-2], points[-1])


def test_what_teaches_nobody_stands_in_the_last_column(made_up: Results) -> None:
    boxes = {box.about.split(",")[0]: box for box in drawing(made_up()).boxes}
    last = boxes["dense"].x
    assert boxes["scratch"].x == boxes["direct"].x == last
    assert boxes["teacher"].x < boxes["dense/plain_cnn-8"].x < boxes["dense/plain_cnn-4"].x < last
    assert [name for name, box in boxes.items() if box.delivered] == ["dense"]
    assert [name for name, box in boxes.items() if box.kind == "control"] == ["scratch", "direct"]


def test_long_names_are_cut_to_fit_and_their_ends_stay(made_up: Results) -> None:
    name = "a" * 30 + "-end"
    arm = (name, "student", "timm/" + "m" * 60 + ".in1k", (), 1, 1, (0.5,))
    (box,) = drawing(made_up((arm,), delivered=(name,), controls=())).boxes
    assert max(map(len, box.title)) <= 20
    assert box.title[-1].endswith("-end")
    assert box.small[0].endswith(".in1k")
    assert name in box.about


def starts_and_ends(drawn: Drawing, about: str) -> tuple[float, float]:
    """Heights at which an arrow begins and ends."""
    (path,) = [arrow.path for arrow in drawn.arrows if arrow.about == about]
    figures = re.findall(r"-?[\d.]+", path)
    return float(figures[1]), float(figures[-1])


def test_searches_that_differ_in_their_strength_alone_share_a_box(shaped: Results) -> None:
    result = shaped()
    drawn = drawing(result)
    assert len(drawn.boxes) == len(result["ladder"]["graph"]) - 1
    (stack,) = [box for box in drawn.boxes if box.stacked > 1]
    assert (stack.kind, stack.stacked) == ("search", 2)
    assert stack.title == ["structure/search", "1,\N{NO-BREAK SPACE}3"]
    assert stack.small == ["mobilenet_v2", "62.12 to 64.31 % · 41.3 MMAC"]
    assert stack.about == (
        "structure/search 1, mobilenet_v2, 64.31 %, 41.3 MMAC; structure/search 3, mobilenet_v2, 62.12 %, 41.3 MMAC"
    )
    between = [(arrow.kind, arrow.about) for arrow in drawn.arrows if "structure/search" in arrow.about]
    assert between == [
        ("teaches", "teacher teaches structure/search 1,\N{NO-BREAK SPACE}3"),
        ("starts", "teacher gives structure/search 1,\N{NO-BREAK SPACE}3 its weights to begin with"),
        ("chooses", "structure 0.548x MAC chooses among structure/search 1,\N{NO-BREAK SPACE}3"),
        ("chooses", "structure chooses among structure/search 1,\N{NO-BREAK SPACE}3"),
    ]


def test_searches_of_other_teachers_have_boxes_of_their_own(shaped: Results) -> None:
    result = shaped()
    edges = result["ladder"]["edges"]
    edges.remove({"from": "teacher", "to": "structure/search 3", "kind": "teaches"})
    drawn = drawing(result)
    assert len(drawn.boxes) == len(result["ladder"]["graph"])
    assert len(drawn.arrows) == len(edges)


def test_a_structure_stands_between_its_searches_and_its_networks_and_shows_its_cost_alone(
    shaped: Results,
) -> None:
    boxes = {box.about.split(",")[0]: box for box in drawing(shaped()).boxes}
    order = [
        "teacher",
        "structure/search 1",
        "structure 0.548x MAC",
        "dense/mobilenet_v2 0.548x MAC",
        "dense",
        "int8",
    ]
    assert [boxes[name].x for name in order] == sorted({boxes[name].x for name in order})
    assert boxes["structure"].kind == "structure"
    assert boxes["structure"].small == ["mobilenet_v2 0.3x MAC", "12.3 MMAC"]


def test_arrows_say_what_they_mean(shaped: Results) -> None:
    said = {arrow.about: arrow.kind for arrow in drawing(shaped()).arrows}
    assert said["structure gives dense its channels"] == "shapes"
    assert said["dense gives int8 its weights to begin with"] == "starts"
    assert said["teacher teaches dense"] == "teaches"


def test_two_arrows_between_the_same_stages_run_side_by_side(shaped: Results) -> None:
    drawn = drawing(shaped())
    one = starts_and_ends(drawn, "dense teaches int8")
    other = starts_and_ends(drawn, "dense gives int8 its weights to begin with")
    assert all(other[end] - one[end] == pytest.approx(8) for end in (0, 1))
    alone = starts_and_ends(drawn, "teacher teaches dense")
    box = next(box for box in drawn.boxes if box.about.startswith("dense,"))
    assert alone[1] == pytest.approx(box.y + drawn.box_height / 2, abs=0.1)


def test_an_arrow_of_a_later_kind_is_drawn_as_teaching(made_up: Results) -> None:
    result = made_up()
    result["ladder"]["edges"][0]["kind"] = "<b>"
    assert drawing(result).arrows[0].kind == "teaches"
