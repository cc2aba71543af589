from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.structure.nets import NETWORKS, Gated, conv, images, made, normed, row, shaken
from understudy.errors import BadInput
from understudy.models import build
from understudy.structure.budget import Budget, shown
from understudy.structure.channels import read_channels
from understudy.structure.choosing import Choice, choose, smallest_cost
from understudy.structure.cost import cost
from understudy.structure.dropped import NoChannels
from understudy.structure.exactness import answers_depend_on_image
from understudy.structure.magnitudes import Magnitudes
from understudy.structure.shrinking import shrunk, silenced


@torch.no_grad()
def uneven(name: str, *, seed: int = 0) -> tuple[nn.Module, dict[str, Any]]:
    """A network whose layers are of very different strength, so that some of them go first."""
    model, takes = made(name, seed=seed)
    draws = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            strength = float(torch.rand((), generator=draws)) ** 2
            module.weight.copy_(torch.rand(module.weight.shape, generator=draws) * strength)
    return model, takes


def checked(model: nn.Module, found: Choice, takes: dict[str, Any]) -> nn.Module:
    """What must hold of any choice: the network is made, costs what was said, and is the large one silenced."""
    small = shrunk(model, found.structure, **takes)
    assert cost(small, **takes) == found.cost
    assert found.limits.hold(found.cost)
    assert answers_depend_on_image(small, **takes)
    example = images(2, **takes).double()
    with torch.no_grad():
        expected = silenced(model, found.structure, **takes).double()(example)
        torch.testing.assert_close(small.double()(example), expected, rtol=1e-9, atol=1e-9)
    return small


BUDGETS = [
    {"multiply_adds": "0.5x"},
    {"parameters": "0.3x"},
    {"multiply_adds": "0.6x", "parameters": "0.4x"},
]


@pytest.mark.parametrize("budget", BUDGETS, ids=str)
@pytest.mark.parametrize("name", NETWORKS)
def test_the_result_is_within_the_budget_and_near_it(name: str, budget: dict[str, str]) -> None:
    model, takes = uneven(name)
    asked = Budget(**budget)
    if not asked.limits(cost(model, **takes)).hold(smallest_cost(model, **takes)):
        with pytest.raises(BadInput, match="is less than the network can be made"):
            choose(model, asked, **takes)
        return  # a tiny network with much that cannot go
    found = choose(model, asked, **takes)
    checked(model, found, takes)
    if found.share < 0.98:
        assert any("is the nearest below it that was found" in sentence for sentence in found.notes)


@pytest.mark.parametrize("name", ["plain_cnn", "resnet", "wrn", "vgg", "mobilenet_v2"])
def test_networks_of_usual_size_come_within_two_per_cent(name: str) -> None:
    model = {
        "plain_cnn": lambda: build("plain_cnn-4", classes=10),
        "resnet": lambda: build("resnet-14", classes=10),
        "wrn": lambda: build("wrn-16-2", classes=10),
        "vgg": lambda: build("vgg-8", classes=10, width=0.5),
        "mobilenet_v2": lambda: build("mobilenet_v2", classes=10),
    }[name]()
    shaken(model)
    for budget in (Budget(multiply_adds="0.5x"), Budget(parameters="0.19x")):
        found = choose(model, budget, channels=3, size=(32, 32))
        assert 0.98 <= found.share <= 1
        assert found.reached == {
            "multiply_adds": found.cost.multiply_adds,
            "parameters": found.cost.parameters,
        }


def test_a_share_and_its_number_are_the_same_budget() -> None:
    model, takes = uneven("resnet")
    whole = cost(model, **takes)
    number = Budget(multiply_adds=f"{whole.multiply_adds // 2}MAC")
    assert choose(model, number, **takes) == choose(model, Budget(multiply_adds="0.5x"), **takes)


def test_the_whole_network_is_a_structure_too() -> None:
    model, takes = uneven("resnet")
    found = choose(model, Budget(multiply_adds="1x"), **takes)
    assert found.kept == found.channels
    assert found.cost == found.whole
    assert found.threshold == 0.0


def test_one_threshold_parts_the_weak_from_the_strong() -> None:
    """Without its last step, that is: what came back lies below the threshold, and is the strongest that fitted."""
    model, takes = made("plain_cnn")
    reading = read_channels(model, **takes)
    with torch.no_grad():
        r = Magnitudes(reading, model)(model).numpy()
    found = choose(model, Budget(multiply_adds="0.5x"), **takes)
    alive = reading.alive(found.structure.kept)
    assert alive[r > found.threshold].all()
    back = alive & (r <= found.threshold)
    assert back.sum() <= 5
    without = alive & ~back
    assert found.limits.hold(reading.cost_of(without))
    # it is the smallest threshold: the next weaker one would leave too much
    dead = np.sort(r[r <= found.threshold])
    assert not found.limits.hold(reading.cost_of(r > dead[-2]))


def test_a_network_that_was_never_trained_becomes_narrower_everywhere() -> None:
    model = build("resnet-14", classes=10)
    found = choose(model, Budget(multiply_adds="0.5x"), channels=3, size=(32, 32))
    groups = {group.name: group.rows for group in read_channels(model, channels=3, size=(32, 32)).groups}
    shares = [len(found.structure.kept[name]) / len(rows) for name, rows in groups.items()]
    assert max(shares) - min(shares) < 0.07
    assert all(0.6 < share < 0.8 for share in shares)  # about the root of a half


def test_evenly_means_whatever_the_weights_say() -> None:
    model, takes = uneven("resnet")
    again, _ = uneven("resnet", seed=1)
    found = choose(model, Budget(parameters="0.3x"), evenly=True, **takes)
    assert found.structure == choose(again, Budget(parameters="0.3x"), evenly=True, **takes).structure
    assert found.structure != choose(model, Budget(parameters="0.3x"), **takes).structure
    checked(model, found, takes)
    least = Budget(parameters=f"{smallest_cost(model, **takes).parameters / 1000}k")
    assert choose(model, least, **takes).limits.parameters
    with pytest.raises(BadInput, match="is less than the network can be made"):  # no group becomes empty
        choose(model, least, evenly=True, **takes)


def test_strong_channels_stay_and_weak_ones_go() -> None:
    model, takes = made("resnet")
    with torch.no_grad():
        weight = model.get_submodule("stage3.0.norm1").get_parameter("weight")
        weight[::2] = 1e-4
        weight[1::2] = 5.0
    found = choose(model, Budget(multiply_adds="0.9x"), **takes)
    assert found.structure.kept["stage3.0.conv1"] == tuple(range(1, 32, 2))
    assert found.dead == 16
    assert found.alive_before.parameters < found.whole.parameters


# ------------------------------------------------------------------------------------------ groups without channels
@torch.no_grad()
def weak(model: nn.Module, *norms: str) -> nn.Module:
    for name in norms:
        model.get_submodule(name).get_parameter("weight").fill_(1e-6)
    return model


def test_a_weak_branch_is_dropped() -> None:
    model, takes = made("resnet")
    weak(model, "stage2.1.norm1")
    found = choose(model, Budget(multiply_adds="0.8x"), **takes)
    assert found.structure.kept["stage2.1.conv1"] == ()
    assert "of 1 of 9 groups nothing is left: stage2.1.conv1" in found.notes
    small = checked(model, found, takes)
    assert isinstance(small.get_submodule("stage2.1.conv1"), NoChannels)


def test_what_only_fed_a_dropped_layer_goes_with_it() -> None:
    model, takes = made("gated")
    weak(model, "body.conv1.1")
    found = choose(model, Budget(multiply_adds="0.2x"), **takes)
    assert found.structure.kept["body.conv1.0"] == ()
    assert found.structure.kept["body.squeeze"] == ()
    checked(model, found, takes)


def test_where_all_goes_through_a_layer_its_strongest_channel_stays() -> None:
    model, takes = made("resnet")
    norms = ["stem.norm", "stage1.0.norm2", "stage1.1.norm2"]
    weak(model, *norms)
    with torch.no_grad():
        model.get_submodule("stage1.0.norm2").get_parameter("weight")[5] = 2e-6
    found = choose(model, Budget(multiply_adds="0.5x"), **takes)
    assert 5 in found.structure.kept["stem.conv"]
    checked(model, found, takes)
    least = choose(model, Budget(multiply_adds="0.05x"), **takes)
    assert least.structure.kept["stem.conv"] == (5,)


def test_one_of_two_branches_stays() -> None:
    model, takes = made("branches")
    weak(model, "body.left.0.1", "body.right.0.1")
    with torch.no_grad():
        model.get_submodule("body.right.0.1").get_parameter("weight")[1] = 2e-6
    found = choose(model, Budget(multiply_adds="0.3x"), **takes)
    assert found.structure.kept["body.left.0.0"] == ()
    assert 1 in found.structure.kept["body.right.0.0"]
    checked(model, found, takes)


class PooledInCode(Gated):
    """Its code pools what is left of a dropped branch by itself, and pooling takes no empty tensor."""

    def forward(self, features: Tensor) -> Tensor:
        inner = nn.functional.max_pool2d(self.conv1(features), 1)
        out: Tensor = self.norm2(self.conv2(inner)) + features
        return out


def test_where_a_network_does_not_run_without_a_group_each_keeps_one_channel() -> None:
    model, takes = shaken(row(PooledInCode, 4)()), {"channels": 2, "size": (6, 6)}
    weak(model, "body.conv1.1")
    found = choose(model, Budget(multiply_adds="0.2x"), **takes)
    assert len(found.structure.kept["body.conv1.0"]) >= 1
    assert any("one channel of each group stays" in sentence for sentence in found.notes)
    checked(model, found, takes)


# ---------------------------------------------------------------------------------------------- what cannot be done
def test_a_budget_above_the_networks_own_is_refused() -> None:
    model, takes = made("resnet")
    with pytest.raises(BadInput, match="multiply_adds '1GMAC' is more than the network has"):
        choose(model, Budget(multiply_adds="1GMAC"), **takes)


@pytest.mark.parametrize("name", ["plain_cnn", "resnet", "grouped"])
def test_a_budget_below_the_smallest_is_refused_with_the_smallest(name: str) -> None:
    model, takes = uneven(name)
    least = smallest_cost(model, **takes)
    with pytest.raises(BadInput) as caught:
        choose(model, Budget(parameters=f"{(least.parameters - 1) / 1000}k"), **takes)
    least_said = shown("parameters", least.parameters)
    assert f"is less than the network can be made: {least_said} at least" in str(caught.value)
    reached = choose(model, Budget(parameters=f"{least.parameters / 1000}k"), **takes)
    assert reached.cost.parameters == least.parameters


def test_the_smallest_of_a_plain_row_is_one_channel_everywhere() -> None:
    model = nn.Sequential(normed(conv(2, 8)), normed(conv(8, 8)), nn.Flatten(), nn.Linear(8 * 16, 3))
    one = nn.Sequential(normed(conv(2, 1)), normed(conv(1, 1)), nn.Flatten(), nn.Linear(16, 3))
    takes: dict[str, Any] = {"channels": 2, "size": (4, 4)}
    assert smallest_cost(model, **takes) == cost(one, **takes)


def test_blocks_of_weight_zero_keep_their_channels() -> None:
    model, takes = uneven("resnet")
    found = choose(model, Budget(multiply_adds="0.6x"), blocks={"stage1": 0, "stage3": 2.0}, **takes)
    assert len(found.structure.kept["stage1.0.conv1"]) == len(found.structure.kept["stage1.1.conv1"]) == 8
    assert len(found.structure.kept["stem.conv"]) < 8  # the sums of stage1 begin in the stem
    with pytest.raises(BadInput, match="as blocks of weight 0 keep their channels"):
        choose(model, Budget(multiply_adds="0.1x"), blocks={"stage1": 0, "stem": 0}, **takes)
    with pytest.raises(BadInput, match="the network has no block 'stage4'"):
        choose(model, Budget(multiply_adds="0.5x"), blocks={"stage4": 0}, **takes)


def test_the_network_is_left_alone() -> None:
    model, takes = uneven("resnet")
    model.train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    generator = torch.get_rng_state()
    choose(model, Budget(multiply_adds="0.5x"), **takes)
    assert model.training
    assert torch.equal(torch.get_rng_state(), generator)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_a_large_network_takes_seconds() -> None:
    model = build("mobilenet_v2", classes=10)
    start = time.perf_counter()
    found = choose(model, Budget(multiply_adds="0.3x"), channels=3, size=(16, 16))
    assert found.channels == 9128
    assert time.perf_counter() - start < 30  # 0.5 s on a quiet machine
