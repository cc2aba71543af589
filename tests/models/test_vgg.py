from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from understudy.errors import BadInput
from understudy.models import build
from understudy.models.vgg import VGG

BLOCKS = {
    8: [[64], [128], [256], [512], [512]],
    11: [[64], [128], [256, 256], [512, 512], [512, 512]],
    13: [[64, 64], [128, 128], [256, 256], [512, 512], [512, 512]],
    16: [[64, 64], [128, 128], [256] * 3, [512] * 3, [512] * 3],
}


@pytest.mark.parametrize(
    ("depth", "known"), [(8, 3_965_028), (11, 9_277_284), (13, 9_462_180), (16, 14_774_436)]
)
def test_parameters_are_those_counted_by_hand(depth: int, known: int) -> None:
    by_hand, inputs = 0, 3
    for outputs in (count for block in BLOCKS[depth] for count in block):
        by_hand += 9 * inputs * outputs + outputs + 2 * outputs
        inputs = outputs
    by_hand += 512 * 100 + 100
    with torch.device("meta"):
        model = build(f"vgg-{depth}", classes=100)
    assert sum(parameter.numel() for parameter in model.parameters()) == by_hand == known


@pytest.mark.parametrize("depth", BLOCKS)
def test_pools_stand_between_the_first_four_blocks(depth: int) -> None:
    with torch.device("meta"):
        model = VGG(depth, classes=10)
    blocks: list[list[int]] = [[]]
    for layer in model.features:
        if isinstance(layer, nn.MaxPool2d):
            blocks.append([])
        elif isinstance(layer, nn.Conv2d):
            blocks[-1].append(layer.out_channels)
    last_two_together = [*BLOCKS[depth][:3], [*BLOCKS[depth][3], *BLOCKS[depth][4]]]
    assert blocks == last_two_together


@pytest.mark.parametrize(
    ("side", "pools", "last"), [(8, 3, 1), (32, 3, 4), (63, 3, 7), (64, 4, 4), (96, 4, 6)]
)
def test_the_last_block_sees_four_by_four_at_both_usual_sizes(side: int, pools: int, last: int) -> None:
    model = VGG(8, classes=10, image=(side, side), width=0.05).eval()
    assert sum(isinstance(layer, nn.MaxPool2d) for layer in model.features) == pools
    assert model.features(torch.zeros(1, 3, side, side)).shape[-2:] == (last, last)


def test_initial_weights_are_drawn_as_described() -> None:
    torch.manual_seed(0)
    model = VGG(8, classes=100)
    last = [layer for layer in model.modules() if isinstance(layer, nn.Conv2d)][-1]
    assert float(last.weight.detach().std()) == pytest.approx(math.sqrt(2 / (9 * 512)), rel=0.01)
    assert float(model.head.weight.detach().std()) == pytest.approx(0.01, rel=0.02)
    assert not bool(model.head.bias.any())


def test_images_too_small_are_refused() -> None:
    with pytest.raises(BadInput) as caught:
        build("vgg-8", classes=10, size=(7, 32))
    assert str(caught.value) == (
        "vgg-8 halves the image 3 times and needs at least 8x8; the images are 7x32. "
        "Choose a resnet, which takes any size, or larger images."
    )


def test_used_directly_it_refuses_an_unknown_depth() -> None:
    with pytest.raises(BadInput, match="there is no vgg-19"):
        VGG(19, classes=10)
