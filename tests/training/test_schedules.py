from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from understudy.training.schedules import END, RISE, START, factor

SCHEDULES = ["constant", "step", "cosine", "one_cycle"]


def factors(schedule: str, steps: int, **more: Any) -> list[float]:
    return [factor(schedule, step=step, steps=steps, **more) for step in range(steps)]


def test_constant_is_the_peak_rate_throughout() -> None:
    assert factors("constant", 5) == [1.0] * 5


def test_step_falls_at_its_fractions_of_the_steps() -> None:
    assert factors("step", 8, milestones=(0.5, 0.75), gamma=0.1) == pytest.approx(
        [1, 1, 1, 1, 0.1, 0.1, 0.01, 0.01]
    )


def test_step_is_the_schedule_of_resnets_on_cifar() -> None:
    # He et al. 2016 divide by 10 at half and at three quarters of the training: epochs 80 and 120 of 160.
    rates = factors("step", 160 * 391, milestones=(0.5, 0.75), gamma=0.1)
    assert [rates[epoch * 391] for epoch in (0, 79, 80, 119, 120, 159)] == pytest.approx(
        [1, 1, 0.1, 0.1, 0.01, 0.01]
    )
    assert rates[80 * 391 - 1] == 1.0


def test_step_without_milestones_is_constant() -> None:
    assert factors("step", 5, milestones=()) == [1.0] * 5


def test_cosine_is_half_a_wave_from_one_to_almost_nothing() -> None:
    assert factors("cosine", 4) == pytest.approx([1, (1 + math.sqrt(0.5)) / 2, 0.5, (1 - math.sqrt(0.5)) / 2])
    # what is left at the last step is the step after it short of zero
    assert factors("cosine", 1000)[-1] == pytest.approx((math.pi / 1000) ** 2 / 4, rel=1e-4)


def test_one_cycle_rises_falls_and_ends_where_it_says() -> None:
    rates = factors("one_cycle", 1000)
    assert rates[0] == pytest.approx(1 / START)
    assert rates[int(RISE * 1000)] == pytest.approx(1.0)
    assert max(rates) == pytest.approx(1.0)
    assert rates[-1] == pytest.approx(1 / END)
    peak = rates.index(max(rates))
    assert peak == RISE * 1000
    assert rates[: peak + 1] == sorted(rates[: peak + 1])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)


def test_one_cycle_is_half_way_down_in_the_middle_of_its_fall() -> None:
    rates = factors("one_cycle", 1001)
    middle = (RISE * 1001 + 1000) / 2
    around = (rates[math.floor(middle)] + rates[math.ceil(middle)]) / 2
    assert around == pytest.approx((1 + 1 / END) / 2, abs=2e-3)


def test_warm_up_rises_evenly_and_then_the_schedule_takes_the_steps_left() -> None:
    assert factors("constant", 6, warmup_steps=4) == pytest.approx([0.25, 0.5, 0.75, 1, 1, 1])
    assert factors("cosine", 8, warmup_steps=4)[4:] == pytest.approx(factors("cosine", 4))


def test_milestones_count_the_warm_up() -> None:
    rates = factors("step", 8, warmup_steps=2, milestones=(0.5,), gamma=0.1)
    assert rates == pytest.approx([0.5, 1, 1, 1, 0.1, 0.1, 0.1, 0.1])


def test_a_training_may_be_warm_up_alone() -> None:
    assert factors("cosine", 4, warmup_steps=4) == pytest.approx([0.25, 0.5, 0.75, 1])


@settings(deadline=None)
@given(
    schedule=st.sampled_from(SCHEDULES),
    steps=st.integers(1, 300),
    warmup=st.floats(0, 1),
    milestones=st.lists(st.floats(0.01, 0.99), max_size=4, unique=True).map(sorted),
    gamma=st.floats(0.01, 1),
)
def test_a_rate_is_positive_and_never_above_its_peak(
    schedule: str, steps: int, warmup: float, milestones: list[float], gamma: float
) -> None:
    rates = factors(schedule, steps, warmup_steps=round(warmup * steps), milestones=milestones, gamma=gamma)
    assert all(0 < rate <= 1 + 1e-12 for rate in rates)


@settings(deadline=None)
@given(
    schedule=st.sampled_from(["constant", "cosine", "one_cycle"]),
    steps=st.integers(10, 2000),
    warmup=st.floats(0, 0.5),
)
def test_a_rate_makes_no_jumps(schedule: str, steps: int, warmup: float) -> None:
    warmup_steps = round(warmup * steps) if schedule != "one_cycle" else 0
    rates = factors(schedule, steps, warmup_steps=warmup_steps)
    rise = max(1 / warmup_steps if warmup_steps else 0, 1 / (RISE * steps))
    fall = math.pi / 2 / min(steps - warmup_steps, (1 - RISE) * steps - 1)
    jumps = [abs(after - before) for before, after in pairwise(rates)]
    assert max(jumps) <= max(rise, fall) * 1.01


@pytest.mark.parametrize("step", [-1, 5, 6])
def test_a_step_outside_of_the_training_is_refused(step: int) -> None:
    with pytest.raises(ValueError, match=f"step {step} is outside a training of 5 steps"):
        factor("cosine", step=step, steps=5)


def test_an_unknown_schedule_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(ValueError, match="unknown schedule 'linear': constant, step, cosine or one_cycle"):
        factor("linear", step=0, steps=5)
