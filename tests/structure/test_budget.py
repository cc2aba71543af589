from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from understudy.errors import BadInput
from understudy.structure.budget import Budget, Limits, shown
from understudy.structure.cost import Cost

OWN = Cost(parameters=1_000_000, multiply_adds=40_000_000)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("20MMAC", 20_000_000),
        ("20 MMAC", 20_000_000),
        ("20mmacs", 20_000_000),
        ("0.02GMAC", 20_000_000),
        (".5MMAC", 500_000),
        ("1.5GMAC", 1_500_000_000),
        ("12kMAC", 12_000),
        ("999 MAC", 999),
        ("0.5x", 0.5),
        ("0.5 x", 0.5),
        ("1x", 1.0),
        ("0.5×", 0.5),
    ],
)
def test_multiply_adds_are_read(text: str, number: float) -> None:
    assert Budget(multiply_adds=text).definition() == {"multiply_adds": number}


@pytest.mark.parametrize(
    ("text", "number"), [("300k", 300_000), ("1.2M", 1_200_000), ("2B", 2 * 10**9), ("0.19x", 0.19)]
)
def test_parameters_are_read(text: str, number: float) -> None:
    assert Budget(parameters=text).definition() == {"parameters": number}


def test_a_number_that_is_none_is_refused() -> None:
    with pytest.raises(BadInput, match="is more than any network has"):
        Budget(parameters="9" * 400 + "k")


@given(st.integers(1, 10**15))
def test_a_number_with_its_unit_is_that_number(number: int) -> None:
    assert Budget(multiply_adds=f"{number}MAC").definition() == {"multiply_adds": number}


@pytest.mark.parametrize(
    ("what", "text", "said"),
    [
        ("multiply_adds", "20M", "multiply_adds '20M' has no unit"),
        ("multiply_adds", "20", "multiply_adds '20' has no unit"),
        ("multiply_adds", 0.5, "multiply_adds 0.5 has no unit (is it 0.5x?)"),
        ("multiply_adds", 20000000, "multiply_adds 20000000 has no unit (is it 20MMAC?)"),
        ("multiply_adds", "20MFLOPs", "one is two FLOPs, so 40MFLOPs are 20MMAC"),
        ("multiply_adds", "20TMAC", "multiply_adds '20TMAC' has an unknown unit 'TMAC'"),
        ("multiply_adds", "half", "multiply_adds 'half' cannot be read"),
        ("multiply_adds", "-1x", "multiply_adds '-1x' cannot be read"),
        ("multiply_adds", "0x", "multiply_adds '0x' is no share of the network's own, in (0x, 1x]"),
        ("multiply_adds", "1.5x", "multiply_adds '1.5x' is no share"),
        ("multiply_adds", True, "multiply_adds True cannot be read"),
        ("parameters", "300", "parameters '300' has no unit"),
        ("parameters", 300000, "parameters 300000 has no unit (is it 300k?)"),
        ("parameters", "20MMAC", "parameters '20MMAC' has an unknown unit 'MMAC'"),
        ("parameters", "0k", "parameters '0k' is less than one"),
    ],
)
def test_what_cannot_be_read_is_said_in_one_line(what: str, text: Any, said: str) -> None:
    with pytest.raises(BadInput) as caught:
        Budget(**{what: text})
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_empty_budget_is_refused() -> None:
    with pytest.raises(BadInput, match="limits multiply_adds, parameters or both"):
        Budget()


def test_shares_are_of_the_networks_own_and_round_down() -> None:
    limits = Budget(multiply_adds="0.5x", parameters="0.3333333x").limits(OWN)
    assert limits == Limits(multiply_adds=20_000_000, parameters=333_333)


@pytest.mark.parametrize("share", ["0.1x", "0.19x", "0.29x", "0.57x", "0.58x", "1x"])
def test_rounding_takes_nothing_from_a_share_that_is_whole(share: str) -> None:
    assert Budget(parameters=share).limits(OWN).parameters == round(float(share[:-1]) * OWN.parameters)


def test_a_budget_above_the_networks_own_is_refused() -> None:
    with pytest.raises(BadInput) as caught:
        Budget(multiply_adds="50MMAC").limits(OWN)
    assert "multiply_adds '50MMAC' is more than the network has: 40.0 MMAC" in str(caught.value)


def test_all_of_it_is_allowed() -> None:
    assert Budget(multiply_adds="40MMAC").limits(OWN) == Limits(multiply_adds=40_000_000)


def test_less_than_one_is_refused() -> None:
    with pytest.raises(BadInput, match="leaves none"):
        Budget(parameters="0.0000001x").limits(OWN)


def test_both_limits_must_hold() -> None:
    limits = Limits(multiply_adds=20_000_000, parameters=500_000)
    assert limits.hold(Cost(multiply_adds=20_000_000, parameters=500_000))
    assert not limits.hold(Cost(multiply_adds=1, parameters=500_001))
    assert limits.share(Cost(multiply_adds=10_000_000, parameters=450_000)) == 0.9


def test_what_is_shown_has_units() -> None:
    assert shown("multiply_adds", 7_801_405_440) == "7.8 GMAC"
    assert shown("parameters", 2_351_972) == "2.4 M parameters"
    assert shown("multiply_adds", 12) == "12 MAC"


def test_reading_a_budget_does_not_import_torch() -> None:
    import subprocess
    import sys

    program = (
        "import sys, understudy.structure.budget, understudy.structure.structures; "
        "assert not {'torch', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
