from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from understudy.errors import BadInput
from understudy.models import build
from understudy.models.densenet import DenseLayer, densenet, densenet_bc

KNOWN = [
    # name, layers in each block, growth, stem, bias, parameters for 100 classes
    ("densenet-121", (6, 12, 24, 16), 32, 64, True, 7_058_788),
    ("densenet_bc-40-12", (6, 6, 6), 12, 24, False, 188_092),
]


@pytest.mark.parametrize(("name", "blocks", "growth", "stem", "bias", "known"), KNOWN)
def test_parameters_are_those_counted_by_hand(
    name: str, blocks: tuple[int, ...], growth: int, stem: int, bias: bool, known: int
) -> None:
    def convolution(inputs: int, outputs: int, kernel: int) -> int:
        return kernel**2 * inputs * outputs + bias * outputs

    width, by_hand = stem, convolution(3, stem, 3)
    for number, layers in enumerate(blocks):
        for _ in range(layers):
            by_hand += 2 * width + convolution(width, 4 * growth, 1)
            by_hand += 2 * 4 * growth + convolution(4 * growth, growth, 3)
            width += growth
        if number < len(blocks) - 1:
            by_hand += 2 * width + convolution(width, width // 2, 1)
            width //= 2
    by_hand += 2 * width + 100 * width + 100
    with torch.device("meta"):
        model = build(name, classes=100)
    assert sum(parameter.numel() for parameter in model.parameters()) == by_hand == known


def test_the_points_that_are_matched_have_the_shapes_of_the_paper() -> None:
    model = densenet(121, classes=100).eval()
    features, shapes = torch.zeros(1, 3, 32, 32), {}
    for name, part in model.named_children():
        features = part(features)
        shapes[name] = tuple(features.shape[1:])
    assert shapes["transition1"] == (128, 16, 16)
    assert shapes["transition2"] == (256, 8, 8)
    assert shapes["block4"] == shapes["norm"] == (1024, 4, 4)


def test_a_layer_is_written_out() -> None:
    torch.manual_seed(0)
    layer = DenseLayer(5, 3, bias=True).eval()
    features = torch.randn(2, 5, 4, 4)
    new = layer.conv1(torch.relu(layer.norm1(features)))
    new = layer.conv2(torch.relu(layer.norm2(new)))
    given = layer(features)
    assert torch.equal(given[:, :3], new)
    assert torch.equal(given[:, 3:], features)
    assert layer.conv1.out_channels == 4 * 3


def test_a_transition_halves_channels_and_sides() -> None:
    model: Any = densenet_bc(40, 12, classes=10)
    assert [name for name, _ in model.transition1.named_children()] == ["norm", "relu", "conv", "pool"]
    assert model.transition1(torch.zeros(2, 96, 9, 8)).shape == (2, 48, 4, 4)


def test_width_scales_the_growth_and_the_stem() -> None:
    with torch.device("meta"):
        model: Any = densenet(121, classes=10, width=0.25)
    assert model.stem.out_channels == 16
    assert {layer.conv2.out_channels for layer in model.block3} == {8}
    assert model.head.in_features == 1024 // 4


def test_weights_start_as_described() -> None:
    torch.manual_seed(0)
    for name, layer in densenet(121, classes=10, width=0.5).named_modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            assert layer.bias is not None, name
            assert not bool(layer.bias.any())
            deviation = (2 / layer.weight[0].numel()) ** 0.5
            near = pytest.approx(deviation, rel=5 / (2 * layer.weight.numel()) ** 0.5)
            assert float(layer.weight.detach().std()) == near, name


@pytest.mark.parametrize(
    ("name", "size", "said"),
    [
        ("densenet-121", (7, 32), "densenet-121 halves the image 3 times and needs at least 8x8"),
        ("densenet_bc-40-12", (32, 3), "densenet_bc-40-12 halves the image twice and needs at least 4x4"),
    ],
)
def test_images_too_small_are_refused(name: str, size: tuple[int, int], said: str) -> None:
    with pytest.raises(BadInput) as caught:
        build(name, classes=10, size=size)
    assert said in str(caught.value)
    assert "Choose a resnet, which takes any size, or larger images." in str(caught.value)


def test_used_directly_they_refuse_an_unknown_size() -> None:
    with pytest.raises(BadInput, match=r"there is no densenet-169\. Possible: densenet-121"):
        densenet(169, classes=10)
    with pytest.raises(BadInput, match=r"there is no densenet_bc-40-24\. Possible: densenet_bc-40-12"):
        densenet_bc(40, 24, classes=10)
