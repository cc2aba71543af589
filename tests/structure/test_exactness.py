from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from tests.structure.nets import (
    NETWORKS,
    FixedNumber,
    Row,
    Standardised,
    conv,
    family,
    made,
    normed,
    row,
)
from understudy.errors import BadInput
from understudy.structure.channels import read_channels
from understudy.structure.exactness import answers_depend_on_image, removable_channels
from understudy.structure.shrinking import shrunk
from understudy.structure.structures import Structure


@pytest.mark.parametrize("name", NETWORKS)
def test_all_that_was_traced_is_removable_here(name: str) -> None:
    model, takes = made(name)
    assert removable_channels(model, **takes).groups == read_channels(model, **takes).groups


def test_a_number_of_channels_in_the_code_makes_them_fixed() -> None:
    model = row(FixedNumber, 6)()
    assert [group.name for group in read_channels(model, channels=2, size=(6, 6)).groups] == [
        "stem.0",
        "body.layer.0",
    ]
    found = removable_channels(model, channels=2, size=(6, 6))
    assert [group.name for group in found.groups] == ["stem.0"]


def test_a_fresh_network_does_not_hide_what_would_go_wrong() -> None:
    """The scales of the last norm begin at 0, as in some packages: whatever happens in the branch changes nothing."""

    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv1, self.conv2 = normed(conv(4, 6)), conv(6, 4)
            self.norm2 = nn.BatchNorm2d(4)
            nn.init.zeros_(self.norm2.weight)

        def forward(self, features: Tensor) -> Tensor:
            inner = self.conv1(features).softmax(1)  # over the channels
            out: Tensor = self.norm2(self.conv2(inner)) + features
            return out

    found = removable_channels(row(Mixed, 4)(), channels=2, size=(6, 6))
    assert [group.name for group in found.groups] == ["stem.0"]


class SixChannels(nn.Module):
    def forward(self, features: Tensor) -> Tensor:
        return features.reshape(len(features), 6, *features.shape[2:])


def test_where_no_group_is_exact_the_layer_is_named() -> None:
    layers = nn.Sequential(Standardised(4, 5, 3), nn.ReLU(), Standardised(5, 6, 3), SixChannels())
    with pytest.raises(BadInput) as caught:
        removable_channels(Row(conv(2, 4), layers, 6), channels=2, size=(8, 8))
    assert str(caught.value) == (
        "the channels of Row cannot be grouped: without some of those that stem writes, it computes something else "
        "than with these channels at zero. Choose a network whose layers take any number of channels"
    )


def test_a_network_without_any_removable_channel_is_refused() -> None:
    with pytest.raises(BadInput, match="Sequential has no channels that can be removed"):
        removable_channels(nn.Sequential(nn.Flatten(), nn.Linear(18, 3)), channels=2, size=(3, 3))


def test_the_network_and_the_generator_are_left_alone() -> None:
    model = family("resnet-8", width=0.25)().train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    generator = torch.get_rng_state()
    removable_channels(model, channels=2, size=(8, 8))
    assert torch.equal(torch.get_rng_state(), generator)
    assert model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("name", NETWORKS)
def test_answers_depend_on_the_image(name: str) -> None:
    model, takes = made(name)
    assert answers_depend_on_image(model, **takes)


def test_they_do_not_where_a_layer_that_all_goes_through_is_dropped() -> None:
    model, takes = made("resnet")
    small = shrunk(model, Structure({"stage2.0.conv2": ()}), **takes)
    assert not answers_depend_on_image(small, **takes)
