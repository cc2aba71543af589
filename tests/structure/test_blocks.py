from __future__ import annotations

import pytest
from torch import nn

from understudy.errors import BadInput
from understudy.models import build
from understudy.structure.blocks import block_weights, blocks_of, check_blocks


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("resnet-8", ["stem", "stage1", "stage2", "stage3", "head"]),
        ("wrn-10-1", ["stem", "stage1", "stage2", "stage3", "head"]),
        ("plain_cnn-4", ["block1", "block2", "classifier"]),
        ("plain_cnn-6", ["block1", "block2", "block3", "classifier"]),  # the last block is not pooled
        ("vgg-11", ["block1", "block2", "block3", "block4", "head"]),
        ("mobilenet_v2", ["stem", *(f"stage{n}" for n in range(1, 8)), "last", "head"]),
        ("allcnn", [*(f"stage{n}" for n in range(1, 5)), "head"]),
        ("densenet_bc-40-12", ["stem", "block1", "transition1", "block2", "transition2", "block3", "head"]),
        ("bottleneck_resnet-20", ["stem", "stage1", "stage2", "stage3", "head"]),
        ("okd_vgg-16", [*(f"stage{n}" for n in range(1, 6)), "hidden", "head"]),
    ],
)
def test_blocks_are_a_networks_stages(name: str, expected: list[str]) -> None:
    assert list(blocks_of(build(name, classes=10))) == expected


def test_every_layer_is_in_one_block() -> None:
    model = build("resnet-8", classes=10)
    layers = [name for name, module in model.named_modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    assert sorted(name for block in blocks_of(model).values() for name in block) == sorted(layers)


def test_poolings_part_a_plain_row_of_layers() -> None:
    found = blocks_of(build("plain_cnn-4", classes=10))
    assert found["block1"] == ("features.conv1", "features.conv2")
    assert found["block2"] == ("features.conv3", "features.conv4")


def test_a_big_container_is_opened_once() -> None:
    model = nn.Module()
    model.blocks = nn.Sequential(
        nn.Sequential(nn.Conv2d(1, 2, 1), nn.Conv2d(2, 2, 1)),
        nn.Sequential(nn.Sequential(nn.Conv2d(2, 2, 1))),
    )
    model.neck = nn.Sequential(nn.Conv2d(2, 2, 1))
    assert blocks_of(model) == {
        "blocks.0": ("blocks.0.0", "blocks.0.1"),
        "blocks.1": ("blocks.1.0.0",),
        "neck": ("neck.0",),
    }


def test_a_network_that_is_one_layer_is_one_block() -> None:
    assert blocks_of(nn.Linear(2, 3)) == {"other": ("",)}


def test_weights_are_given_to_layers() -> None:
    model = build("resnet-8", classes=10)
    weights = block_weights(model, {"stage2": 2.0, "stem": 0})
    assert weights["stem.conv"] == 0.0
    assert weights["stage2.0.conv1"] == weights["stage2.0.shortcut.conv"] == 2.0
    assert weights["stage1.0.conv1"] == weights["head"] == 1.0


def test_an_unknown_block_is_refused_with_the_nearest() -> None:
    with pytest.raises(BadInput) as caught:
        check_blocks(build("resnet-8", classes=10), {"stage_2": 1.0})
    assert str(caught.value) == (
        "the network has no block 'stage_2'. Did you mean 'stage2'? Possible: stem, stage1, stage2, stage3, head"
    )
