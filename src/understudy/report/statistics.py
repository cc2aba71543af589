"""Mean, deviation and interval of one figure over seeds; differences between two, and how small a one would show."""

from __future__ import annotations

import math
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass

# scipy.special where it is used: scipy.stats would take long to import, and `import understudy` imports neither

LEVEL = 0.05
"""Share of comparisons that would show a difference where there is none; intervals hold with 1 - LEVEL."""


def mean_std_interval(values: Sequence[float]) -> tuple[float, float | None, tuple[float, float] | None]:
    """Mean, sample standard deviation (n - 1) and 95 % t-interval of the mean.

    The interval is mean ± t(0.975, n - 1) · std / sqrt(n): it holds for runs that differ by their seed alone, and
    says nothing about another split of the data.

    Returns:
        mean, std and (low, high), in the unit of ``values``; std and interval are None for one value.

    Raises:
        ValueError: no values, or one that is not finite.

    References:
        Student 1908, "The probable error of a mean", Biometrika 6(1).

    >>> mean_std_interval([0.5])
    (0.5, None, None)
    >>> mean, std, (low, high) = mean_std_interval([0.60, 0.62])
    >>> f"{mean:.2f} {std:.4f} {low:.3f} {high:.3f}"
    '0.61 0.0141 0.483 0.737'
    """
    if not values or not all(math.isfinite(value) for value in values):
        raise ValueError(f"mean and deviation need one or more finite values; got {list(values)!r}")
    mean = statistics.mean(values)  # exact, where fmean([0.1] * 3) is not 0.1
    if len(values) == 1:
        return mean, None, None
    std = statistics.stdev(values)
    return mean, std, _interval(mean, std, len(values), level=LEVEL)


def _interval(mean: float, std: float, n: int, *, level: float) -> tuple[float, float]:
    """mean ± t(1 - level / 2, n - 1) · std / sqrt(n)."""
    from scipy.special import stdtrit  # the quantile of Student's t

    half = float(stdtrit(n - 1, 1 - level / 2)) * std / math.sqrt(n)
    return mean - half, mean + half


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Ours less theirs, over pairs.

    Attributes:
        n: pairs.
        mean: of the differences; above 0 where ours are higher.
        std: sample standard deviation (n - 1) of the differences; None for one pair.
        interval: (low, high) of the mean difference; None for one pair, and where all differences are equal and not 0.
        p: of the two-sided paired t-test, not corrected for other comparisons; None where there is no interval.
    """

    n: int
    mean: float
    std: float | None
    interval: tuple[float, float] | None
    p: float | None


def paired_difference(ours: Sequence[float], theirs: Sequence[float], *, comparisons: int = 1) -> Difference:
    """What ours are better by, from the differences of pairs.

    Two students of one seed share more than chance (the order of the images, an assistant), which their difference
    takes away; intervals of the two means side by side would still hold it.

    Args:
        ours: one figure a pair.
        theirs: the same, paired by position: the caller puts equal seeds at equal places.
        comparisons: m, how many differences are shown together. The interval then holds with 1 - 0.05 / m, so that
            all m hold together with 95 % or more, however they depend on each other (Bonferroni). ``p`` stays that
            of this comparison alone, for ``holm``. Holm's correction finds at least as much as these intervals do:
            a corrected p below 0.05 beside an interval that holds 0 is possible, the other way round is not.

    Returns:
        mean, std and interval in the unit of the figures. Differences that are equal but for the rounding of the
        figures have std 0. Where they are all 0 the interval has no width and p is 1; else there is neither: the
        formulas would give p 0, a certainty, where a figure is too coarse to vary over few pairs (an accuracy is a
        count).

    Raises:
        ValueError: unequal numbers of figures, none, one that is not finite, or less than one comparison.

    References:
        Student 1908, "The probable error of a mean", Biometrika 6(1), whose illustration is this test.
        Dunn 1961, "Multiple comparisons among means", JASA 56(293): intervals that hold together.

    >>> paired_difference([0.62], [0.60]).p is None
    True
    >>> difference = paired_difference([3.0, 5.0, 7.0], [2.0, 3.0, 4.0])
    >>> low, high = difference.interval
    >>> f"{difference.mean:.1f} [{low:.2f}, {high:.2f}] n={difference.n} p={difference.p:.3f}"
    '2.0 [-0.48, 4.48] n=3 p=0.074'
    """
    if len(ours) != len(theirs):
        raise ValueError(
            f"differences need pairs, one for each seed; got {len(ours)} and {len(theirs)} figures"
        )
    if not ours or not all(math.isfinite(value) for value in (*ours, *theirs)):
        raise ValueError(
            f"differences need one or more pairs of finite figures; got {list(ours)!r} and {list(theirs)!r}"
        )
    if comparisons < 1:
        raise ValueError(f"comparisons is 1 or more, this one counted; got {comparisons}")
    n = len(ours)
    differences = [our - their for our, their in zip(ours, theirs, strict=True)]
    mean = statistics.mean(differences)
    if n == 1:
        return Difference(n=n, mean=mean, std=None, interval=None, p=None)
    # 0.62 - 0.60 and 0.72 - 0.70 differ in their last bits, which would be a std, and a p, out of nothing
    rounding = 4 * sys.float_info.epsilon * max(abs(value) for value in (*ours, *theirs))
    if max(differences) - min(differences) <= rounding:
        if abs(mean) <= rounding:
            mean = 0.0
            return Difference(n=n, mean=mean, std=0.0, interval=(mean, mean), p=1.0)
        return Difference(n=n, mean=mean, std=0.0, interval=None, p=None)
    from scipy.special import stdtr  # the distribution function of Student's t

    std = statistics.stdev(differences)
    p = 2 * float(stdtr(n - 1, -abs(mean) / (std / math.sqrt(n))))
    return Difference(
        n=n, mean=mean, std=std, interval=_interval(mean, std, n, level=LEVEL / comparisons), p=p
    )


def holm(p_values: Sequence[float]) -> list[float]:
    """p corrected for the number of comparisons, in the order given.

    Of m values, the k-th smallest is multiplied by m - k + 1, made no smaller than the one before it and at most 1.
    Those below 0.05 may then be called differences, with at most 5 % chance that any of them is none, however the
    comparisons depend on each other.

    Args:
        p_values: one a comparison. A comparison named beforehand as the claim is not among them: its p stands as it
            is.

    Raises:
        ValueError: a value outside 0 to 1.

    References:
        Holm 1979, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of Statistics 6(2).

    >>> holm([0.04, 0.01])
    [0.04, 0.02]
    """
    if not all(0 <= p <= 1 for p in p_values):
        raise ValueError(f"p is between 0 and 1; got {list(p_values)!r}")
    corrected = [0.0] * len(p_values)
    last = 0.0
    for rank, position in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        last = max(last, min(1.0, (len(p_values) - rank) * p_values[position]))
        corrected[position] = last
    return corrected


def smallest_visible_difference(
    std_of_differences: float, n: int, *, power: float = 0.8, level: float = LEVEL
) -> float | None:
    """The true difference that a two-sided paired t-test of n pairs finds with a chance of ``power``.

    A smaller one may be there and stay unseen. t of the differences has the noncentral t-distribution with n - 1
    degrees of freedom and noncentrality difference · sqrt(n) / std; this solves for the difference. (A normal
    distribution in its place promises too much at few seeds: at n = 3 it names less than half the difference.)

    Args:
        std_of_differences: seen or guessed, between pairs, in the unit of the answer.
        n: pairs.
        power: chance to find it.
        level: chance to find one where there is none; 0.05 / m where m comparisons are shown together.

    Returns:
        in the unit of ``std_of_differences``; None for one pair, which shows no difference however large.

    Raises:
        ValueError: n below 1, a deviation that is negative or not finite, or not 0 < level < power < 1.

    References:
        Cohen 1988, "Statistical Power Analysis for the Behavioral Sciences", 2nd edition, section 2.3 (pairs: case 4).

    >>> f"{smallest_visible_difference(0.4, 3):.2f} {smallest_visible_difference(0.4, 10):.2f}"
    '1.31 0.40'
    """
    if n < 1:
        raise ValueError(f"n is 1 pair or more; got {n}")
    if not (math.isfinite(std_of_differences) and std_of_differences >= 0):
        raise ValueError(f"the deviation of differences is 0 or more, and finite; got {std_of_differences}")
    if not 0 < level < power < 1:
        raise ValueError(f"0 < level < power < 1; got level {level} and power {power}")
    if n == 1:
        return None
    from scipy.special import gammaincinv, nctdtr, ndtri, stdtrit

    freedom = n - 1
    least = float(stdtrit(freedom, 1 - level / 2))

    def found(shift: float) -> float:
        """The power where the noncentrality is ``shift``."""
        above = 1 - float(nctdtr(freedom, shift, least))
        below = float(nctdtr(freedom, shift, -least))
        # scipy 1.17 has NaN where that tail is smaller than 1e-15
        return above if math.isnan(below) else above + below

    # t is (shift + a normal deviate) / spread, and misses only where spread exceeds its quantile or the deviate falls
    # below its own: with half of 1 - power for each, this shift is enough. A tight bound keeps nctdtr where it is exact.
    missed = (1 - power) / 2
    low, high = 0.0, least * math.sqrt(2 * float(gammaincinv(freedom / 2, 1 - missed)) / freedom)
    high -= float(ndtri(missed))
    for _ in range(60):
        middle = (low + high) / 2
        if found(middle) < power:
            low = middle
        else:
            high = middle
    return high * std_of_differences / math.sqrt(n)


def mcnemar(only_first: int, only_second: int) -> float:
    """Exact two-sided p that two models, each trained once, are right equally often on images like these.

    Samples that both get right, or both wrong, say nothing; of the others each model should win half, and p is the
    chance of a split at least as uneven: min(1, 2 · P(X <= min(only_first, only_second))) with X binomial(sum, 1/2).
    It speaks of these two sets of weights: another seed would give two other models.

    Args:
        only_first: samples that the first model gets right and the second wrong.
        only_second: the other way round.

    Returns:
        p; 1 where there are no such samples.

    Raises:
        ValueError: a negative number.

    References:
        McNemar 1947, "Note on the sampling error of the difference between correlated proportions or percentages",
        Psychometrika 12(2), here with the binomial instead of chi squared.
        Dietterich 1998, "Approximate statistical tests for comparing supervised classification learning algorithms",
        Neural Computation 10(7), section 3.1.

    >>> mcnemar(0, 5)
    0.0625
    """
    if only_first < 0 or only_second < 0:
        raise ValueError(f"numbers of samples are 0 or more; got {only_first} and {only_second}")
    from scipy.special import bdtr

    return min(1.0, 2 * float(bdtr(min(only_first, only_second), only_first + only_second, 0.5)))
