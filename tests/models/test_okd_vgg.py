from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from understudy.errors import BadInput
from understudy.models import build
from understudy.models.okd_vgg import OKDVGG

STAGES = [[64] * 2, [128] * 2, [256] * 3, [512] * 3, [512] * 3]


@pytest.mark.parametrize(("classes", "known"), [(10, 15_253_578), (100, 15_299_748)])
def test_parameters_are_those_counted_by_hand(classes: int, known: int) -> None:
    by_hand, inputs = 0, 3
    for outputs in (count for stage in STAGES for count in stage):
        by_hand += 9 * inputs * outputs + outputs + 2 * outputs
        inputs = outputs
    by_hand += 2 * (512 * 512 + 512) + 512 * classes + classes
    with torch.device("meta"):
        model = build("okd_vgg-16", classes=classes)
    assert sum(parameter.numel() for parameter in model.parameters()) == by_hand == known


@pytest.mark.parametrize(
    ("side", "pools", "last"), [(8, 3, 1), (16, 4, 1), (31, 4, 1), (32, 5, 1), (64, 5, 2), (96, 5, 3)]
)
def test_it_pools_five_times_and_less_where_the_image_is_too_small_for_that(
    side: int, pools: int, last: int
) -> None:
    model = OKDVGG(16, classes=10, image=(side, side + 1), width=0.03).eval()
    found = [name for name, layer in model.named_modules() if isinstance(layer, nn.MaxPool2d)]
    assert found == [f"stage{number}.pool" for number in range(1, pools + 1)]
    features = torch.zeros(1, 3, side, side + 1)
    for number in range(1, 6):
        features = model.get_submodule(f"stage{number}")(features)
    assert features.shape[2] == last
    assert model(torch.zeros(2, 3, side, side + 1)).shape == (2, 10)


def test_convolutions_and_linear_layers_start_as_described() -> None:
    torch.manual_seed(0)
    model: Any = OKDVGG(16, classes=100)
    last = model.stage5.conv3
    assert float(last.weight.detach().std()) == pytest.approx((2 / (9 * 512)) ** 0.5, rel=0.01)
    for layer in (model.hidden.linear1, model.hidden.linear2, model.head):
        assert float(layer.weight.detach().std()) == pytest.approx(0.01, rel=0.02)
        assert not bool(layer.bias.any())


def test_images_too_small_are_refused() -> None:
    with pytest.raises(BadInput, match="okd_vgg-16 halves the image 3 times and needs at least 8x8"):
        build("okd_vgg-16", classes=10, size=(7, 32))


def test_used_directly_it_refuses_an_unknown_depth() -> None:
    with pytest.raises(BadInput, match=r"there is no okd_vgg-19\. Possible: okd_vgg-16"):
        OKDVGG(19, classes=10)
