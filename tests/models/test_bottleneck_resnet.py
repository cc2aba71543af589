from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn

from understudy.errors import BadInput
from understudy.models import build
from understudy.models.bottleneck_resnet import BottleneckResNet

COUNTS = [
    ("bottleneck_resnet-110", 10, 1_147_738),
    ("bottleneck_resnet-110", 100, 1_170_868),
    ("bottleneck_resnet-164", 100, 1_727_284),
    ("okd_wrn-20-8", 10, 6_848_090),
    ("okd_wrn-20-8", 100, 6_871_220),
]


@pytest.mark.parametrize(("name", "classes", "parameters"), COUNTS)
def test_parameters_are_those_of_the_published_networks(name: str, classes: int, parameters: int) -> None:
    with torch.device("meta"):
        model = build(name, classes=classes)
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters


@pytest.mark.parametrize("depth", [20, 56, 110, 164])
def test_depth_counts_convolutions_of_the_main_path_and_the_linear_layer(depth: int) -> None:
    with torch.device("meta"):
        model: Any = BottleneckResNet(depth, classes=10)
    convolutions = [
        name
        for name, layer in model.named_modules()
        if isinstance(layer, nn.Conv2d) and "shortcut" not in name
    ]
    assert len(convolutions) + 1 == depth
    assert len(model.stage1) == len(model.stage2) == len(model.stage3) == (depth - 2) // 9


@pytest.mark.parametrize(("factor", "inner"), [(1, (16, 32, 64)), (8, (128, 256, 512))])
def test_only_the_inside_of_blocks_is_widened_by_the_factor(factor: int, inner: tuple[int, ...]) -> None:
    with torch.device("meta"):
        model: Any = BottleneckResNet(20, factor=factor, classes=10)
    stages = (model.stage1, model.stage2, model.stage3)
    assert tuple(stage[1].conv2.in_channels for stage in stages) == inner
    assert [stage[1].conv3.out_channels for stage in stages] == [64, 128, 256]
    assert model.stem.conv.out_channels == 16
    assert model.head.in_features == 256


def test_a_block_is_written_out() -> None:
    torch.manual_seed(0)
    model: Any = BottleneckResNet(20, classes=10, width=0.5).eval()
    block = model.stage2[0]
    features = torch.randn(2, 32, 7, 6)
    out = torch.relu(block.norm1(block.conv1(features)))
    out = torch.relu(block.norm2(block.conv2(out)))
    out = torch.relu(block.norm3(block.conv3(out)) + block.shortcut.norm(block.shortcut.conv(features)))
    assert torch.equal(block(features), out)
    assert out.shape == (2, 64, 4, 3)
    assert block.conv2.stride == block.shortcut.conv.stride == (2, 2)
    assert block.conv1.stride == (1, 1)


def test_the_first_block_of_every_stage_has_a_shortcut_layer() -> None:
    with torch.device("meta"):
        model = BottleneckResNet(56, classes=10)
    found = [
        name.removesuffix(".shortcut.conv")
        for name, _ in model.named_modules()
        if name.endswith("shortcut.conv")
    ]
    assert found == ["stage1.0", "stage2.0", "stage3.0"]


def test_convolutions_start_with_the_deviation_of_he() -> None:
    torch.manual_seed(0)
    for layer in BottleneckResNet(20, factor=8, classes=10).modules():
        if isinstance(layer, nn.Conv2d):
            expected = math.sqrt(2 / (layer.kernel_size[0] ** 2 * layer.out_channels))
            near = pytest.approx(expected, rel=5 / math.sqrt(2 * layer.weight.numel()))
            assert float(layer.weight.detach().std()) == near


@pytest.mark.parametrize("size", [(1, 1), (5, 3), (48, 32)])
def test_any_image_size_works(size: tuple[int, int]) -> None:
    assert BottleneckResNet(20, classes=4, width=0.25)(torch.zeros(3, 3, *size)).shape == (3, 4)


def test_used_directly_it_refuses_an_unknown_network() -> None:
    with pytest.raises(BadInput, match=r"there is no bottleneck_resnet-50\. Possible: bottleneck_resnet-20"):
        BottleneckResNet(50, classes=10)
    with pytest.raises(BadInput, match=r"there is no okd_wrn-56-8\. Possible: okd_wrn-20-8"):
        BottleneckResNet(56, factor=8, classes=10)
