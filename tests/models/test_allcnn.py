from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn

from understudy.models import build
from understudy.models.allcnn import AllCNN


@pytest.mark.parametrize(("width", "parameters"), [(0.66, 2_182_413), (1.0, 5_026_084)])
def test_parameters_are_those_counted_by_hand(width: float, parameters: int) -> None:
    by_hand, inputs = 0, 3
    for group, count in enumerate((96, 192, 256, 384)):
        outputs = int(count * width)
        for place in range(3):
            kernel = 1 if (group, place) == (3, 2) else 3
            by_hand += kernel**2 * inputs * outputs + outputs + 2 * outputs
            inputs = outputs
    by_hand += inputs * 100 + 100
    with torch.device("meta"):
        model = build("allcnn", classes=100, width=width)
    assert sum(parameter.numel() for parameter in model.parameters()) == by_hand == parameters


def test_widths_are_truncated() -> None:
    with torch.device("meta"):
        model = AllCNN(classes=100, width=0.66)
    widths = [model.get_submodule(f"stage{n}.conv3").out_channels for n in (1, 2, 3, 4)]
    assert widths == [63, 126, 168, 253]
    assert [count * 0.66 for count in (256, 384)] == pytest.approx(
        [168.96, 253.44]
    )  # rounding would give 169


def test_stages_have_the_shapes_of_the_paper() -> None:
    model = AllCNN(classes=100, width=0.66).eval()
    features, shapes = torch.zeros(1, 3, 32, 32), []
    for stage in ("stage1", "stage2", "stage3", "stage4"):
        features = model.get_submodule(stage)(features)
        shapes.append(tuple(features.shape[1:]))
    assert shapes == [(63, 16, 16), (126, 8, 8), (168, 4, 4), (253, 4, 4)]


def test_every_convolution_has_a_bias_a_norm_and_a_leaky_relu() -> None:
    model: Any = AllCNN(classes=10, width=0.1)
    for stage in (model.stage1, model.stage2, model.stage3, model.stage4):
        kinds = [type(layer) for layer in stage]
        assert kinds == [nn.Conv2d, nn.BatchNorm2d, nn.LeakyReLU] * 3
        assert all(layer.negative_slope == 0.1 for layer in stage[2::3])
        assert all(layer.bias is not None for layer in stage[::3])
    assert model.stage4.conv3.kernel_size == (1, 1)


@pytest.mark.parametrize("size", [(1, 1), (5, 3), (64, 48)])
def test_any_image_size_works(size: tuple[int, int]) -> None:
    assert AllCNN(classes=4, width=0.1)(torch.zeros(3, 3, *size)).shape == (3, 4)


def test_weights_keep_the_spread_of_what_goes_in_and_biases_are_zero() -> None:
    torch.manual_seed(0)
    for layer in AllCNN(classes=100).modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            inputs = layer.weight[0].numel()
            # a sample deviation has a relative error of about 1 / sqrt(2 n)
            expected = pytest.approx(math.sqrt(2 / inputs), rel=5 / math.sqrt(2 * layer.weight.numel()))
            assert float(layer.weight.detach().std()) == expected
            assert layer.bias is not None
            assert not bool(layer.bias.any())
