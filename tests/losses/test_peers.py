"""Peers against sums written in numpy, what gets a gradient, and the two schedules."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from understudy.losses.peers import (
    ema_factor,
    ensemble_to_peers_loss,
    mean_teachers_to_peers_loss,
    ramp,
)

NAMES = ["ensemble_soft", "mean_teachers_soft"]


def terms_of(z: Tensor, z_e: Tensor, z_t: Tensor, *, temperature: float) -> dict[str, Tensor]:
    return {
        "ensemble_soft": ensemble_to_peers_loss(z, z_e, temperature=temperature),
        "mean_teachers_soft": mean_teachers_to_peers_loss(z, z_t, temperature=temperature),
    }


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return 2 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def log_softmax(z: NDArray[np.float64]) -> NDArray[np.float64]:
    return z - np.log(np.exp(z).sum())


def divergence(teacher: NDArray[np.float64], student: NDArray[np.float64], temperature: float) -> float:
    log_p, log_q = log_softmax(teacher / temperature), log_softmax(student / temperature)
    return temperature**2 * float((np.exp(log_p) * (log_p - log_q)).sum())


def by_hand(z: Tensor, z_e: Tensor, z_t: Tensor, temperature: float) -> dict[str, list[float]]:
    peers, ensemble, means = z.numpy(), z_e.numpy(), z_t.numpy()
    m, batch, _ = peers.shape
    found: dict[str, list[float]] = {name: [] for name in NAMES}
    for b in range(batch):
        found["ensemble_soft"].append(
            sum(divergence(ensemble[b], peers[j, b], temperature) for j in range(m))
        )
        found["mean_teachers_soft"].append(
            sum(
                divergence(means[k, b], peers[j, b], temperature) / (m - 1)
                for j in range(m)
                for k in range(m)
                if k != j
            )
        )
    return found


@pytest.mark.parametrize("temperature", [1.0, 3.0])
@pytest.mark.parametrize("m", [2, 3, 5])
def test_equals_the_sums_written_by_hand(m: int, temperature: float) -> None:
    z, z_e, z_t = drawn(m, 6, 5), drawn(6, 5, seed=1), drawn(m, 6, 5, seed=2)
    terms = terms_of(z, z_e, z_t, temperature=temperature)
    expected = by_hand(z, z_e, z_t, temperature)
    assert list(terms) == NAMES
    for name, values in terms.items():
        torch.testing.assert_close(
            values, torch.tensor(expected[name], dtype=torch.float64), rtol=1e-7, atol=1e-9
        )
    single = terms_of(z.float(), z_e.float(), z_t.float(), temperature=temperature)
    for name, values in single.items():
        torch.testing.assert_close(values.tolist(), expected[name], rtol=1e-4, atol=1e-4)


def test_soft_terms_are_zero_at_agreement() -> None:
    agreed = drawn(8, 10)
    z = agreed + torch.tensor([0.0, 3.0, -1.0], dtype=torch.float64).view(3, 1, 1)
    terms = terms_of(z, agreed, z.flip(0), temperature=3.0)
    for name in ("ensemble_soft", "mean_teachers_soft"):
        torch.testing.assert_close(terms[name], torch.zeros(8, dtype=torch.float64), atol=1e-12, rtol=0)


def test_a_peer_is_not_taught_by_its_own_mean() -> None:
    z, z_t = drawn(2, 4, 5), drawn(2, 4, 5, seed=2)
    # two peers: each agrees with the other's mean, however far from its own
    loss = mean_teachers_to_peers_loss(z, z.flip(0), temperature=3.0)
    assert torch.equal(loss, torch.zeros(4, dtype=torch.float64))
    z3 = torch.cat([z, drawn(1, 4, 5, seed=3)]).requires_grad_()
    means = torch.cat([z_t, drawn(1, 4, 5, seed=4)])
    mean_teachers_to_peers_loss(z3, means, temperature=3.0).sum().backward()
    before, z3.grad = z3.grad, None
    means[1] += drawn(4, 5, seed=5)
    mean_teachers_to_peers_loss(z3, means, temperature=3.0).sum().backward()
    assert before is not None
    assert z3.grad is not None
    changed = (before - z3.grad).abs().amax((1, 2)) > 1e-6
    assert changed.tolist() == [True, False, True]


def test_the_order_of_the_peers_does_not_matter() -> None:
    z, z_e, z_t = drawn(4, 6, 5), drawn(6, 5, seed=1), drawn(4, 6, 5, seed=2)
    order = [2, 0, 3, 1]
    terms = terms_of(z, z_e, z_t, temperature=3.0)
    again = terms_of(z[order], z_e, z_t[order], temperature=3.0)
    for name in NAMES:
        torch.testing.assert_close(terms[name], again[name])


def test_more_mean_teachers_of_one_opinion_weigh_no_more() -> None:
    z, opinion = drawn(4, 6, 5), drawn(6, 5, seed=1)
    loss = mean_teachers_to_peers_loss(z, opinion.expand(4, 6, 5), temperature=3.0)
    torch.testing.assert_close(loss, ensemble_to_peers_loss(z, opinion, temperature=3.0))


def test_gradients_flow_only_where_they_should() -> None:
    z, z_e, z_t = (
        one.requires_grad_() for one in (drawn(3, 4, 5), drawn(4, 5, seed=1), drawn(3, 4, 5, seed=2))
    )
    terms = terms_of(z, z_e, z_t, temperature=3.0)

    def reaches(name: str, tensor: Tensor) -> bool:
        if not terms[name].requires_grad:
            return False
        (slope,) = torch.autograd.grad(terms[name].sum(), tensor, retain_graph=True, allow_unused=True)
        return slope is not None and bool(slope.abs().sum() > 0)

    assert [name for name in NAMES if reaches(name, z)] == NAMES
    assert [name for name in NAMES if reaches(name, z_e) or reaches(name, z_t)] == []


def test_the_gradient_is_that_of_the_values() -> None:
    z, z_e, z_t = drawn(3, 2, 4).requires_grad_(), drawn(2, 4, seed=1), drawn(3, 2, 4, seed=2)

    def total(peers: Tensor) -> Tensor:
        return torch.stack(list(terms_of(peers, z_e, z_t, temperature=3.0).values())).sum(0)

    assert torch.autograd.gradcheck(total, (z,))


def test_nothing_that_is_given_is_changed() -> None:
    given_ones = drawn(3, 4, 5), drawn(4, 5, seed=1), drawn(3, 4, 5, seed=2)
    before = [one.clone() for one in given_ones]
    terms_of(*given_ones, temperature=3.0)
    assert all(torch.equal(one, kept) for one, kept in zip(given_ones, before, strict=True))


def test_wrong_shapes_are_named() -> None:
    z = torch.zeros(3, 4, 5)
    with pytest.raises(ValueError, match=r"of one peer or more; got \(4, 5\)"):
        ensemble_to_peers_loss(torch.zeros(4, 5), torch.zeros(4, 5), temperature=3.0)
    with pytest.raises(ValueError, match=r"ensemble_logits \(batch, classes\); got \(3, 4, 5\) and \(4, 6\)"):
        ensemble_to_peers_loss(z, torch.zeros(4, 6), temperature=3.0)
    with pytest.raises(ValueError, match=r"both \(peers, batch, classes\); got \(3, 4, 5\) and \(2, 4, 5\)"):
        mean_teachers_to_peers_loss(z, torch.zeros(2, 4, 5), temperature=3.0)
    with pytest.raises(ValueError, match="there are two or more; got 1"):
        mean_teachers_to_peers_loss(z[:1], z[:1], temperature=3.0)
    with pytest.raises(ValueError, match="temperature is positive; got 0"):
        ensemble_to_peers_loss(z, z[0], temperature=0.0)


# ----------------------------------------------------------------------------------------------------- schedules
@pytest.mark.parametrize(
    ("epoch", "value"),
    [(0, 0.00674), (1, 0.00763), (10, 0.02175), (40, 0.28650), (79, 0.99922), (80, 1), (300, 1)],
)
def test_the_ramp_has_the_published_length(epoch: int, value: float) -> None:
    assert ramp(epoch, length=80) == pytest.approx(value, abs=5e-6)
    assert ramp(epoch, length=80, weight=0.5) == pytest.approx(value / 2, abs=5e-6)


@given(first=st.floats(0, 100), second=st.floats(0, 100), length=st.floats(0, 90))
def test_the_ramp_never_falls_and_ends_at_its_weight(first: float, second: float, length: float) -> None:
    early, late = sorted((first, second))
    assert 0 <= ramp(early, length=length) <= ramp(late, length=length) <= 1
    assert ramp(length, length=length, weight=2.5) == 2.5


@pytest.mark.parametrize(
    ("epoch", "value"),
    [(0, math.exp(-5)), (1, 1.0), (2, math.exp(-5)), (3, math.exp(-20)), (40, 0.0), (80, 0.0), (81, 1.0)],
)
def test_the_slip_of_the_public_code_divides_by_the_weight(epoch: int, value: float) -> None:
    assert ramp(epoch, length=80, divisor="weight") == pytest.approx(value, rel=1e-12)


def test_the_slip_at_another_weight_moves_the_early_peak_there() -> None:
    found = [ramp(epoch, length=80, weight=2.0, divisor="weight") for epoch in (0, 1, 2, 4, 80, 81)]
    assert found == pytest.approx([2 * math.exp(-5), 2 * math.exp(-1.25), 2, 2 * math.exp(-5), 0, 2])
    assert {ramp(epoch, length=80, weight=0.0, divisor="weight") for epoch in (0, 1, 81)} == {0}


def test_a_divisor_is_one_of_two() -> None:
    with pytest.raises(ValueError, match="divisor is one of length, weight; got 'epochs'"):
        ramp(0, length=80, divisor="epochs")  # type: ignore[arg-type]


def test_without_a_length_there_is_no_ramp() -> None:
    assert ramp(0, length=0) == ramp(0, length=0, divisor="weight") == 1
    for wrong in ({"epoch": -1, "length": 80}, {"epoch": 0, "length": -80}):
        with pytest.raises(ValueError, match=r"is 0 or more; got -"):
            ramp(**wrong)
    with pytest.raises(ValueError, match="length is 0 or more; got nan"):
        ramp(0, length=math.nan)


def test_the_factor_begins_with_a_copy_and_ends_at_its_most() -> None:
    assert ema_factor(1) == 0
    assert ema_factor(2) == 0.5
    assert ema_factor(999) < 0.999
    assert ema_factor(1000) == ema_factor(10**9) == 0.999
    assert ema_factor(10**9, most=0.5) == 0.5


def test_until_then_the_mean_is_the_plain_average() -> None:
    weights, mean = drawn(20), torch.tensor(math.pi, dtype=torch.float64)
    for step, weight in enumerate(weights, start=1):
        keep = ema_factor(step)
        mean = keep * mean + (1 - keep) * weight
        torch.testing.assert_close(mean, weights[:step].mean())


def test_wrong_steps_are_named() -> None:
    with pytest.raises(ValueError, match="step counts from 1; got 0"):
        ema_factor(0)
    with pytest.raises(ValueError, match=r"most lies in \[0, 1\]; got 1.5"):
        ema_factor(1, most=1.5)
