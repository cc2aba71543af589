from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.structure.nets import made
from understudy.errors import BadInput
from understudy.structure.structures import Structure, widths

ROWS = st.sets(st.integers(0, 500)).map(lambda rows: tuple(sorted(rows)))


@given(st.dictionaries(st.text(), ROWS))
def test_as_json_and_back_it_is_the_same(kept: dict[str, tuple[int, ...]]) -> None:
    structure = Structure(kept)
    assert Structure.from_dict(json.loads(json.dumps(structure.as_dict()))) == structure


def test_further_entries_are_passed_by() -> None:
    assert Structure.from_dict({"kept": {"a": [1]}, "version": 1}) == Structure({"a": (1,)})


@pytest.mark.parametrize("said", [None, [], {}, {"kept": [1]}, {"kept": None}])
def test_what_is_no_structure_is_refused(said: Any) -> None:
    with pytest.raises(BadInput, match="a structure is"):
        Structure.from_dict(said)


@pytest.mark.parametrize("rows", [3, "0", [1, 0], [0, 0], [-1], [0.5], [True], {"0": 1}])
def test_what_are_no_channels_is_refused(rows: Any) -> None:
    with pytest.raises(BadInput, match="a structure keeps rising channel numbers of each group; for 'stem'"):
        Structure.from_dict({"kept": {"stem": rows}})


def test_widths_are_those_of_all_layers_in_order() -> None:
    model, takes = made("mobilenet_v2")
    structure = Structure(
        {"stem.conv": (0, 1), "stage2.0.expand.conv": (3, 5, 7), "stage2.1.expand.conv": ()}
    )
    found = widths(model, structure, **takes)
    assert list(found)[:2] == ["stem.conv", "stage1.0.depthwise.conv"]
    assert found["stem.conv"] == found["stage1.0.depthwise.conv"] == (8, 2)
    assert found["stage2.0.expand.conv"] == found["stage2.0.depthwise.conv"] == (48, 3)
    assert found["stage2.1.expand.conv"] == (48, 0)
    assert found["stage7.0.project.conv"] == (80, 80)
    assert found["head"] == (3, 3)
