"""Axes hold what they are given, and their ticks are round, few, inside and in order."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as some

from understudy.report.axes import LARGEST, Scale, scale, ticks, usable

FIGURES = some.lists(some.floats(-1e6, 1e6, allow_nan=False), min_size=1, max_size=8)


@given(FIGURES)
def test_every_value_stands_inside_its_axis_in_its_order(values: list[float]) -> None:
    axis = scale(values, start=10, end=110)
    assert axis is not None
    places = [axis(value) for value in sorted(values)]
    assert all(10 <= place <= 110 for place in places)
    assert places == sorted(places)


@given(FIGURES, some.integers(2, 8))
def test_ticks_are_few_inside_and_rising(values: list[float], most: int) -> None:
    axis = scale(values, start=0, end=100)
    assert axis is not None
    found = [tick.value for tick in ticks(axis, most=most)]
    assert len(found) <= most
    room = 1e-6 * (axis.high - axis.low)
    assert all(axis.low - room <= value <= axis.high + room for value in found)
    assert found == sorted(set(found))


@pytest.mark.parametrize(
    ("low", "high"),
    [(0.0, 1.0), (47.0, 103.0), (0.94781, 0.9479), (2.85, 3.15), (-5.6, 5.6), (0.0, 1e12), (0.1, 9.9)],
)
def test_ticks_are_at_least_two_and_tell_themselves_apart(low: float, high: float) -> None:
    found = ticks(Scale(low=low, high=high, start=0, end=1))
    assert len(found) >= 2
    assert len({tick.text for tick in found}) == len(found)
    for tick in found:
        assert math.isclose(float(tick.text), tick.value, abs_tol=1e-9 * max(abs(low), abs(high)))
    steps = {round((b.value - a.value) / (found[1].value - found[0].value), 6) for a, b in pairwise(found)}
    assert steps == {1.0}
    mantissa = (found[1].value - found[0].value) / 10 ** math.floor(
        math.log10(found[1].value - found[0].value) + 1e-9
    )
    assert round(mantissa, 6) in (1, 2, 5)


@pytest.mark.parametrize(
    ("values"), [[256, 74810], [256], [3144.0, 601600.0], [1, 1e11], [300, 340], [7, 7, 7]]
)
def test_a_log_axis_has_round_ticks_too(values: list[float]) -> None:
    axis = scale(values, start=0, end=300, log=True)
    assert axis is not None
    found = [tick.value for tick in ticks(axis)]
    assert 2 <= len(found) <= 6
    assert all(axis.low <= value <= axis.high for value in found)


def test_equal_factors_take_equal_room_on_a_log_axis() -> None:
    axis = scale([1, 10, 100], start=0, end=300, log=True)
    assert axis is not None
    assert axis(10) - axis(1) == pytest.approx(axis(100) - axis(10))


def test_zero_and_less_have_no_place_on_a_log_axis() -> None:
    assert scale([0, -1, None], start=0, end=1, log=True) is None
    axis = scale([0, 5, 50], start=0, end=1, log=True)
    assert axis is not None
    assert axis.low > 1


def test_bounds_cut_the_room_but_never_a_value() -> None:
    inside = scale([97.0, 99.9], start=0, end=1, bounds=(0, 100))
    assert inside is not None
    assert inside.high <= 100
    beyond = scale([150.0, 160.0], start=0, end=1, bounds=(0, 100))
    assert beyond is not None
    assert beyond.high > 160


def test_equal_values_stand_in_the_middle_also_when_they_are_zero() -> None:
    for value in (0.0, 3.0, -2.0):
        axis = scale([value] * 3, start=0, end=100)
        assert axis is not None
        assert axis(value) == pytest.approx(50)


def test_what_cannot_be_drawn_is_left_out() -> None:
    assert scale([None, math.nan, math.inf, -math.inf, 2 * LARGEST], start=0, end=1) is None
    assert scale([], start=0, end=1) is None
    assert not usable(None)
    axis = scale([math.nan, 1.0, 2.0], start=0, end=1)
    assert axis is not None
    assert axis.high < 3


def test_epochs_have_whole_ticks() -> None:
    axis = scale([1, 3], start=0, end=1)
    assert axis is not None
    assert [tick.text for tick in ticks(axis, whole=True)] == ["1", "2", "3"]


def test_an_axis_that_points_upwards_has_its_largest_value_on_top() -> None:
    axis = scale([1, 2], start=200, end=10)
    assert axis is not None
    assert axis(2) < axis(1)


@pytest.mark.parametrize(("low", "high"), [(11.0, 44.0), (0.69, 2.4), (0.52, 1.3), (100.0, 220.0)])
def test_figures_of_about_one_size_still_have_ticks_that_stand_apart(low: float, high: float) -> None:
    axis = Scale(low=low, high=high, start=46, end=388, log=True)
    places = [axis(tick.value) for tick in ticks(axis, most=7)]
    assert 2 <= len(places) <= 7
    assert all(right - left > 30 for left, right in pairwise(places))
