"""Axes of charts: from figures to places on the page, and the ticks between."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

LARGEST = 1e12  # what is larger is no figure of a run but one that blew up; it is left out like a NaN


def usable(value: float | None) -> bool:
    """Whether a figure can be drawn: there, finite, and of a sane size.

    >>> [usable(value) for value in (0.5, None, float("nan"), float("inf"), 1e300)]
    [True, False, False, False, False]
    """
    return value is not None and math.isfinite(value) and abs(value) <= LARGEST


@dataclass(frozen=True, kw_only=True)
class Tick:
    """A mark on an axis: its figure and how that is written."""

    value: float
    text: str


@dataclass(frozen=True, kw_only=True)
class Scale:
    """A stretch of figures laid onto a stretch of the page.

    Attributes:
        low: the smallest figure; above 0 where ``log``.
        high: the largest figure, more than ``low``.
        start: where ``low`` stands, in pixels.
        end: where ``high`` stands; less than ``start`` for an axis that points upwards.
        log: equal factors take equal room.
    """

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """The place of ``value``; what lies outside stands at the nearer end."""
        value = min(max(value, self.low), self.high)
        if self.log:
            share = math.log(value / self.low) / math.log(self.high / self.low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)


def scale(
    values: Iterable[float | None],
    *,
    start: float,
    end: float,
    log: bool = False,
    bounds: tuple[float, float] = (-math.inf, math.inf),
    room: float = 0.06,
) -> Scale | None:
    """An axis that holds all usable ``values`` with some room on both sides.

    Args:
        values: figures; those that cannot be drawn, and with ``log`` those not above 0, are left out.
        start: where the smallest stands, in pixels.
        end: where the largest stands.
        log: whether equal factors take equal room.
        bounds: beyond which no figure of this kind can lie, such as 0 and 100 %.
        room: share of the stretch left free at each end that no bound cuts.

    Returns:
        None where no value can be drawn. One value, or several equal ones, stand in the middle of their axis
        (at its end where that is a bound).

    >>> scale([2.0, 2.0], start=0, end=100)(2.0)
    50.0
    """
    found = [float(value) for value in values if value is not None and usable(value)]
    if log:
        found = [value for value in found if value > 0]
    if not found:
        return None
    low, high = min(found), max(found)
    if log:
        if math.log(high / low) < 1e-9:
            low, high = low / 2, high * 2
        else:
            factor = (high / low) ** room
            low, high = low / factor, high * factor
    elif high - low <= 1e-9 * max(abs(low), abs(high), 1e-9):
        half = abs(low) * 0.05 or 1.0
        low, high = low - half, high + half
    else:
        low, high = low - room * (high - low), high + room * (high - low)
    if bounds[0] <= min(found) and max(found) <= bounds[1]:
        low, high = max(low, bounds[0]), min(high, bounds[1])
    return Scale(low=low, high=high, start=start, end=end, log=log)


def ticks(
    of: Scale, *, most: int = 6, whole: bool = False, text: Callable[[float], str] | None = None
) -> list[Tick]:
    """Round figures inside an axis, in rising order: 1, 2 or 5 times a power of ten apart.

    Args:
        of: the axis.
        most: how many at most.
        whole: only whole numbers, such as epochs.
        text: how a figure is written; None: with as many decimals as tell one tick from the next.

    >>> [tick.text for tick in ticks(Scale(low=0.0, high=1.1, start=0, end=100))]
    ['0.0', '0.2', '0.4', '0.6', '0.8', '1.0']
    >>> [tick.value for tick in ticks(Scale(low=200.0, high=80_000.0, start=0, end=1, log=True))]
    [300.0, 1000.0, 3000.0, 10000.0, 30000.0]
    """
    if of.log:
        found = _log_ticks(of.low, of.high, most)
        if len(found) >= 2:
            return [Tick(value=value, text=text(value) if text else f"{value:g}") for value in found]
    values: list[float] = []
    step = 1.0
    for step in _steps(of.high - of.low, most):
        if (whole and step < 1) or (of.high - of.low) / step > 2 * most:
            continue
        first = math.ceil(of.low / step - 1e-9)
        values = [number * step for number in range(first, math.floor(of.high / step + 1e-9) + 1)]
        if len(values) <= most:
            break
    return [Tick(value=value, text=text(value) if text else _written(value, step)) for value in values]


def _steps(stretch: float, most: int) -> Iterator[float]:
    """Ever larger ones, from the first of which not many more than ``most`` fit."""
    power = 10.0 ** math.floor(math.log10(stretch / most))
    while True:
        yield from (power, 2 * power, 5 * power)
        power *= 10


def _written(value: float, step: float) -> str:
    if step >= 1e6 or step < 1e-6:
        return f"{value:g}"
    text = f"{value:.{max(0, -math.floor(math.log10(step) + 1e-9))}f}"
    return text.removeprefix("-") if float(text) == 0 else text


def _log_ticks(low: float, high: float, most: int) -> list[float]:
    """Powers of ten; with 2, 5 and others between where these are few; every other one where they are many."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    found: list[float] = []
    for between in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 5, 7)):
        finer = [
            times * 10.0**power
            for power in range(first, last + 1)
            for times in between
            if low <= times * 10.0**power <= high
        ]
        if len(finer) > most:
            break
        found = finer
    if not found:
        powers = [10.0**power for power in range(first, last + 1) if low <= 10.0**power <= high]
        found = powers[:: math.ceil(len(powers) / most)] if powers else []
    return found
