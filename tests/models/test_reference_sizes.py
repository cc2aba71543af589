"""Large networks whose parameters and multiply-adds are known from papers, against torchvision's."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from understudy.models import build
from understudy.structure.cost import Cost, cost


@pytest.fixture(autouse=True)
def torchvision() -> None:
    pytest.importorskip("torchvision")


@pytest.mark.parametrize(
    ("name", "parameters", "multiply_adds"),
    [("mobilenet_v2", 3_504_872, 300_774_272), ("resnet101", 44_549_160, 7_801_405_440)],
)
def test_networks_for_large_images_have_their_known_size(
    name: str, parameters: int, multiply_adds: int
) -> None:
    model = build(f"torchvision/{name}", classes=1000, size=(224, 224))
    assert cost(model, channels=3, size=(224, 224)) == Cost(
        parameters=parameters, multiply_adds=multiply_adds
    )


@pytest.mark.parametrize(
    ("classes", "parameters", "multiply_adds"),
    [(10, 42_512_970, 2_509_983_744), (100, 42_697_380, 2_510_168_064)],
)
def test_resnet_101_for_small_images_has_its_known_size(
    classes: int, parameters: int, multiply_adds: int
) -> None:
    model = build("torchvision/resnet101", classes=classes)
    model.set_submodule("conv1", nn.Conv2d(3, 64, 3, padding=1, bias=False))
    model.set_submodule("maxpool", nn.Identity())
    assert cost(model, channels=3, size=(32, 32)) == Cost(parameters=parameters, multiply_adds=multiply_adds)
    assert model(torch.zeros(2, 3, 32, 32)).shape == (2, classes)
