from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from understudy.errors import BadInput
from understudy.models import build
from understudy.models.wide_resnet import PreactivationBlock, WideResNet


def block_of(stage: nn.Sequential, position: int) -> PreactivationBlock:
    block = stage[position]
    assert isinstance(block, PreactivationBlock)
    return block


def parameters(name: str) -> int:
    with torch.device("meta"):
        model = build(name, classes=100)
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize(
    ("name", "millions"),
    [
        ("wrn-40-4", 8.972),
        ("wrn-40-2", 2.255),
        ("wrn-40-1", 0.570),
        ("wrn-28-4", 5.872),
        ("wrn-16-4", 2.772),
        ("wrn-16-2", 0.703),
        ("wrn-16-1", 0.181),
    ],
)
def test_parameters_in_millions_are_those_of_the_paper(name: str, millions: float) -> None:
    assert round(parameters(name) / 1e6, 3) == millions


def test_the_four_teachers_of_the_dense_study_have_six_point_seven_million_parameters() -> None:
    total = sum(parameters(f"wrn-{depth}-2") for depth in (40, 34, 28, 22))
    assert round(total / 1e6, 3) == 6.693


def test_blocks_normalise_before_they_convolve() -> None:
    assert [name for name, _ in WideResNet(10, 1, classes=10).stage1[0].named_children()] == [
        "norm1",
        "relu1",
        "conv1",
        "norm2",
        "relu2",
        "conv2",
    ]


def test_a_block_whose_convolutions_are_zero_hands_its_input_on() -> None:
    block = block_of(WideResNet(16, 2, classes=10).stage1, 1)
    nn.init.zeros_(block.conv2.weight)
    features = torch.randn(2, 32, 4, 4)
    torch.testing.assert_close(block(features), features, rtol=0, atol=0)


def test_the_convolutional_shortcut_sees_the_activated_input() -> None:
    block = block_of(WideResNet(16, 2, classes=10).stage1, 0).eval()
    assert block.shortcut is not None
    nn.init.zeros_(block.conv2.weight)
    features = torch.randn(2, 16, 4, 4)
    torch.testing.assert_close(block(features), block.shortcut(torch.relu(block.norm1(features))))


def test_factor_one_has_no_shortcut_convolution_in_the_first_stage() -> None:
    names = [name for name, _ in WideResNet(16, 1, classes=10).named_modules() if name.endswith("shortcut")]
    assert names == ["stage2.0.shortcut", "stage3.0.shortcut"]


def test_convolutions_start_with_the_deviation_of_the_paper() -> None:
    torch.manual_seed(0)
    layer = block_of(WideResNet(16, 4, classes=10).stage3, 1).conv1
    assert float(layer.weight.detach().std()) == pytest.approx(math.sqrt(2 / (9 * 256)), rel=0.01)


@pytest.mark.parametrize("size", [(1, 1), (5, 3), (8, 8), (40, 64)])
def test_any_image_size_works(size: tuple[int, int]) -> None:
    assert WideResNet(10, 1, classes=4)(torch.zeros(3, 3, *size)).shape == (3, 4)


@pytest.mark.parametrize(("depth", "factor"), [(17, 2), (4, 2), (40, 0), (40, 100_000)])
def test_used_directly_it_refuses_what_is_not_in_the_family(depth: int, factor: int) -> None:
    with pytest.raises(BadInput, match=f"there is no wrn-{depth}-{factor}"):
        WideResNet(depth, factor, classes=10)
