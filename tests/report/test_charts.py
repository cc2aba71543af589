"""Charts stay inside their frame, say nothing where there is nothing, and escape all they are told."""

from __future__ import annotations

import math
import re

import pytest

from tests.report.pictures import mark_places, of_class, parsed, places_of, size_of
from understudy.report import charts
from understudy.report.charts import Line, Row
from understudy.report.frame import SHAPE_OF, SHAPES
from understudy.report.kinds import KINDS

EVIL = "<script>alert('1')</script>&\"\x1b[31m\n"
SHARED = (0.0, 100.0)


def curves(*lines: Line, **options: object) -> str:
    told = {"kind": "student", "about": "a", "x_label": "epoch", "y_label": "accuracy, %", **options}
    return charts.curves(lines, **told)  # type: ignore[arg-type]


def test_curves_stay_inside_their_frame_and_rise_upwards() -> None:
    chart = curves(Line(points=[(1, 10.0), (2, 50.0), (3, 90.0)], kind="mean", about="seed 0"), bounds=SHARED)
    width, height = size_of(chart)
    (line,) = of_class(chart, "line")
    places = places_of(line.get("d") or "")
    assert len(places) == 3
    assert all(0 < x < width and 0 < y < height for x, y in places)
    assert [x for x, _ in places] == sorted(x for x, _ in places)
    assert [y for _, y in places] == sorted((y for _, y in places), reverse=True)


@pytest.mark.parametrize("gap", [None, math.nan, math.inf, 1e300])
def test_a_figure_that_cannot_be_drawn_leaves_a_gap(gap: float | None) -> None:
    chart = curves(Line(points=[(1, 1.0), (2, 2.0), (3, gap), (4, 2.0), (5, 3.0)], kind="seed", about=""))
    assert [len(places_of(line.get("d") or "")) for line in of_class(chart, "line")] == [2, 2]
    assert "nan" not in chart
    assert "inf" not in chart


def test_one_point_alone_is_a_dot() -> None:
    chart = curves(Line(points=[(1, 42.0)], kind="mean", about=""))
    (line,) = of_class(chart, "line")
    assert (line.get("d") or "").endswith("h0")


def test_equal_values_make_a_level_line_with_ticks() -> None:
    chart = curves(Line(points=[(1, 5.0), (2, 5.0)], kind="mean", about=""))
    (line,) = of_class(chart, "line")
    assert len({y for _, y in places_of(line.get("d") or "")}) == 1
    assert len(of_class(chart, "tick")) >= 4


def test_thick_lines_lie_over_thin_ones() -> None:
    mean = Line(points=[(1, 1.0), (2, 2.0)], kind="mean", about="")
    seed = Line(points=[(1, 1.1), (2, 2.1)], kind="seed", about="")
    assert [line.get("class") for line in of_class(curves(mean, seed), "line")] == ["line seed", "line mean"]


def test_nothing_to_draw_is_an_empty_text() -> None:
    nothing = Line(points=[(1, None), (2, math.nan)], kind="mean", about="")
    assert curves(nothing) == curves() == ""
    assert curves(nothing, y_range=(0.0, 1.0), x_range=(0.0, 1.0)) == ""
    assert charts.rows([], about="", x_label="") == ""
    assert (
        charts.rows([Row(name="a", kind="student", about="", dots=[None])], about="", x_label="", reference=0)
        == ""
    )


def test_axes_have_labels_and_the_chart_a_name() -> None:
    chart = curves(Line(points=[(1, 1.0), (2, 2.0)], kind="mean", about=""), about="what it shows")
    assert [label.text for label in of_class(chart, "label")] == ["accuracy, %", "epoch"]
    assert parsed(chart).get("aria-label") == "what it shows"
    assert parsed(chart).get("role") == "img"


def test_charts_side_by_side_can_share_their_range() -> None:
    one, other = (
        [tick.text for tick in of_class(curves(line, x_range=(1, 100), y_range=SHARED), "tick")]
        for line in (
            Line(points=[(1, 10.0), (9, 20.0)], kind="mean", about=""),
            Line(points=[(1, 70.0), (100, 90.0)], kind="mean", about=""),
        )
    )
    assert one == other


def test_every_kind_has_a_shape_of_its_own() -> None:
    assert len({SHAPES[SHAPE_OF[kind]] for kind in KINDS}) == len(KINDS)


def test_rows_show_dots_mean_interval_and_reference() -> None:
    row = Row(
        name="dense",
        kind="student",
        about="",
        dots=[1.0, 2.0, None, math.nan],
        mean=1.5,
        interval=(-1.0, 4.0),
    )
    chart = charts.rows([row], about="", x_label="points", reference=0.0)
    assert len(of_class(chart, "dot")) == 2
    assert len(of_class(chart, "mark")) == 1
    (bar,) = of_class(chart, "bar")
    low, high = (float(x) for x in re.findall(r"^M([\d.]+) .*?H([\d.]+)", bar.get("d") or "")[0])
    ((mean, _),) = mark_places(chart)
    (reference,) = of_class(chart, "reference")
    zero = places_of(reference.get("d") or "")[0][0]
    assert low < zero < mean < high
    assert mean - low == pytest.approx(high - mean, abs=0.11)
    assert high <= size_of(chart)[0]


def test_an_interval_ends_where_figures_of_its_kind_do() -> None:
    row = Row(name="a", kind="student", about="", dots=[50.0, 60.0], mean=55.0, interval=(-8.0, 118.0))
    chart = charts.rows([row], about="", x_label="%", bounds=SHARED)
    texts = [float(tick.text or "") for tick in of_class(chart, "tick")]
    assert min(texts) == 0
    assert max(texts) == 100


def test_a_row_without_figures_keeps_its_name() -> None:
    rows = [Row(name="a", kind="student", about="", mean=1.0), Row(name="b", kind="control", about="")]
    chart = charts.rows(rows, about="", x_label="")
    assert "".join(parsed(chart).itertext()).count("b") == 1


@pytest.mark.parametrize("many", [1, 20, 60])
def test_rows_grow_with_their_number_and_stay_inside(many: int) -> None:
    chart = charts.rows(
        [Row(name=f"r{n}", kind="student", about="", mean=float(n)) for n in range(many)],
        about="",
        x_label="",
    )
    width, height = size_of(chart)
    assert all(0 < x < width and 0 < y < height - 30 for x, y in mark_places(chart))


def test_all_text_is_escaped() -> None:
    drawn = [
        charts.curves(
            [Line(points=[(1, 1.0)], kind="mean", about=EVIL)],
            kind=EVIL,
            about=EVIL,
            x_label=EVIL,
            y_label=EVIL,
        ),
        charts.rows([Row(name=EVIL, kind=EVIL, about=EVIL, mean=1.0, dots=[1.0])], about=EVIL, x_label=EVIL),
    ]
    for chart in drawn:
        assert "<script" not in chart
        assert not [one for one in parsed(chart.replace("\x1b", "")).iter() if one.tag == "script"]
