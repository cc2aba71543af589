from __future__ import annotations

import json
import math
import subprocess
import sys
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from understudy.store.keys import canonical, hash_of_tensors, key_of

names = st.text(max_size=5)
leaves = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | names
values = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=4),
    max_leaves=12,
)
definitions = st.dictionaries(names, values, max_size=5)


def reordered(value: Any) -> Any:
    """The same with every mapping written down backwards and every list as a tuple."""
    if isinstance(value, dict):
        return {name: reordered(value[name]) for name in reversed(value)}
    if isinstance(value, list):
        return tuple(reordered(entry) for entry in value)
    return value


@settings(deadline=None, max_examples=40)
@given(definitions)
def test_a_key_depends_on_the_content_and_not_on_how_it_is_written(definition: dict[str, Any]) -> None:
    key = key_of(definition)
    assert key_of(reordered(definition)) == key
    assert key_of(json.loads(json.dumps(definition))) == key
    assert key_of(canonical(definition)) == key
    assert canonical(canonical(definition)) == canonical(definition)


@settings(deadline=None, max_examples=40)
@given(definitions, definitions)
def test_two_contents_have_two_keys(one: dict[str, Any], other: dict[str, Any]) -> None:
    same = json.dumps(canonical(one)) == json.dumps(canonical(other))
    assert (key_of(one) == key_of(other)) == same


def test_a_key_is_forty_hexadecimal_digits() -> None:
    key = key_of({"seed": 0})
    assert len(key) == 40
    assert set(key) <= set("0123456789abcdef")


def test_a_key_is_the_same_in_every_process() -> None:
    definition = {"teachers": ["a", "b"], "lr": 0.05, "names": {"x": 1, "y": None}}
    code = f"from understudy.store import key_of; print(key_of({definition!r}))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == key_of(definition)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"temperature": 4}, {"temperature": 4.0}),
        ({"weight": 0.0}, {"weight": -0.0}),
        ({"milestones": (0.5, 0.75)}, {"milestones": [0.5, 0.75]}),
        ({"lr": 0.1}, {"lr": 1e-1}),
    ],
    ids=str,
)
def test_one_meaning_has_one_key(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert key_of(one) == key_of(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"teachers": ["a", "b"]}, {"teachers": ["b", "a"]}),
        ({"seed": 1}, {"seed": "1"}),
        ({"flip": True}, {"flip": 1}),
        ({"ema": None}, {}),
        ({"ema": None}, {"ema": 0}),
        ({"lr": 0.1}, {"lr": 0.1 + 2**-56}),
        ({"a": {"b": 1}}, {"a": 1, "b": 1}),
        ({"a": [[], [1]]}, {"a": [[1], []]}),
    ],
    ids=str,
)
def test_another_meaning_has_another_key(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert key_of(one) != key_of(other)


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_a_number_that_equals_nothing_is_refused(number: float) -> None:
    with pytest.raises(ValueError, match=f"a definition cannot hold {number}"):
        key_of({"training": {"lr": [number]}})


def test_what_json_cannot_hold_is_refused_by_its_type() -> None:
    with pytest.raises(TypeError, match="a definition cannot hold Tensor"):
        key_of({"weights": torch.zeros(1)})
    with pytest.raises(TypeError, match=r"names in a definition are strings; got \[1\]"):
        key_of({"sizes": {1: 2}})


def test_a_hash_of_tensors_does_not_depend_on_the_layout_in_memory() -> None:
    weight = torch.randn(4, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    plain = hash_of_tensors({"weight": weight})
    assert hash_of_tensors({"weight": weight.to(memory_format=torch.channels_last)}) == plain
    assert hash_of_tensors({"weight": weight.permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0)}) == plain
    padded = torch.zeros(4, 3, 5, 9)
    padded[..., :5] = weight
    assert hash_of_tensors({"weight": padded[..., :5]}) == plain
    assert hash_of_tensors({"weight": torch.nn.Parameter(weight)}) == plain


def test_a_hash_of_tensors_does_not_depend_on_their_order() -> None:
    one, other = torch.zeros(2), torch.ones(3)
    assert hash_of_tensors({"a": one, "b": other}) == hash_of_tensors({"b": other, "a": one})


VARIANTS = {
    "values": {"a": torch.tensor([1.0, 2.0])},
    "other values": {"a": torch.tensor([1.0, 2.5])},
    "another order": {"a": torch.tensor([2.0, 1.0])},
    "the sign of zero": {"a": torch.tensor([1.0, -0.0])},
    "zero": {"a": torch.tensor([1.0, 0.0])},
    "another name": {"b": torch.tensor([1.0, 2.0])},
    "another type": {"a": torch.tensor([1.0, 2.0], dtype=torch.float64)},
    "another shape": {"a": torch.tensor([[1.0, 2.0]])},
    "half": {"a": torch.tensor([1.0, 2.0], dtype=torch.float16)},
    "brain": {"a": torch.tensor([1.0, 2.0], dtype=torch.bfloat16)},
    "whole numbers": {"a": torch.tensor([1, 2])},
    "truth": {"a": torch.tensor([True, False])},
    "a scalar": {"a": torch.tensor(1.0)},
    "nothing in it": {"a": torch.zeros(0)},
    "nothing in two dimensions": {"a": torch.zeros(0, 2)},
    "one more": {"a": torch.tensor([1.0, 2.0]), "b": torch.zeros(0)},
    "none": {},
}


def test_every_difference_between_tensors_changes_the_hash() -> None:
    assert len({hash_of_tensors(tensors) for tensors in VARIANTS.values()}) == len(VARIANTS)
    assert {hash_of_tensors(tensors) for tensors in VARIANTS.values()} == {
        hash_of_tensors({name: tensor.clone() for name, tensor in tensors.items()})
        for tensors in VARIANTS.values()
    }


def test_the_same_bytes_as_another_type_or_in_another_shape_are_another_tensor() -> None:
    ways = [
        torch.zeros(4, dtype=torch.float32),
        torch.zeros(4, dtype=torch.int32),
        torch.zeros(2, 2, dtype=torch.int32),
        torch.zeros(2, dtype=torch.int64),
        torch.zeros(8, dtype=torch.bfloat16),
        torch.zeros(8, dtype=torch.float16),
    ]
    assert len({hash_of_tensors({"a": tensor}) for tensor in ways}) == len(ways)
