from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from understudy.errors import BadInput
from understudy.models import build
from understudy.models.resnet import ResNet
from understudy.structure.cost import cost

COUNTS = [
    (8, 78_042, 83_892),
    (14, 175_258, 181_108),
    (20, 272_474, 278_324),
    (26, 369_690, 375_540),
    (32, 466_906, 472_756),
    (44, 661_338, 667_188),
    (56, 855_770, 861_620),
    (110, 1_730_714, 1_736_564),
]


@pytest.mark.parametrize(("depth", "ten", "hundred"), COUNTS)
def test_parameters_are_those_of_the_paper(depth: int, ten: int, hundred: int) -> None:
    for classes, expected in ((10, ten), (100, hundred)):
        with torch.device("meta"):
            model = build(f"resnet-{depth}", classes=classes)
        assert sum(parameter.numel() for parameter in model.parameters()) == expected


def test_multiply_adds_of_resnet_8_are_those_counted_by_hand() -> None:
    # per stage: two 3x3 convolutions; stages 2 and 3 halve the sides and have a 1x1 shortcut
    by_hand = 32 * 32 * 9 * (3 * 16 + 2 * 16 * 16)
    by_hand += 16 * 16 * (9 * (16 * 32 + 32 * 32) + 16 * 32)
    by_hand += 8 * 8 * (9 * (32 * 64 + 64 * 64) + 32 * 64)
    by_hand += 64 * 10
    assert cost(ResNet(8, classes=10), channels=3, size=(32, 32)).multiply_adds == by_hand


def test_depth_counts_convolutions_of_the_main_path_and_the_linear_layer() -> None:
    for depth, *_ in COUNTS:
        with torch.device("meta"):
            model = ResNet(depth, classes=10)
        convolutions = [
            name
            for name, layer in model.named_modules()
            if isinstance(layer, nn.Conv2d) and "shortcut" not in name
        ]
        assert len(convolutions) + 1 == depth


def test_the_shortcut_is_a_strided_convolution_with_batch_norm_at_the_two_width_changes() -> None:
    shortcuts = {
        name: layer
        for name, layer in ResNet(20, classes=10).named_modules()
        if name.endswith("shortcut.conv")
    }
    assert list(shortcuts) == ["stage2.0.shortcut.conv", "stage3.0.shortcut.conv"]
    for layer in shortcuts.values():
        assert isinstance(layer, nn.Conv2d)
        assert (layer.kernel_size, layer.stride, layer.bias) == ((1, 1), (2, 2), None)


def test_convolutions_start_with_the_deviation_of_the_paper() -> None:
    torch.manual_seed(0)
    for layer in ResNet(20, classes=10).modules():
        if isinstance(layer, nn.Conv2d):
            expected = math.sqrt(2 / (layer.kernel_size[0] * layer.kernel_size[1] * layer.out_channels))
            values = layer.weight.numel()
            # a sample deviation has a relative error of about 1 / sqrt(2 n)
            assert float(layer.weight.detach().std()) == pytest.approx(
                expected, rel=5 / math.sqrt(2 * values)
            )
            assert abs(float(layer.weight.detach().mean())) < 5 * expected / math.sqrt(values)
        if isinstance(layer, nn.BatchNorm2d):
            assert bool((layer.weight == 1).all())
            assert bool((layer.bias == 0).all())


@pytest.mark.parametrize("size", [(1, 1), (5, 3), (8, 8), (64, 48)])
def test_any_image_size_works(size: tuple[int, int]) -> None:
    model = ResNet(8, classes=4).train()
    assert model(torch.zeros(3, 3, *size)).shape == (3, 4)


def test_a_width_that_makes_all_channels_one_still_halves_the_image() -> None:
    model = ResNet(8, classes=4, width=0.001)
    assert model.stage2(torch.zeros(1, 1, 8, 8)).shape == (1, 1, 4, 4)


def test_used_directly_it_refuses_an_unknown_depth() -> None:
    with pytest.raises(BadInput, match="there is no resnet-18"):
        ResNet(18, classes=10)
