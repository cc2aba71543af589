"""Points over their cost: where they stand, what their names cover, and which of them are on the front."""

from __future__ import annotations

import math
import re
from itertools import combinations, pairwise

import pytest

from tests.report.pictures import mark_places, of_class, parsed, size_of
from understudy.report import scatter as drawn
from understudy.report.frame import text_width
from understudy.report.scatter import LINE, Mark, front

EVIL = "<script>alert('1')</script>&\"\x1b[31m\n"


def scatter(*marks: Mark, **options: object) -> str:
    return drawn.scatter(marks, about="a", x_label="parameters", y_label="accuracy, %", **options)  # type: ignore[arg-type]


def mark(x: float | None, y: float | None, name: str = "m", **options: object) -> Mark:
    return Mark(**{"x": x, "y": y, "name": name, "kind": "student", "about": name, **options})  # type: ignore[arg-type]


def test_a_scatter_places_larger_costs_to_the_right_and_better_figures_higher() -> None:
    chart = scatter(mark(1_000, 60.0, "small"), mark(10_000, 70.0, "middle"), mark(100_000, 80.0, "large"))
    (x0, y0), (x1, y1), (x2, y2) = mark_places(chart)
    assert x0 < x1 < x2
    assert x1 - x0 == pytest.approx(x2 - x1, abs=0.11)  # a factor of ten each
    assert y0 > y1 > y2
    width, height = size_of(chart)
    assert 0 < x0 < x2 < width
    assert 0 < y2 < y0 < height


def test_students_of_one_size_stand_side_by_side() -> None:
    chart = scatter(*(mark(256, 60.0 + n, f"arm {n}", interval=(58.0 + n, 62.0 + n)) for n in range(4)))
    places = [x for x, _ in mark_places(chart)]
    assert all(b - a >= 5 for a, b in combinations(sorted(places), 2))
    assert len(of_class(chart, "bar")) == 4


def test_a_single_mark_stands_in_the_middle() -> None:
    ((x, y),) = mark_places(scatter(mark(256, 58.0)))
    width, height = size_of(scatter(mark(256, 58.0)))
    assert width / 4 < x < 3 * width / 4
    assert height / 4 < y < 3 * height / 4


@pytest.mark.parametrize("many", [3, 12, 25, 60])
def test_names_cover_neither_each_other_nor_a_mark_nor_the_edge(many: int) -> None:
    chart = scatter(
        *(
            mark(1000 * (1 + n % 5), 60 + 0.3 * n, f"stage number {n}", strong=n == many - 1)
            for n in range(many)
        )
    )
    width, height = size_of(chart)
    boxes = []
    for name in of_class(chart, "name"):
        x, y = float(name.get("x") or 0), float(name.get("y") or 0) - 4
        boxes.append((x, y - LINE / 2, x + text_width(name.text or ""), y + LINE / 2))
        assert x >= 0
        assert boxes[-1][2] <= width
        assert boxes[-1][3] <= height
    if many <= 25:  # sixty leave room for none
        assert f"stage number {many - 1}" in [name.text for name in of_class(chart, "name")]  # the strong one
    for one, other in combinations(boxes, 2):
        assert one[2] <= other[0] or other[2] <= one[0] or one[3] <= other[1] or other[3] <= one[1]
    for x, y in mark_places(chart):
        assert not any(left < x < right and top < y < bottom for left, top, right, bottom in boxes)
    assert len(mark_places(chart)) == many


def test_few_names_all_find_room() -> None:
    chart = scatter(*(mark(256 if n < 4 else 10_000 * n, 60.0 + n, f"stage {n}") for n in range(8)))
    assert len(of_class(chart, "name")) == 8


def line_places(chart: str) -> list[tuple[float, float]]:
    """Corners of the front's line, which has absolute M, H and V only."""
    (line,) = of_class(chart, "front")
    x = y = 0.0
    corners = []
    for command, figures in re.findall(r"([MHV])([^MHV]*)", line.get("d") or ""):
        numbers = [float(number) for number in figures.split()]
        x = numbers[0] if command in "MH" else x
        y = numbers[-1] if command in "MV" else y
        corners.append((x, y))
    return corners


def test_nothing_to_draw_is_an_empty_text() -> None:
    assert scatter() == scatter(mark(None, 1.0), mark(0, 1.0), mark(10, None), mark(10, math.nan)) == ""
    assert scatter(mark(None, 1.0), with_front=True) == ""


def test_the_front_holds_what_nothing_else_beats_at_the_same_cost_or_less() -> None:
    marks = [
        mark(40, 65),
        mark(12, 60),
        mark(12, 63),
        mark(12, 63),
        mark(22, 62),
        mark(39, 64),
        mark(10, 50),
        mark(None, 99),
        mark(5, math.nan),
    ]
    found = front(marks)
    assert found == [6, 2, 5, 0]
    for number, one in enumerate(marks):
        beaten = any(
            other.x <= one.x and other.y >= one.y and (other.x, other.y) != (one.x, one.y)
            for other in marks
            if None not in (one.x, one.y, other.x, other.y) and not math.isnan(other.y)  # type: ignore[operator,arg-type]
        )
        assert beaten or number in (*found, 3, 7, 8)  # 3 is 2 once more, 7 and 8 cannot be drawn
        assert not (beaten and number in found)


def test_the_line_of_the_front_climbs_from_mark_to_mark_and_goes_on_to_the_right() -> None:
    marks = [
        mark(10, 50, "a"),
        mark(100, 70, "b"),
        mark(100, 60, "c"),
        mark(99.9, 40, "d"),
        mark(1000, 65, "e"),
        mark(2000, 80, "f"),
    ]
    chart = scatter(*marks, with_front=True)
    places, corners = mark_places(chart), line_places(chart)
    assert corners[0] == places[0]
    assert corners[2] == places[1]
    assert corners[4] == places[5]
    assert len(corners) == 6
    assert [x for x, _ in corners] == sorted(x for x, _ in corners)
    assert [y for _, y in corners] == sorted((y for _, y in corners), reverse=True)
    assert corners[-1][0] > places[5][0]
    assert of_class(scatter(*marks), "front") == []


def test_marks_on_the_front_stay_at_their_cost_and_those_of_the_same_cost_make_room() -> None:
    marks = [mark(256, 60.0 + n, f"arm {n}", interval=(59.0 + n, 61.0 + n)) for n in range(4)]
    alone = mark_places(scatter(marks[3], mark(1000, 80.0), with_front=True))[0][0]
    places = [x for x, _ in mark_places(scatter(*marks, mark(1000, 80.0), with_front=True))][:4]
    assert places[3] == alone
    assert all(abs(one - other) >= 5 for one, other in combinations(places, 2))


def test_two_on_the_front_of_nearly_the_same_cost_do_not_turn_its_line_back() -> None:
    marks = [
        mark(12.30, 63, "dense"),
        mark(12.25, 61, "uniform"),
        mark(12.3, 60, "scratch"),
        mark(41, 65, "teacher"),
    ]
    corners = line_places(scatter(*marks, with_front=True))
    assert [x for x, _ in corners] == sorted(x for x, _ in corners)


@pytest.mark.parametrize("many", [2, 4, 6])
def test_names_keep_off_the_front_where_there_is_room(many: int) -> None:
    chart = scatter(*(mark(100 * 2**n, 50 + 3 * n, f"rung {n}") for n in range(many)), with_front=True)
    corners = line_places(chart)
    names = of_class(chart, "name")
    assert len(names) == many
    for name in names:
        left, middle = float(name.get("x") or 0), float(name.get("y") or 0) - 4
        right = left + text_width(name.text or "")
        for (x, y), (next_x, next_y) in pairwise(corners):
            crossed = left < max(x, next_x) and min(x, next_x) < right
            assert not (crossed and min(y, next_y) - LINE / 2 < middle < max(y, next_y) + LINE / 2)


def test_all_text_is_escaped() -> None:
    chart = drawn.scatter(
        [mark(1, 1.0, EVIL, kind=EVIL)],
        about=EVIL,
        x_label=EVIL,
        y_label=EVIL,
        x_text=lambda _: EVIL,
        with_front=True,
    )
    assert "<script" not in chart
    assert not [one for one in parsed(chart.replace("\x1b", "")).iter() if one.tag == "script"]
