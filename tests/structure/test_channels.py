from __future__ import annotations

import time

import numpy as np
import pytest
import torch
from torch import nn

from tests.structure.nets import NETWORKS, Row, conv, made, normed, stem
from understudy.errors import BadInput
from understudy.losses.resource import alive_cost, layer_resource_loss, resource_loss
from understudy.models import build
from understudy.structure.channels import Channels, kept, read_channels
from understudy.structure.cost import cost
from understudy.structure.shrinking import with_channels


def some(reading: Channels, seed: int, *, share: float = 0.6) -> np.ndarray:
    """A random half of the channels; now and then a whole group is gone."""
    stream = np.random.default_rng(seed)
    alive = stream.random(reading.count) < share
    for group in reading.groups:
        if stream.random() < 0.15:
            alive[group.start : group.start + len(group.rows)] = False
    return alive


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", NETWORKS)
def test_the_cost_is_that_of_the_network_that_is_really_made(name: str, seed: int) -> None:
    model, takes = made(name)
    reading = read_channels(model, **takes)
    alive = some(reading, seed)
    assert reading.cost_of(alive) == cost(with_channels(model, reading, alive, **takes), **takes)


@pytest.mark.parametrize("name", NETWORKS)
def test_with_all_channels_it_is_the_networks_own(name: str) -> None:
    model, takes = made(name)
    reading = read_channels(model, **takes)
    assert reading.cost_of(np.ones(reading.count, dtype=bool)) == reading.whole == cost(model, **takes)


def test_groups_are_called_by_the_layer_that_writes_them_first() -> None:
    model, takes = made("resnet")
    reading = read_channels(model, **takes)
    assert [group.name for group in reading.groups] == [
        "stem.conv",
        "stage1.0.conv1",
        "stage1.1.conv1",
        "stage2.0.conv1",
        "stage2.0.conv2",
        "stage2.1.conv1",
        "stage3.0.conv1",
        "stage3.0.conv2",
        "stage3.1.conv1",
    ]
    assert [len(group.rows) for group in reading.groups[:5]] == [8, 8, 8, 16, 16]
    assert [group.start for group in reading.groups[:4]] == [0, 8, 16, 24]
    assert reading.groups[1].numbers == range(8, 16)


def test_coefficients_are_multiply_adds_and_weights_of_one_pair() -> None:
    layer = nn.Conv2d(2, 4, 3, stride=2)
    model = nn.Sequential(layer, nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 6, 3))
    reading = read_channels(model, channels=2, size=(5, 8))
    by_name = {one.part.name: one for one in reading.layers}
    assert (by_name["0"].multiply_adds, by_name["0"].weights, by_name["0"].each) == (2 * 3 * 9, 9, 1)
    assert (by_name["1"].multiply_adds, by_name["1"].weights, by_name["1"].each) == (0, 0, 2)
    assert (by_name["4"].multiply_adds, by_name["4"].weights, by_name["4"].each) == (1, 1, 1)


def test_the_penalty_over_the_charges_is_the_sum_over_the_layers() -> None:
    """By hand for a plain network: image - conv 1 - conv 2 - flatten - linear."""
    model = nn.Sequential(
        conv(2, 4), nn.BatchNorm2d(4), conv(4, 3), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(3 * 36, 5)
    )
    reading = read_channels(model, channels=2, size=(6, 6))
    r = torch.tensor([1.0, 0.5, 0.0, 0.7, 2.0, 0.001, 0.3], dtype=torch.float64)
    none, options = torch.zeros(0), {"threshold": 0.01}
    expected = (
        layer_resource_loss(none, r[:4], coefficient=36 * 9, fixed_into=2, **options)
        + layer_resource_loss(r[:4], r[4:], coefficient=36 * 9, **options)
        + layer_resource_loss(r[4:].repeat_interleave(36), none, coefficient=1, fixed_out=5, **options)
    )
    assert float(resource_loss(r, reading.charges("multiply_adds"), threshold=0.01)) == pytest.approx(
        float(expected)
    )


@pytest.mark.parametrize("name", ["resnet", "mobilenet_v2", "concatenated", "flat"])
def test_charges_cost_what_the_reading_does(name: str) -> None:
    model, takes = made(name)
    reading = read_channels(model, **takes)
    alive = some(reading, 0)
    counted = float(alive_cost(torch.from_numpy(alive), reading.charges("multiply_adds")))
    assert counted + reading.other.multiply_adds == reading.cost_of(alive).multiply_adds


def test_weights_multiply_the_charges_of_a_layer() -> None:
    model, takes = made("resnet")
    reading = read_channels(model, **takes)
    weights = {layer.part.name: 2.0 for layer in reading.layers}
    r = torch.rand(reading.count, generator=torch.Generator().manual_seed(0))
    plain, doubled = (
        resource_loss(r, reading.charges("parameters", weights=said), threshold=0.01)
        for said in (None, weights)
    )
    assert float(doubled) == pytest.approx(2 * float(plain))


# ------------------------------------------------------------------------------------------- structures by numbers
def test_a_structure_and_numbers_are_two_ways_to_say_one_thing() -> None:
    model, takes = made("resnet")
    reading = read_channels(model, **takes)
    alive = some(reading, 1)
    assert np.array_equal(reading.alive(reading.kept(alive)), alive)


def test_a_group_that_is_not_named_stays_whole() -> None:
    model, takes = made("resnet")
    reading = read_channels(model, **takes)
    alive = reading.alive({"stage1.0.conv1": [0, 5]})
    assert int(alive.sum()) == reading.count - 6
    assert alive[[8, 13]].all()


@pytest.mark.parametrize(
    ("structure", "said"),
    [
        (
            {"stage1.0.conv3": [0]},
            "no channels to remove called 'stage1.0.conv3'. Did you mean 'stage1.0.conv1'?",
        ),
        ({"head": [0]}, "no channels to remove called 'head'"),
        (
            {"stage1.0.conv1": [0, 8]},
            "it keeps channel 8 of stage1.0.conv1, which has 8 that can be removed, 0 to 7",
        ),
    ],
)
def test_a_structure_of_another_network_is_refused(structure: dict[str, list[int]], said: str) -> None:
    model, takes = made("resnet")
    with pytest.raises(BadInput) as caught:
        read_channels(model, **takes).alive(structure)
    assert said in str(caught.value)


def test_groups_can_be_taken_as_fixed() -> None:
    model, takes = made("resnet")
    reading = read_channels(model, **takes)
    rest = reading.without(["stem.conv", "stage3.0.conv1"])
    assert rest.count == reading.count - 8 - 32
    assert rest.whole == rest.cost_of(np.ones(rest.count, dtype=bool))
    same = reading.alive({"stage1.0.conv1": []}), rest.alive({"stage1.0.conv1": []})
    assert reading.cost_of(same[0]) == rest.cost_of(same[1])
    with pytest.raises(BadInput):
        rest.alive({"stem.conv": [0]})


def test_what_cannot_be_removed_is_kept() -> None:
    assert kept(np.array([-3, 1, -1, 0]), np.array([False, True])).tolist() == [True, True, True, False]


def test_rows_of_one_layer_may_live_and_die_together() -> None:
    """The halves of a layer that are multiplied with each other."""
    model, takes = made("halves")
    group = read_channels(model, **takes).groups[-1]
    assert group.name == "body.layer.0"
    assert group.rows == (0, 1, 2, 3)


def test_a_layer_that_is_not_called_costs_its_parameters_and_stays() -> None:
    model = Row(stem(), normed(conv(4, 5)), 5)
    model.spare = nn.Conv2d(7, 9, 3)
    reading = read_channels(model, channels=2, size=(6, 6))
    assert "spare" not in {layer.part.name for layer in reading.layers}
    assert reading.other.parameters == 7 * 9 * 9 + 9


def test_a_deep_network_is_read_in_a_moment() -> None:
    model = build("resnet-110", classes=10)
    read_channels(model, channels=3, size=(32, 32))
    start = time.perf_counter()
    read_channels(model, channels=3, size=(32, 32))
    assert time.perf_counter() - start < 5  # 0.4 s on a quiet machine
