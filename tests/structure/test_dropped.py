from __future__ import annotations

import pytest
import torch
from torch import nn

from understudy.structure.dropped import NoChannels, NoInputs


@pytest.mark.parametrize("padding", [0, 1, (2, 0), "same", "valid"])
@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.parametrize("stride", [1, 2, (1, 3)])
@pytest.mark.parametrize("kernel", [1, 3, (1, 5)])
def test_height_and_width_are_those_of_the_convolution(
    kernel: int | tuple[int, int],
    stride: int | tuple[int, int],
    dilation: int,
    padding: int | str | tuple[int, int],
) -> None:
    if padding == "same" and stride != 1:
        pytest.skip("torch has no such convolution")
    layer = nn.Conv2d(3, 4, kernel, stride=stride, dilation=dilation, padding=padding)
    expected = layer(torch.zeros(2, 3, 11, 14)).shape
    empty = torch.zeros(2, 0, 11, 14)
    assert NoChannels(layer)(empty).shape == (2, 0, *expected[2:])
    assert NoInputs(layer)(empty).shape == expected


def test_a_convolution_without_inputs_gives_its_bias_everywhere() -> None:
    layer = nn.Conv2d(3, 4, 3)
    layer.bias = nn.Parameter(torch.arange(4.0))
    out = NoInputs(layer)(torch.zeros(2, 0, 5, 5))
    assert torch.equal(out, torch.arange(4.0).view(1, 4, 1, 1).expand(2, 4, 3, 3))
    out.sum().backward()
    assert layer.bias.grad is not None
    assert layer.bias.grad.tolist() == [18.0] * 4


def test_a_linear_layer_without_inputs_gives_its_bias() -> None:
    layer = nn.Linear(3, 4)
    assert torch.equal(NoInputs(layer)(torch.zeros(2, 7, 0)), layer.bias.expand(2, 7, 4))
    bare = NoInputs(nn.Linear(3, 4, bias=False))(torch.zeros(2, 0))
    assert torch.equal(bare, torch.zeros(2, 4))


def test_without_a_bias_it_has_no_parameters() -> None:
    assert list(NoInputs(nn.Conv2d(3, 4, 3, bias=False)).parameters()) == []
    assert list(NoChannels(nn.Conv2d(3, 4, 3)).parameters()) == []


def test_a_linear_layer_without_outputs_gives_nothing() -> None:
    assert NoChannels(nn.Linear(3, 4))(torch.zeros(2, 7, 3)).shape == (2, 7, 0)


@pytest.mark.parametrize("layer", [nn.BatchNorm2d(3), nn.PReLU(3)])
def test_norms_let_nothing_pass(layer: nn.Module) -> None:
    empty = torch.zeros(2, 0, 5, 5)
    assert NoChannels(layer)(empty) is empty


@pytest.mark.parametrize(
    "layer", [nn.MaxPool2d(2), nn.AdaptiveAvgPool2d(1), nn.AvgPool2d(3, stride=2, padding=1)]
)
def test_poolings_make_height_and_width_smaller(layer: nn.Module) -> None:
    expected = layer(torch.zeros(2, 3, 9, 10)).shape
    assert NoChannels(layer)(torch.zeros(2, 0, 9, 10)).shape == (2, 0, *expected[2:])
