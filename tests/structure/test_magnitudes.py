from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from tests.structure.nets import Row, bare, conv, made, normed, stem
from understudy.structure.channels import Channels, read_channels
from understudy.structure.magnitudes import Magnitudes


def read(model: nn.Module, **takes: object) -> tuple[Channels, Magnitudes]:
    reading = read_channels(model, **(takes or {"channels": 2, "size": (6, 6)}))  # type: ignore[arg-type]
    return reading, Magnitudes(reading, model)


def of_group(reading: Channels, magnitudes: torch.Tensor, name: str) -> torch.Tensor:
    group = next(group for group in reading.groups if group.name == name)
    return magnitudes.detach()[group.start : group.start + len(group.rows)]


def gamma(model: nn.Module, name: str) -> torch.Tensor:
    return model.get_submodule(name).get_parameter("weight").detach()


def test_a_channel_has_the_size_of_its_norms_scale() -> None:
    model, takes = made("resnet")
    with torch.no_grad():
        gamma(model, "stage1.0.norm1").mul_(-2)
    reading, magnitudes = read(model, **takes)
    r = of_group(reading, magnitudes(model), "stage1.0.conv1")
    assert torch.equal(r, gamma(model, "stage1.0.norm1").abs())


def test_channels_that_are_added_have_the_largest() -> None:
    model, takes = made("resnet")
    reading, magnitudes = read(model, **takes)
    norms = ["stage2.0.norm2", "stage2.0.shortcut.norm", "stage2.1.norm2"]
    expected = torch.stack([gamma(model, name).abs() for name in norms]).amax(0)
    assert torch.equal(of_group(reading, magnitudes(model), "stage2.0.conv2"), expected)


def test_a_pre_activation_sum_has_the_largest_of_the_norms_that_read_it() -> None:
    model, takes = made("wrn")
    reading, magnitudes = read(model, **takes)
    expected = torch.maximum(gamma(model, "stage3.1.norm1").abs(), gamma(model, "norm").abs())
    assert torch.equal(of_group(reading, magnitudes(model), "stage3.0.shortcut"), expected)


def test_norms_after_a_depthwise_convolution_do_not_count() -> None:
    model, takes = made("mobilenet_v2")
    with torch.no_grad():
        gamma(model, "stage2.0.depthwise.norm").fill_(1e6)
    reading, magnitudes = read(model, **takes)
    r = of_group(reading, magnitudes(model), "stage2.0.expand.conv")
    assert torch.equal(r, gamma(model, "stage2.0.expand.norm").abs())
    everything = np.ones(reading.count, dtype=bool)
    assert "stage2.0.expand.norm.weight" in magnitudes.norm_scales(everything)
    assert not [name for name in magnitudes.norm_scales(everything) if "depthwise" in name]


def test_without_any_norm_it_is_the_root_mean_square_of_the_filter() -> None:
    model, takes = made("no norms")
    reading, magnitudes = read(model, **takes)
    weight = gamma(model, "body.0")
    r = of_group(reading, magnitudes(model), "body.0")
    torch.testing.assert_close(r, weight.square().mean((1, 2, 3)).sqrt())
    assert magnitudes.norm_scales(np.ones(reading.count, dtype=bool)) == ()


def test_beside_norms_it_is_the_length_of_the_filter() -> None:
    model = Row(stem(), bare(), 5)
    reading, magnitudes = read(model)
    weight = gamma(model, "body.0")
    r = of_group(reading, magnitudes(model), "body.0")
    torch.testing.assert_close(r, weight.square().sum((1, 2, 3)).sqrt())


class Added(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = conv(4, 4)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.layer(features) + features
        return out


def test_of_several_filters_the_longest_counts() -> None:
    model = Row(conv(2, 4), Added(), 4)
    with torch.no_grad():
        model.stem.get_parameter("weight")[1] = 0
    reading, magnitudes = read(model)
    lengths = [gamma(model, name).square().mean((1, 2, 3)).sqrt() for name in ("stem", "body.layer")]
    assert lengths[0][1] == 0
    torch.testing.assert_close(of_group(reading, magnitudes(model), "stem"), torch.maximum(*lengths))


@pytest.mark.parametrize("name", ["resnet", "mobilenet_v2", "no norms", "gated", "flat"])
def test_the_gradient_goes_to_the_largest_member_only(name: str) -> None:
    model, takes = made(name)
    reading, magnitudes = read(model, **takes)
    direction = torch.randn(reading.count, generator=torch.Generator().manual_seed(0))
    (magnitudes(model) @ direction).backward()  # type: ignore[no-untyped-call]
    step = 1e-3
    moved = {n: p.grad * step for n, p in model.named_parameters() if p.grad is not None}
    before = magnitudes(model).detach()
    with torch.no_grad():
        for parameter_name, change in moved.items():
            model.get_parameter(parameter_name).add_(change)
    risen = float((magnitudes(model).detach() - before) @ direction)
    squares = sum(float((change / step).square().sum()) for change in moved.values())
    assert risen == pytest.approx(step * squares, rel=0.05)


def test_a_filter_of_zeros_has_a_gradient_that_is_a_number() -> None:
    model, takes = made("no norms")
    with torch.no_grad():
        model.get_submodule("body.0").get_parameter("weight").zero_()
    _, magnitudes = read(model, **takes)
    magnitudes(model).sum().backward()  # type: ignore[no-untyped-call]
    grad = model.get_submodule("body.0").get_parameter("weight").grad
    assert grad is not None
    assert torch.isfinite(grad).all()


def test_norms_without_a_scale_are_passed_by() -> None:
    model = Row(stem(), nn.Sequential(conv(4, 5), nn.BatchNorm2d(5, affine=False)), 5)
    reading, magnitudes = read(model)
    torch.testing.assert_close(
        of_group(reading, magnitudes(model), "body.0"), gamma(model, "body.0").square().sum((1, 2, 3)).sqrt()
    )


def test_only_norms_of_the_given_channels_are_named() -> None:
    model = Row(stem(), normed(conv(4, 5)), 5)
    reading, magnitudes = read(model)
    first = np.arange(reading.count) < 4
    assert magnitudes.norm_scales(first) == ("stem.1.weight",)
    assert magnitudes.norm_scales(~first) == ("body.1.weight",)
