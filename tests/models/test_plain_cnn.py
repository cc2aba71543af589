from __future__ import annotations

import pytest
import torch
from torch import nn

from understudy.errors import BadInput
from understudy.models import build
from understudy.models.plain_cnn import NARROW, WIDE, PlainCNN
from understudy.structure.cost import cost


def first_linear(model: nn.Module) -> nn.Linear:
    return next(layer for layer in model.modules() if isinstance(layer, nn.Linear))


# size, parameters, multiply-adds in millions, flatten size; all for 3x32x32
WIDE_100 = [
    (2, 215_172, 3.45, 2048),
    (3, 438_596, 15.45, 4096),
    (4, 475_652, 24.89, 4096),
    (5, 959_364, 30.02, 8192),
    (6, 1_107_204, 39.45, 8192),
    (7, 655_684, 43.42, 1024),
    (8, 1_246_276, 52.86, 1024),
    (9, 2_340_868, 62.80, 1024),
    (10, 2_931_460, 72.24, 1024),
]
NARROW_10 = [
    (2, 13_082, 1.04, 1024),
    (4, 37_338, 6.36, 2048),
    (6, 82_778, 9.89, 1024),
    (8, 327_962, 13.45, 512),
    (10, 2_487_850, 71.80, 1024),
]


@pytest.mark.parametrize(("size", "parameters", "millions", "flat"), WIDE_100)
def test_the_wide_family_has_the_counts_of_the_paper(
    size: int, parameters: int, millions: float, flat: int
) -> None:
    model = build(f"plain_cnn-{size}", classes=100)
    counted = cost(model, channels=3, size=(32, 32))
    assert counted.parameters == parameters
    assert round(counted.multiply_adds / 1e6, 2) == millions
    assert first_linear(model).in_features == flat


@pytest.mark.parametrize(("size", "parameters", "millions", "flat"), NARROW_10)
def test_the_narrow_family_has_the_counts_of_the_paper(
    size: int, parameters: int, millions: float, flat: int
) -> None:
    model = build(f"plain_cnn_narrow-{size}", classes=10)
    counted = cost(model, channels=3, size=(32, 32))
    assert counted.parameters == parameters
    assert round(counted.multiply_adds / 1e6, 2) == millions
    assert first_linear(model).in_features == flat


@pytest.mark.parametrize("layouts", [WIDE, NARROW])
def test_a_size_is_its_number_of_convolutions(layouts: dict[int, object]) -> None:
    for size in layouts:
        model = PlainCNN(size, classes=10, narrow=layouts is NARROW)
        assert sum(isinstance(layer, nn.Conv2d) for layer in model.modules()) == size


def test_every_convolution_has_a_bias_a_batch_norm_and_a_relu_and_the_last_layer_has_none() -> None:
    kinds = [type(layer) for layer in PlainCNN(10, classes=10).features]
    for position, kind in enumerate(kinds):
        if kind is nn.Conv2d:
            assert kinds[position + 1 : position + 3] == [nn.BatchNorm2d, nn.ReLU]
    model = PlainCNN(10, classes=10)
    assert all(layer.bias is not None for layer in model.modules() if isinstance(layer, nn.Conv2d))
    assert [type(layer) for layer in model.classifier] == [nn.Linear, nn.ReLU, nn.Linear]


def test_the_sixth_size_of_the_wide_family_ends_without_pooling() -> None:
    assert isinstance(list(PlainCNN(6, classes=10).features)[-1], nn.ReLU)
    assert isinstance(list(PlainCNN(6, classes=10, narrow=True).features)[-1], nn.MaxPool2d)


@pytest.mark.parametrize("name", ["plain_cnn-2", "plain_cnn-4", "plain_cnn-6", "plain_cnn_narrow-6"])
def test_digits_of_eight_pixels_and_one_channel_work(name: str) -> None:
    model = build(name, classes=10, channels=1, size=(8, 8))
    assert model(torch.zeros(2, 1, 8, 8)).shape == (2, 10)


@pytest.mark.parametrize(
    ("name", "size", "said"),
    [
        (
            "plain_cnn-10",
            (8, 8),
            "plain_cnn-10 halves the image 4 times and needs at least 16x16; the images are 8x8. "
            "Choose plain_cnn-6 or smaller, or larger images.",
        ),
        (
            "plain_cnn-8",
            (32, 15),
            "plain_cnn-8 halves the image 4 times and needs at least 16x16; the images are 32x15. "
            "Choose plain_cnn-6 or smaller, or larger images.",
        ),
        (
            "plain_cnn_narrow-6",
            (7, 7),
            "plain_cnn_narrow-6 halves the image 3 times and needs at least 8x8; the images are 7x7. "
            "Choose plain_cnn_narrow-4 or smaller, or larger images.",
        ),
        (
            "plain_cnn-2",
            (3, 3),
            "plain_cnn-2 halves the image twice and needs at least 4x4; the images are 3x3. Choose larger images.",
        ),
    ],
)
def test_images_too_small_are_answered_with_what_fits(name: str, size: tuple[int, int], said: str) -> None:
    with pytest.raises(BadInput) as caught:
        build(name, classes=10, size=size)
    assert str(caught.value) == said


def test_the_advised_size_really_fits() -> None:
    for side in range(4, 17):
        for size, layout in WIDE.items():
            if 2**layout.pools <= side:
                build(f"plain_cnn-{size}", classes=2, size=(side, side), width=0.1)


def test_width_scales_the_hidden_layer_too() -> None:
    model = PlainCNN(10, classes=10, width=0.5)
    assert first_linear(model).in_features == 512
    assert first_linear(model).out_features == 256


def test_used_directly_it_refuses_an_unknown_size() -> None:
    with pytest.raises(BadInput, match="there is no plain_cnn_narrow-3"):
        PlainCNN(3, classes=10, narrow=True)
