from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from understudy.errors import BadInput
from understudy.models.limits import check_halvings, check_shapes, check_width, scaled


@given(st.integers(1, 4096))
def test_width_one_changes_no_channel_count(count: int) -> None:
    assert scaled(count, 1.0) == count


@given(st.integers(1, 4096), st.floats(0.001, 16.0), st.floats(0.001, 16.0))
def test_channels_never_fall_as_width_grows(count: int, one: float, other: float) -> None:
    low, high = sorted((one, other))
    assert 1 <= scaled(count, low) <= scaled(count, high)


def test_halves_go_to_the_even_neighbour() -> None:
    assert scaled(5, 0.5) == 2
    assert scaled(7, 0.5) == 4


@pytest.mark.parametrize(
    "width", [0, 0.0, -1.0, float("nan"), float("inf"), -float("inf"), 1e9, 16.1, True, "0.5", None]
)
def test_an_impossible_width_is_refused_with_its_value(width: Any) -> None:
    with pytest.raises(BadInput, match="above 0 and at most 16") as caught:
        check_width(width)
    assert repr(width) in str(caught.value)


@pytest.mark.parametrize("width", [1e-6, 0.5, 1, 16])
def test_a_possible_width_passes(width: float) -> None:
    check_width(width)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"classes": 1}, "classes must be a whole number of at least 2, got 1"),
        ({"classes": 2.0}, "got 2.0"),
        ({"classes": True}, "got True"),
        ({"channels": 0}, "channels must be a whole number of at least 1, got 0"),
        ({"size": (0, 32)}, "height in size"),
        ({"size": (32, -1)}, "width in size"),
        ({"size": 32}, "size is (height, width)"),
        ({"size": (32,)}, "size is (height, width)"),
    ],
)
def test_impossible_shapes_are_refused(changed: dict[str, Any], said: str) -> None:
    shapes: dict[str, Any] = {"classes": 10, "channels": 3, "size": (32, 32), **changed}
    with pytest.raises(BadInput) as caught:
        check_shapes(**shapes)
    assert said in str(caught.value)


def test_an_image_that_pooling_would_use_up_is_refused_with_advice() -> None:
    check_halvings("net", 3, (8, 8), choose="another")
    with pytest.raises(BadInput) as caught:
        check_halvings("net", 4, (8, 20), choose="another")
    assert str(caught.value) == (
        "net halves the image 4 times and needs at least 16x16; the images are 8x20. Choose another, or larger images."
    )
