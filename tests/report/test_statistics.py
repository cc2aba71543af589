"""Mean, deviation and t-interval against values worked out by hand."""

from __future__ import annotations

import pytest

from understudy.report.statistics import mean_std_interval


def test_one_value_has_no_deviation_and_no_interval() -> None:
    assert mean_std_interval([0.61]) == (0.61, None, None)


def test_two_values_by_hand() -> None:
    # mean (2 + 4) / 2 = 3; squares (1 + 1) / (2 - 1) = 2, std sqrt(2);
    # t(0.975, 1) = 12.7062 (any printed table), times sqrt(2) / sqrt(2) = 1: 3 ± 12.7062
    mean, std, interval = mean_std_interval([2.0, 4.0])
    assert mean == 3.0
    assert std == pytest.approx(2**0.5)
    assert interval == pytest.approx((3 - 12.7062, 3 + 12.7062), abs=1e-4)


def test_five_values_by_hand() -> None:
    # mean 30 / 5 = 6; squares 16 + 4 + 0 + 4 + 16 = 40, / 4 = 10, std 3.16228;
    # t(0.975, 4) = 2.77645; 3.16228 / sqrt(5) = 1.41421; half width 3.92648
    mean, std, interval = mean_std_interval([2.0, 4.0, 6.0, 8.0, 10.0])
    assert mean == 6.0
    assert std == pytest.approx(3.16228, abs=1e-5)
    assert interval == pytest.approx((6 - 3.92648, 6 + 3.92648), abs=1e-5)


def test_equal_values_have_a_deviation_of_exactly_zero() -> None:
    assert mean_std_interval([0.1, 0.1, 0.1]) == (0.1, 0.0, (0.1, 0.1))


def test_the_order_of_the_values_does_not_matter() -> None:
    values = [0.613, 0.5871, 0.602, 0.61]
    assert mean_std_interval(values) == mean_std_interval(values[::-1])


@pytest.mark.parametrize("values", [[], [0.5, float("nan")], [float("inf")]])
def test_what_has_no_mean_is_refused(values: list[float]) -> None:
    with pytest.raises(ValueError, match="one or more finite values"):
        mean_std_interval(values)
