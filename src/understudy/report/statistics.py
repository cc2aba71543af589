"""Mean, deviation and interval of one figure over seeds."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence


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
    from scipy.special import stdtrit  # the quantile of Student's t; scipy.stats would take long to import

    std = statistics.stdev(values)
    half = float(stdtrit(len(values) - 1, 0.975)) * std / math.sqrt(len(values))
    return mean, std, (mean - half, mean + half)
