from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from understudy.models import build
from understudy.models.mobilenet_v2 import MobileNetV2, divisible
from understudy.structure.cost import Cost, cost


@pytest.mark.parametrize(
    ("classes", "parameters", "multiply_adds"), [(10, 2_236_682, 87_976_448), (100, 2_351_972, 88_091_648)]
)
def test_parameters_and_multiply_adds_are_those_of_the_small_image_form(
    classes: int, parameters: int, multiply_adds: int
) -> None:
    model = build("mobilenet_v2", classes=classes)
    assert cost(model, channels=3, size=(32, 32)) == Cost(parameters=parameters, multiply_adds=multiply_adds)


def test_an_image_of_32_is_halved_three_times_and_stays_as_it_is_in_the_stem() -> None:
    model = MobileNetV2(classes=10, width=0.1).eval()
    features, sides = torch.zeros(1, 3, 32, 32), []
    for part in ("stem", *(f"stage{number}" for number in range(1, 8)), "last"):
        features = model.get_submodule(part)(features)
        sides.append(features.shape[-1])
    assert sides == [32, 32, 32, 16, 8, 8, 4, 4, 4]


def test_a_block_is_written_out() -> None:
    torch.manual_seed(0)
    model = MobileNetV2(classes=10, width=0.25).eval()
    block = model.stage3[1]
    names = [name for name, layer in block.named_modules() if not list(layer.children())]
    assert names == [
        *(f"expand.{part}" for part in ("conv", "norm", "relu")),
        *(f"depthwise.{part}" for part in ("conv", "norm", "relu")),
        *(f"project.{part}" for part in ("conv", "norm")),
        "shortcut",
    ]
    images = torch.randn(2, 8, 6, 6)
    features = images
    for name in names[:-1]:
        features = block.get_submodule(name)(features)
    assert torch.equal(block(images), features + images)


def test_what_goes_in_is_added_where_neither_the_channels_nor_the_stride_change_them() -> None:
    model = MobileNetV2(classes=10)
    adding = [f"{stage}.{place}" for stage, place, block in blocks(model) if block.shortcut]
    # all blocks of a group but its first; of equal width by rounding, in a narrow network, there are more
    assert adding == ["stage2.1", "stage3.1", "stage3.2", *(f"stage4.{n}" for n in (1, 2, 3))] + [
        f"stage{stage}.{n}" for stage in (5, 6) for n in (1, 2)
    ]
    assert [stage for stage, _, block in blocks(model) if block.expand is None] == ["stage1"]


def blocks(model: nn.Module) -> list[tuple[str, int, nn.Module]]:
    return [
        (stage, place, block)
        for stage, group in model.named_children()
        if stage.startswith("stage")
        for place, block in enumerate(group.children())
    ]


@pytest.mark.parametrize("width", [0.35, 0.5, 0.75, 1.0, 1.4])
def test_widths_are_multiples_of_8_near_the_wanted_ones(width: float) -> None:
    with torch.device("meta"):
        model = MobileNetV2(classes=10, width=width)
    wanted = [32, 16, 24, 32, 64, 96, 160, 320]
    got = [
        model.stem.conv.out_channels,
        *(group[-1].project.conv.out_channels for group in list(model.children())[1:8]),  # type: ignore[index]
    ]
    for count, channels in zip(wanted, got, strict=True):
        assert channels % 8 == 0
        assert channels >= max(8, 0.9 * count * width)
        assert channels <= count * width + 8
    # the paper leaves the last convolution as it is in narrow networks
    assert model.last.conv.out_channels == (1280 if width <= 1 else 1792)


@pytest.mark.parametrize(("count", "channels"), [(0.1, 8), (8, 8), (11.2, 16), (12, 16), (18, 24), (19, 24)])
def test_rounding_to_multiples_of_8_takes_away_a_tenth_at_most(count: float, channels: int) -> None:
    assert divisible(count) == channels


def test_weights_start_as_those_of_the_large_image_form() -> None:
    torch.manual_seed(0)
    for name, layer in MobileNetV2(classes=10).named_modules():
        if isinstance(layer, nn.Conv2d):
            assert layer.bias is None
            expected = math.sqrt(2 / (layer.kernel_size[0] * layer.kernel_size[1] * layer.out_channels))
            near(layer.weight, expected)
            assert layer.groups == (layer.out_channels if "depthwise" in name else 1)
        elif isinstance(layer, nn.BatchNorm2d):
            assert bool((layer.weight == 1).all())
            assert bool((layer.bias == 0).all())
        elif isinstance(layer, nn.Linear):
            near(layer.weight, 0.01)
            assert not bool(layer.bias.any())


def near(weight: Tensor, deviation: float) -> None:
    # a sample deviation has a relative error of about 1 / sqrt(2 n)
    assert float(weight.detach().std()) == pytest.approx(deviation, rel=5 / math.sqrt(2 * weight.numel()))


@pytest.mark.parametrize("size", [(1, 1), (5, 3), (8, 8), (64, 48)])
def test_any_image_size_works(size: tuple[int, int]) -> None:
    model = MobileNetV2(classes=4, width=0.1).train()
    assert model(torch.zeros(3, 3, *size)).shape == (3, 4)


def test_it_is_torchvisions_network_with_other_strides() -> None:
    models = pytest.importorskip("torchvision").models
    for width in (0.5, 1.0):
        theirs = models.MobileNetV2(num_classes=10, width_mult=width, dropout=0.0).eval()
        theirs.features[0][0].stride = (1, 1)
        theirs.features[2].conv[1][0].stride = (1, 1)
        ours = MobileNetV2(classes=10, width=width).eval()
        # the same tensors in the same order, so the same network
        tensors = dict(zip(ours.state_dict(), theirs.state_dict().values(), strict=True))
        ours.load_state_dict(tensors)
        images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            torch.testing.assert_close(ours(images), theirs(images))
