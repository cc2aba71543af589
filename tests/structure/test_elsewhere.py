"""Networks of timm and torchvision: their channels are grouped, priced and removed as those of the families here."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.structure.nets import images, shaken
from understudy.errors import BadInput
from understudy.models import build
from understudy.structure.blocks import blocks_of
from understudy.structure.budget import Budget
from understudy.structure.channels import read_channels
from understudy.structure.choosing import choose
from understudy.structure.cost import cost
from understudy.structure.exactness import removable_channels
from understudy.structure.shrinking import shrunk, silenced

NETWORKS = (
    "timm/resnet18",
    "timm/mobilenetv2_100",
    "timm/mobilenetv3_small_050",
    "timm/tf_mobilenetv3_small_minimal_100",  # pads as TensorFlow does
    "timm/regnetx_002",
    "timm/convnext_atto",
    "torchvision/mobilenet_v2",
    "torchvision/googlenet",
    "torchvision/squeezenet1_1",
)


def made(name: str) -> tuple[Any, dict[str, Any]]:
    pytest.importorskip(name.partition("/")[0])
    size = (64, 64)
    torch.manual_seed(0)
    return shaken(build(name, classes=5, size=size)), {"channels": 3, "size": size}


@pytest.mark.parametrize("name", NETWORKS)
def test_half_of_the_multiply_adds_are_reached_exactly(name: str) -> None:
    model, takes = made(name)
    assert removable_channels(model, **takes).groups == read_channels(model, **takes).groups
    found = choose(model, Budget(multiply_adds="0.5x"), **takes)
    assert 0.98 <= found.share <= 1
    small = shrunk(model, found.structure, **takes)
    assert cost(small, **takes) == found.cost
    example = images(2, **takes).double()
    with torch.no_grad():
        answers = small.double()(example)
        expected = silenced(model, found.structure, **takes).double()(example)
    torch.testing.assert_close(answers, expected, rtol=1e-8, atol=1e-8 * float(expected.abs().max()))


@pytest.mark.parametrize(
    ("name", "first"),
    [
        ("timm/mobilenetv2_100", ["conv_stem", "blocks.0", "blocks.1"]),
        ("torchvision/mobilenet_v2", ["features.0", "features.1", "features.2"]),
        ("torchvision/resnet18", ["conv1", "layer1", "layer2"]),
        ("torchvision/vgg11_bn", ["block1", "block2", "block3"]),
        ("torchvision/densenet121", ["features.conv0", "features.denseblock1", "features.transition1"]),
    ],
)
def test_blocks_are_what_their_authors_called_so(name: str, first: list[str]) -> None:
    model, _ = made(name)
    assert list(blocks_of(model))[:3] == first


def test_a_network_that_shuffles_its_channels_is_refused_with_a_layer() -> None:
    model, takes = made("torchvision/shufflenet_v2_x0_5")
    with pytest.raises(BadInput) as caught:
        choose(model, Budget(multiply_adds="0.5x"), **takes)
    assert (
        "the channels of ShuffleNetV2 cannot be grouped: it cannot be traced behind the layer stage"
        in str(caught.value)
    )
