from __future__ import annotations

import pytest
from torch import nn

from understudy.deploy.advice import warnings_on_quantising
from understudy.models import build


class SiLU(nn.Module):
    """As in a package that has its own."""


@pytest.mark.parametrize(
    ("layer", "words"),
    [
        (nn.SiLU(), "SiLU"),
        (SiLU(), "SiLU"),
        (nn.Hardswish(), "Hardswish"),
        (nn.GELU(), "GELU"),
        (nn.LayerNorm(8), "LayerNorm"),
        (nn.Sigmoid(), "gates of channels"),
        (nn.Conv2d(8, 8, 3, padding="same"), "padding='same'"),
        (nn.Conv2d(8, 8, 3, padding=1, groups=8), "depthwise"),
        (nn.Upsample(scale_factor=2), "between pixels"),
    ],
)
def test_what_quantises_badly_is_named_with_its_place(layer: nn.Module, words: str) -> None:
    (sentence,) = warnings_on_quantising(nn.Sequential(nn.ReLU(), nn.Sequential(layer)))
    assert words in sentence
    assert "(1.0)" in sentence
    assert "\n" not in sentence


def test_networks_of_plain_layers_get_no_warning() -> None:
    for name in ("plain_cnn-2", "resnet-8", "wrn-10-1"):
        assert warnings_on_quantising(build(name, classes=3, size=(16, 16))) == []
    assert warnings_on_quantising(nn.Conv2d(1, 4, 3)) == []  # one group of one channel is not depthwise


def test_many_layers_are_one_sentence() -> None:
    (sentence,) = warnings_on_quantising(nn.Sequential(*(nn.GELU() for _ in range(9))))
    assert "(0, 1, 2, …)" in sentence
