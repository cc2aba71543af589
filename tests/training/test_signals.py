"""What of a teacher's answer is kept: the same for a row whatever stands beside it, and near enough to what was said."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from understudy.errors import BadInput, StageFailed
from understudy.training.signals import Signals

FORMS = [
    Signals(),
    Signals(dtype="float32"),
    Signals(top_k=3),
    Signals(top_k=3, dtype="float32"),
    Signals(top_k=7),
    Signals(top_k=1),
]


def logits(rows: int = 20, classes: int = 7, *, scale: float = 5.0, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(rows, classes, generator=generator) + 3


def heard(signals: Signals, said: Tensor) -> Tensor:
    return signals.decode(signals.encode(said), classes=said.shape[1])


def test_float32_keeps_logits_less_their_mean() -> None:
    said = logits()
    expected = said.double() - said.double().sum(1, keepdim=True) / 7
    assert torch.equal(heard(Signals(dtype="float32"), said), expected.float())


def test_float16_is_the_rounded_float32_form() -> None:
    said = logits()
    assert torch.equal(heard(Signals(), said), heard(Signals(dtype="float32"), said).half().float())


@given(st.integers(0, 1000), st.floats(0.01, 100), st.integers(2, 40))
def test_float16_is_off_by_at_most_one_part_in_two_thousand(seed: int, scale: float, classes: int) -> None:
    said = logits(8, classes, scale=scale, seed=seed)
    exact = heard(Signals(dtype="float32"), said)
    assert ((heard(Signals(), said) - exact).abs() <= exact.abs() / 2048 + 2.0**-25).all()


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_softmax_does_not_see_that_the_mean_is_gone(dtype: Any) -> None:
    said = logits()
    for temperature in (1.0, 4.0):
        expected = F.softmax(said / temperature, 1)
        found = F.softmax(heard(Signals(dtype=dtype), said) / temperature, 1)
        torch.testing.assert_close(found, expected, atol=2e-3, rtol=0)


@pytest.mark.parametrize("signals", FORMS)
def test_a_row_is_kept_alike_in_every_batch(signals: Signals) -> None:
    said = logits(33)
    whole = signals.encode(said)
    for order in (torch.arange(32, -1, -1), torch.tensor([5, 5, 0]), torch.tensor([17])):
        part = signals.encode(said[order])
        assert part.keys() == whole.keys()
        for name, kept in part.items():
            assert torch.equal(kept, whole[name][order]), name


@pytest.mark.parametrize("signals", FORMS)
def test_the_size_of_a_row_is_as_announced(signals: Signals) -> None:
    kept = signals.encode(logits())
    assert sum(part[0].nbytes for part in kept.values()) == signals.row_bytes(classes=7)


def test_top_k_keeps_the_largest_and_the_mass_of_the_others() -> None:
    said = logits(12, 10)
    found = heard(Signals(top_k=4, dtype="float32"), said)
    centred = said - said.mean(1, keepdim=True)
    for row in range(12):
        order = centred[row].argsort(descending=True)
        torch.testing.assert_close(found[row][order[:4]], centred[row][order[:4]])
        rest = math.log(sum(math.exp(value) for value in centred[row][order[4:]].tolist()) / 6)
        torch.testing.assert_close(found[row][order[4:]], torch.full((6,), rest))
    # at temperature 1 the probability of each kept class is right
    probabilities, expected = F.softmax(found, 1), F.softmax(said, 1)
    kept = found != found.min(1, keepdim=True).values
    torch.testing.assert_close(probabilities[kept], expected[kept])


def test_all_but_one_of_the_classes_are_all_of_them() -> None:
    said = logits()
    torch.testing.assert_close(
        heard(Signals(top_k=6, dtype="float32"), said), heard(Signals(dtype="float32"), said)
    )


def test_more_of_the_largest_come_nearer_to_the_truth() -> None:
    said = logits(200, 50)
    target = F.log_softmax(said / 4, 1)

    def distance(top_k: int | None) -> float:
        found = F.log_softmax(heard(Signals(top_k=top_k), said) / 4, 1)
        return float(F.kl_div(found, target, log_target=True, reduction="batchmean"))

    distances = [distance(top_k) for top_k in (1, 4, 16, 40, 49, None)]
    assert distances == sorted(distances, reverse=True)
    assert distances[-1] < 1e-5


def test_as_many_as_there_are_classes_is_the_form_without_top_k() -> None:
    assert Signals(top_k=7).definition(classes=7) == Signals().definition(classes=7)
    assert Signals(top_k=6).definition(classes=7) != Signals().definition(classes=7)


def test_the_room_on_the_disk_decides_no_result() -> None:
    assert Signals(max_gb=1).definition(classes=7) == Signals().definition(classes=7)


def test_many_classes_have_indices_that_can_name_them() -> None:
    said = torch.zeros(2, 40_000)
    said[0, 39_999], said[1, 33_000] = 9.0, 8.0
    found = heard(Signals(top_k=2), said)
    assert found.argmax(1).tolist() == [39_999, 33_000]


def test_what_is_too_large_for_float16_stays_finite() -> None:
    said = torch.tensor([[1e6, -1e6, 0.0]])
    found = heard(Signals(), said)
    assert torch.isfinite(found).all()
    assert found.argmax() == 0


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_an_answer_that_is_no_number_is_refused(bad: float) -> None:
    said = logits()
    said[3, 2] = bad
    with pytest.raises(StageFailed, match="not finite"):
        Signals().encode(said)


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"dtype": "int8"}, "float16, float32"),
        ({"top_k": 0}, "from 1 up"),
        ({"top_k": 2.5}, "from 1 up"),
        ({"top_k": True}, "from 1 up"),
        ({"max_gb": -1}, "0 or more"),
        ({"max_gb": math.nan}, "0 or more"),
    ],
)
def test_bad_settings_are_named(said: dict[str, Any], words: str) -> None:
    with pytest.raises(BadInput, match=words):
        Signals(**said)


def test_more_than_the_classes_is_refused_with_what_is_possible() -> None:
    Signals(top_k=7).check(classes=7)
    with pytest.raises(BadInput, match="top_k is 8 and there are 7 classes: it can be 1 to 7"):
        Signals(top_k=8).check(classes=7)
