from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from understudy.losses.resource import (
    Charges,
    alive_cost,
    channel_prices,
    depthwise_resource_loss,
    layer_resource_loss,
    resource_loss,
)

INTO, OUT = [1.0, 0.5, 0.0], [2.0, 0.001]


def tensors(*, requires_grad: bool = False) -> tuple[Tensor, Tensor]:
    into = torch.tensor(INTO, dtype=torch.float64, requires_grad=requires_grad)
    return into, torch.tensor(OUT, dtype=torch.float64, requires_grad=requires_grad)


# ------------------------------------------------------------------------------------------------------- one layer
@pytest.mark.parametrize(
    ("coefficient", "expected"),
    [(2 * 4 * 4 * 9, 1584.576), (9, 49.518)],  # FLOPs of a 3x3 convolution with 4x4 outputs; its parameters
)
def test_the_known_values_of_one_convolution(coefficient: float, expected: float) -> None:
    into, out = tensors()
    loss = layer_resource_loss(into, out, coefficient=coefficient, threshold=0.01)
    assert float(loss) == pytest.approx(expected, rel=1e-12)


def test_the_alive_counts_have_no_gradient() -> None:
    into, out = tensors(requires_grad=True)
    layer_resource_loss(into, out, coefficient=9, threshold=0.01).backward()  # type: ignore[no-untyped-call]
    # 2 inputs and 1 output are alive: each magnitude is multiplied by the count of the other side, dead ones too
    assert into.grad is not None
    assert out.grad is not None
    assert into.grad.tolist() == [9.0] * 3
    assert out.grad.tolist() == [18.0] * 2


def test_the_image_has_no_magnitude_and_always_lives() -> None:
    out = torch.tensor([1.0, 2.0])
    loss = layer_resource_loss(torch.zeros(0), out, coefficient=4, threshold=0.01, fixed_into=3)
    assert float(loss) == 4 * 3 * 3.0


def test_the_classes_have_no_magnitude_either() -> None:
    loss = layer_resource_loss(
        torch.tensor([1.0, 2.0]), torch.zeros(0), coefficient=1, threshold=0.01, fixed_out=10
    )
    assert float(loss) == 10 * 3.0


def test_a_magnitude_at_the_threshold_is_dead() -> None:
    edge = torch.tensor([0.25])
    assert float(layer_resource_loss(edge, edge, coefficient=1, threshold=0.25)) == 0.0


def test_where_all_magnitudes_are_one_it_is_twice_the_cost() -> None:
    loss = layer_resource_loss(torch.ones(5), torch.ones(7), coefficient=11, threshold=0.01)
    assert float(loss) == 2 * 11 * 5 * 7


def test_a_depthwise_layer_charges_both_sides_by_themselves() -> None:
    r = torch.tensor([1.0, 0.5, 0.25], requires_grad=True)
    loss = depthwise_resource_loss(r, r, coefficient=9)
    assert float(loss.detach()) == 9 * 2 * 1.75
    loss.backward()  # type: ignore[no-untyped-call]
    assert r.grad is not None
    assert r.grad.tolist() == [18.0] * 3


# --------------------------------------------------------------------------------------------------- whole networks
def network() -> Charges:
    """Image (3) -> channels 0, 1 -> depthwise -> channels 2, 3, 4 -> linear with two columns each -> 10 classes."""
    double = torch.float64
    return Charges(
        out=torch.tensor([0, 1, 2, 3, 4]),
        out_layer=torch.tensor([0, 0, 1, 1, 1]),
        into=torch.tensor([0, 1, 2, 2, 3, 3, 4, 4]),
        into_layer=torch.tensor([1, 1, 2, 2, 2, 2, 2, 2]),
        fixed_out=torch.tensor([0, 0, 10], dtype=double),
        fixed_into=torch.tensor([3, 0, 0], dtype=double),
        coefficient=torch.tensor([36, 16, 1], dtype=double),
        own=torch.tensor([9, 9, 0, 0, 0], dtype=double),
    )


def by_hand(r: Tensor, threshold: float) -> Tensor:
    first, second = r[:2], r[2:]
    options = {"threshold": threshold}
    return (
        layer_resource_loss(torch.zeros(0), first, coefficient=36, fixed_into=3, **options)
        + depthwise_resource_loss(first, first, coefficient=9)
        + layer_resource_loss(first, second, coefficient=16, **options)
        + layer_resource_loss(
            second.repeat_interleave(2), torch.zeros(0), coefficient=1, fixed_out=10, **options
        )
    )


@pytest.mark.parametrize("seed", range(5))
def test_the_whole_network_is_the_sum_of_its_layers(seed: int) -> None:
    draws = torch.Generator().manual_seed(seed)
    r = (torch.rand(5, generator=draws, dtype=torch.float64) - 0.3).clamp(min=0)
    twins = [r.clone().requires_grad_(True) for _ in range(2)]
    losses = [resource_loss(twins[0], network(), threshold=0.2), by_hand(twins[1], 0.2)]
    torch.testing.assert_close(losses[0], losses[1])
    for twin, loss in zip(twins, losses, strict=True):
        loss.backward()  # type: ignore[no-untyped-call]
        assert twin.grad is not None
    torch.testing.assert_close(twins[0].grad, twins[1].grad)


def test_prices_are_what_the_cost_would_fall_by_for_the_first_to_go() -> None:
    """Apart from depthwise layers, which count twice, and as long as a channel has one entry in each layer."""
    charges = network()
    alive = torch.ones(5, dtype=torch.bool)
    prices = channel_prices(alive, charges)
    for channel in range(2):
        without = alive.clone()
        without[channel] = False
        saved = float(alive_cost(alive, charges) - alive_cost(without, charges))
        assert saved == float(prices[channel]) - float(charges.own[channel])


def test_the_cost_counts_living_pairs() -> None:
    alive = torch.tensor([True, False, True, True, False])
    assert float(alive_cost(alive, network())) == 36 * 3 * 1 + 9 * 1 + 16 * 1 * 2 + 1 * 4 * 10


def test_nothing_alive_costs_nothing_but_still_pulls_at_what_the_image_and_the_classes_hold() -> None:
    dead = torch.zeros(5, dtype=torch.bool)
    assert float(alive_cost(dead, network())) == 0
    assert channel_prices(dead, network()).tolist() == [36 * 3 + 18, 36 * 3 + 18, 20, 20, 20]


def test_the_loss_is_linear_in_the_coefficients() -> None:
    charges = network()
    doubled = Charges(**{**vars(charges), "coefficient": 2 * charges.coefficient, "own": 2 * charges.own})
    r = torch.rand(5, generator=torch.Generator().manual_seed(0))
    once, twice = (resource_loss(r, one, threshold=0.1) for one in (charges, doubled))
    assert math.isclose(float(twice), 2 * float(once), rel_tol=1e-6)


def test_the_number_format_of_the_magnitudes_is_kept() -> None:
    assert resource_loss(torch.ones(5), network(), threshold=0.01).dtype == torch.float32
