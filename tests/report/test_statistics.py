"""Means, paired differences, corrections and power against values worked out by hand or printed in tables."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.special import stdtrit

from understudy.report.statistics import (
    Difference,
    holm,
    mcnemar,
    mean_std_interval,
    paired_difference,
    smallest_visible_difference,
)


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


# Student 1908, the hours of sleep that ten patients gained by each of two drugs
DEXTRO = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]
LAEVO = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]

# accuracies as counts of right images of 10000, so that differences are 0 or well above rounding
accuracies = st.integers(0, 10_000).map(lambda right: right / 10_000)
pairs = st.lists(st.tuples(accuracies, accuracies), min_size=2, max_size=12)


def of_pairs(drawn: list[tuple[float, float]], *, comparisons: int = 1) -> Difference:
    return paired_difference(
        [ours for ours, _ in drawn], [their for _, their in drawn], comparisons=comparisons
    )


def varied(difference: Difference) -> Difference:
    """The difference, where its pairs do not all differ alike."""
    assume(difference.interval is not None)
    return difference


def test_one_pair_has_a_difference_and_nothing_more() -> None:
    alone = paired_difference([0.75], [0.5])
    assert alone == Difference(n=1, mean=0.25, std=None, interval=None, p=None)


def test_two_pairs_by_hand() -> None:
    # differences 1 and 3: mean 2, std sqrt(2), t = 2 / (sqrt(2) / sqrt(2)) = 2; one degree of freedom is Cauchy's
    # distribution: p = 1 - 2 / pi * atan(2) = 0.29517; t(0.975, 1) = 12.7062
    two = paired_difference([5.0, 7.0], [4.0, 4.0])
    assert (two.n, two.mean) == (2, 2.0)
    assert two.std == pytest.approx(2**0.5)
    assert two.interval == pytest.approx((2 - 12.7062, 2 + 12.7062), abs=1e-4)
    assert two.p == pytest.approx(1 - 2 / math.pi * math.atan(2))


def test_three_pairs_by_hand_alone_and_among_two_comparisons() -> None:
    # differences 1, 2, 3: mean 2, std 1, t = 2 sqrt(3); with two degrees of freedom p = 1 - t / sqrt(2 + t^2)
    # = 1 - sqrt(12 / 14), and |t| stays below a sqrt(2 / (1 - a^2)) with chance a: 4.30265 at 0.95, 6.20535 at 0.975
    ours, theirs = [3.0, 5.0, 7.0], [2.0, 3.0, 4.0]
    alone, among_two = paired_difference(ours, theirs), paired_difference(ours, theirs, comparisons=2)
    assert (alone.mean, alone.std) == (2.0, 1.0)
    assert alone.p == pytest.approx(1 - math.sqrt(12 / 14))
    assert alone.interval == pytest.approx((2 - 4.30265 / 3**0.5, 2 + 4.30265 / 3**0.5), abs=1e-5)
    assert among_two.interval == pytest.approx((2 - 6.20535 / 3**0.5, 2 + 6.20535 / 3**0.5), abs=1e-5)
    assert (among_two.mean, among_two.std, among_two.p) == (alone.mean, alone.std, alone.p)


def test_students_own_patients() -> None:
    # as any textbook prints it: mean 1.58, std 1.23, t = 4.0621 with 9 degrees of freedom, p = 0.002833,
    # 95 % interval 0.7001 to 2.4599
    sleep = paired_difference(LAEVO, DEXTRO)
    assert sleep.n == 10
    assert sleep.mean == pytest.approx(1.58)
    assert sleep.std == pytest.approx(1.229995, abs=1e-6)
    assert sleep.interval == pytest.approx((0.7001142, 2.4598858), abs=1e-7)
    assert sleep.p == pytest.approx(0.00283289, abs=1e-8)


def test_pairing_shows_what_two_intervals_side_by_side_hide() -> None:
    theirs = [0.55, 0.60, 0.65, 0.70]  # seeds differ by far more than the two students do
    ours = [0.561, 0.609, 0.660, 0.711]
    beside = [mean_std_interval(values)[2] for values in (ours, theirs)]
    assert beside[0] is not None
    assert beside[1] is not None
    assert beside[0][0] < beside[1][1]
    difference = paired_difference(ours, theirs)
    assert difference.interval is not None
    assert difference.interval[0] > 0


def test_equal_differences_are_too_coarse_to_be_tested() -> None:
    # 0.62 - 0.60 and 0.72 - 0.70 are not the same float
    same = paired_difference([0.62, 0.72, 0.52], [0.60, 0.70, 0.50])
    assert same.mean == pytest.approx(0.02)
    assert (same.n, same.std, same.interval, same.p) == (3, 0.0, None, None)


def test_no_difference_at_all_is_p_1() -> None:
    none = Difference(n=3, mean=0.0, std=0.0, interval=(0.0, 0.0), p=1.0)
    assert paired_difference([0.6, 0.7, 0.5], [0.6, 0.7, 0.5]) == none
    # 0.1 + 0.2 is 0.30000000000000004: rounding is not a difference that all seeds agree on
    assert paired_difference([0.1 + 0.2] * 3, [0.3] * 3) == none
    assert paired_difference([0.1 + 0.2, 0.1 + 0.2, 0.0], [0.3, 0.3, 0.0]) == none
    assert paired_difference([0.0, 0.0], [0.0, 0.0]).p == 1.0


@settings(deadline=None)
@given(drawn=pairs)
def test_the_other_way_round_is_the_same_with_its_sign_changed(drawn: list[tuple[float, float]]) -> None:
    there, back = varied(of_pairs(drawn)), of_pairs([(their, our) for our, their in drawn])
    assert there.interval is not None
    assert back == Difference(
        n=there.n,
        mean=-there.mean,
        std=there.std,
        interval=(-there.interval[1], -there.interval[0]),
        p=there.p,
    )


@settings(deadline=None)
@given(drawn=pairs, data=st.data())
def test_the_order_of_the_pairs_does_not_matter(
    drawn: list[tuple[float, float]], data: st.DataObject
) -> None:
    assert of_pairs(data.draw(st.permutations(drawn))) == of_pairs(drawn)


@settings(deadline=None)
@given(drawn=pairs, power=st.integers(-8, 8))
def test_another_unit_changes_the_figures_and_not_p(drawn: list[tuple[float, float]], power: int) -> None:
    factor = 2.0**power  # exact
    before, after = (
        varied(of_pairs(drawn)),
        of_pairs([(ours * factor, theirs * factor) for ours, theirs in drawn]),
    )
    assert before.std is not None
    assert before.interval is not None
    assert after.mean == before.mean * factor
    assert after.std == pytest.approx(before.std * factor, abs=0)
    assert after.interval == pytest.approx(tuple(end * factor for end in before.interval), abs=1e-12 * factor)
    assert after.p == pytest.approx(before.p)


@settings(deadline=None)
@given(drawn=pairs, comparisons=st.integers(1, 20))
def test_the_interval_leaves_out_zero_where_p_is_below_its_share_of_5_percent(
    drawn: list[tuple[float, float]], comparisons: int
) -> None:
    difference = varied(of_pairs(drawn, comparisons=comparisons))
    assert difference.interval is not None
    assert difference.p is not None
    assume(abs(difference.p - 0.05 / comparisons) > 1e-9)
    low, high = difference.interval
    assert (not low <= 0 <= high) == (difference.p < 0.05 / comparisons)


@settings(deadline=None)
@given(drawn=pairs)
def test_more_comparisons_widen_the_interval_and_keep_its_middle(drawn: list[tuple[float, float]]) -> None:
    widths = []
    for comparisons in (1, 2, 5, 20):
        difference = varied(of_pairs(drawn, comparisons=comparisons))
        assert difference.interval is not None
        low, high = difference.interval
        assert (low + high) / 2 == pytest.approx(difference.mean, abs=1e-9)
        widths.append(high - low)
    assert widths == sorted(widths)
    assert widths[0] < widths[-1] or difference.std == 0.0


@settings(deadline=None)
@given(drawn=pairs)
def test_a_difference_is_the_interval_of_its_mean(drawn: list[tuple[float, float]]) -> None:
    difference = varied(of_pairs(drawn))
    mean, std, interval = mean_std_interval([ours - theirs for ours, theirs in drawn])
    assert difference.mean == pytest.approx(mean, abs=1e-15)
    assert difference.std == pytest.approx(std, abs=1e-15)
    assert difference.interval == pytest.approx(interval, abs=1e-13)


def test_figures_without_a_partner_are_refused() -> None:
    with pytest.raises(ValueError, match="one for each seed; got 3 and 2 figures"):
        paired_difference([0.5, 0.6, 0.7], [0.5, 0.6])


@pytest.mark.parametrize(("ours", "theirs"), [([], []), ([0.5, math.nan], [0.5, 0.6]), ([0.5], [math.inf])])
def test_what_has_no_difference_is_refused(ours: list[float], theirs: list[float]) -> None:
    with pytest.raises(ValueError, match="one or more pairs of finite figures; got"):
        paired_difference(ours, theirs)


def test_a_comparison_counts_itself() -> None:
    with pytest.raises(ValueError, match="comparisons is 1 or more, this one counted; got 0"):
        paired_difference([0.5, 0.6], [0.5, 0.7], comparisons=0)


def test_holm_by_hand() -> None:
    # sorted 0.005, 0.01, 0.03, 0.04, times 4, 3, 2, 1: 0.02, 0.03, 0.06, 0.04, and the last no smaller than 0.06
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_holm_with_equal_values_by_hand() -> None:
    # 3 * 0.02, 2 * 0.02, and 1 * 0.9 as it is
    assert holm([0.02, 0.9, 0.02]) == pytest.approx([0.06, 0.9, 0.06])


def test_holm_of_one_and_of_none() -> None:
    assert holm([0.03]) == [0.03]
    assert holm([]) == []


p_values = st.lists(st.floats(0, 1), min_size=1, max_size=10)


@settings(deadline=None)
@given(p=p_values)
def test_holm_lies_between_the_value_and_bonferronis(p: list[float]) -> None:
    for value, corrected in zip(p, holm(p), strict=True):
        assert value <= corrected <= min(1.0, len(p) * value)
    assert min(holm(p)) == min(1.0, len(p) * min(p))


@settings(deadline=None)
@given(p=p_values, data=st.data())
def test_holm_keeps_the_order_and_does_not_mind_it(p: list[float], data: st.DataObject) -> None:
    order = data.draw(st.permutations(range(len(p))))
    corrected = holm(p)
    assert holm([p[i] for i in order]) == [corrected[i] for i in order]
    assert all(a <= b for a, b in pairwise(value for _, value in sorted(zip(p, corrected, strict=True))))


@settings(deadline=None)
@given(p=p_values, level=st.floats(0.001, 0.5))
def test_holm_rejects_what_his_steps_reject(p: list[float], level: float) -> None:
    # the procedure as he states it: while the smallest p left is at most level / (how many are left), reject it
    left = sorted(p)
    while left and left[0] * len(left) <= level:
        left.pop(0)
    assert sum(value <= level for value in holm(p)) == len(p) - len(left)


@pytest.mark.parametrize("p", [-0.1, 1.1, math.nan])
def test_holm_refuses_what_is_no_probability(p: float) -> None:
    with pytest.raises(ValueError, match="p is between 0 and 1; got"):
        holm([0.5, p])


# Fewest pairs for a power of 0.8 at two-sided 5 %, as printed in tables of the paired t-test: 199 pairs for a
# difference of 0.2 deviations, 34 for 0.5, 15 for 0.8, 10 for 1.0
@pytest.mark.parametrize(("difference", "fewest"), [(0.2, 199), (0.5, 34), (0.8, 15), (1.0, 10)])
def test_the_number_of_pairs_is_that_of_the_tables(difference: float, fewest: int) -> None:
    enough = smallest_visible_difference(1.0, fewest)
    one_less = smallest_visible_difference(1.0, fewest - 1)
    assert enough is not None
    assert one_less is not None
    assert enough <= difference < one_less


# and the power that those numbers of pairs have, to four digits
@pytest.mark.parametrize(
    ("difference", "n", "power"),
    [(0.2, 199, 0.8017), (0.5, 34, 0.8078), (0.8, 15, 0.8213), (1.0, 10, 0.8031)],
)
def test_the_power_is_that_of_the_tables(difference: float, n: int, power: float) -> None:
    assert smallest_visible_difference(1.0, n, power=power) == pytest.approx(difference, abs=3e-4)


def test_two_pairs_by_quadrature() -> None:
    # with one degree of freedom the spread s of t = (shift + z) / s is |a normal deviate|, so the power is
    # the integral over s of 2 phi(s) (Phi(shift - t s) + Phi(-shift - t s)), t = 12.7062, here by trapezoids
    difference = smallest_visible_difference(1.0, 2)
    assert difference is not None
    shift, spread = difference * math.sqrt(2), np.linspace(0, 9, 20_001)
    normal = np.vectorize(lambda x: 0.5 * math.erfc(-x / math.sqrt(2)))
    density = 2 * np.exp(-(spread**2) / 2) / math.sqrt(2 * math.pi)
    rejected = density * (normal(shift - 12.7062047 * spread) + normal(-shift - 12.7062047 * spread))
    assert (rejected[1:] + rejected[:-1]).sum() / 2 * (spread[1] - spread[0]) == pytest.approx(0.8, abs=1e-6)


@pytest.mark.parametrize(
    ("n", "power", "level"), [(3, 0.8, 0.05), (5, 0.5, 0.05), (5, 0.9, 0.01), (20, 0.1, 0.05)]
)
def test_that_difference_is_found_as_often_as_promised(n: int, power: float, level: float) -> None:
    difference = smallest_visible_difference(1.0, n, power=power, level=level)
    assert difference is not None
    drawn = np.random.default_rng(0).normal(difference, 1.0, size=(100_000, n))
    t = drawn.mean(1) / (drawn.std(1, ddof=1) / math.sqrt(n))
    share = (np.abs(t) > stdtrit(n - 1, 1 - level / 2)).mean()
    assert share == pytest.approx(power, abs=4 * math.sqrt(power * (1 - power) / 100_000))


def test_with_many_pairs_it_is_that_of_the_normal_distribution() -> None:
    # (1.959964 + 0.841621) / sqrt(n)
    assert smallest_visible_difference(1.0, 1_000_000) == pytest.approx(2.801585e-3, rel=1e-5)


# the lower tail of nctdtr is NaN here in some versions of scipy
@pytest.mark.parametrize(("n", "level"), [(2, 0.05), (3, 0.05), (15, 0.0005), (1000, 0.0005)])
def test_it_grows_with_the_power_without_holes(n: int, level: float) -> None:
    found = [
        smallest_visible_difference(1.0, n, power=power, level=level)
        for power in np.linspace(0.06, 0.999, 48)
    ]
    assert all(a is not None and b is not None and a < b for a, b in pairwise(found))


@settings(deadline=None)
@given(n=st.integers(2, 60), power=st.floats(0.2, 0.95), level=st.floats(0.001, 0.1))
def test_more_pairs_and_fewer_comparisons_show_smaller_differences(
    n: int, power: float, level: float
) -> None:
    here = smallest_visible_difference(1.0, n, power=power, level=level)
    more = smallest_visible_difference(1.0, n + 1, power=power, level=level)
    among_two = smallest_visible_difference(1.0, n, power=power, level=level / 2)
    assert here is not None
    assert more is not None
    assert among_two is not None
    assert more < here < among_two


@settings(deadline=None)
@given(std=st.floats(0, 1000), n=st.integers(2, 20))
def test_it_is_in_units_of_the_deviation(std: float, n: int) -> None:
    unit = smallest_visible_difference(1.0, n)
    assert unit is not None
    assert smallest_visible_difference(std, n) == pytest.approx(std * unit)


def test_one_pair_shows_nothing() -> None:
    assert smallest_visible_difference(0.01, 1) is None


def test_what_has_no_power_is_refused() -> None:
    with pytest.raises(ValueError, match="n is 1 pair or more; got 0"):
        smallest_visible_difference(0.01, 0)
    for std in (-0.1, math.nan, math.inf):
        with pytest.raises(ValueError, match=f"deviation of differences is 0 or more, and finite; got {std}"):
            smallest_visible_difference(std, 3)
    for power, level in ((0.05, 0.05), (1.0, 0.05), (0.8, 0.0), (math.nan, 0.05)):
        with pytest.raises(ValueError, match=f"got level {level} and power {power}"):
            smallest_visible_difference(0.01, 3, power=power, level=level)


@pytest.mark.parametrize(
    ("only_first", "only_second", "p"),
    [
        (0, 5, 2 / 32),  # all of five tosses the same
        (1, 5, 2 * (1 + 6) / 64),
        (2, 8, 2 * (1 + 10 + 45) / 1024),
        (5, 15, 2 * 21_700 / 2**20),  # 1 + 20 + 190 + 1140 + 4845 + 15504 = 21700
        (3, 3, 1.0),  # 2 * 42 / 64 is more than 1
        (3, 4, 1.0),  # 2 * 64 / 128
        (0, 1, 1.0),
        (0, 0, 1.0),
    ],
)
def test_mcnemar_by_hand(only_first: int, only_second: int, p: float) -> None:
    assert mcnemar(only_first, only_second) == pytest.approx(p, rel=1e-12)


numbers = st.integers(0, 200)


@settings(deadline=None)
@given(only_first=numbers, only_second=numbers)
def test_mcnemar_is_the_sum_of_binomial_chances(only_first: int, only_second: int) -> None:
    n, k = only_first + only_second, min(only_first, only_second)
    tail = sum(math.comb(n, i) for i in range(k + 1))  # whole numbers of any size
    assert mcnemar(only_first, only_second) == pytest.approx(min(1.0, 2 * tail / 2**n), rel=1e-9)
    assert mcnemar(only_second, only_first) == mcnemar(only_first, only_second)


@settings(deadline=None)
@given(less=numbers, more=numbers)
def test_mcnemar_falls_as_the_split_becomes_more_uneven(less: int, more: int) -> None:
    assume(0 < less <= more)
    assert mcnemar(less - 1, more + 1) < mcnemar(less, more) or mcnemar(less, more) == 1.0


def test_mcnemar_of_a_large_test_set_is_near_chi_squared() -> None:
    # (|b - c| - 1)^2 / (b + c) = 199^2 / 10000 = 3.9601, p = erfc(sqrt(3.9601 / 2)) = 0.0466
    assert mcnemar(4900, 5100) == pytest.approx(math.erfc(1.99 / math.sqrt(2)), rel=1e-3)


@pytest.mark.parametrize("numbers", [(-1, 3), (3, -1)])
def test_mcnemar_refuses_negative_numbers(numbers: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=f"0 or more; got {numbers[0]} and {numbers[1]}"):
        mcnemar(*numbers)
