from __future__ import annotations

import inspect

import pytest
import torch
from torch import nn

import understudy.models
from understudy.errors import BadInput
from understudy.models import build

SMALL = [
    *("plain_cnn-2", "plain_cnn-7", "plain_cnn_narrow-8", "resnet-8", "wrn-10-1", "vgg-8", "mobilenet_v2"),
    *("allcnn", "densenet_bc-40-12", "bottleneck_resnet-20", "okd_wrn-20-8", "okd_vgg-16"),
]


def images(batch: int, channels: int = 3, size: tuple[int, int] = (16, 16)) -> torch.Tensor:
    return torch.randn(batch, channels, *size, generator=torch.Generator().manual_seed(1))


def test_the_public_names_are_these() -> None:
    assert understudy.models.__all__ == ["build", "built_in_names", "check_name"]
    assert list(inspect.signature(build).parameters) == [
        "name",
        "classes",
        "channels",
        "size",
        "width",
        "pretrained",
    ]


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_logits_come_for_every_channel_count_and_image_shape(name: str, channels: int) -> None:
    for size in ((16, 16), (16, 24), (33, 17)):
        model = build(name, classes=5, channels=channels, size=size, width=0.25)
        assert model(images(2, channels, size)).shape == (2, 5)


@pytest.mark.parametrize("name", SMALL)
def test_the_gradient_reaches_every_parameter(name: str) -> None:
    torch.manual_seed(0)
    model = build(name, classes=5, size=(16, 16), width=0.5)
    logits = model(images(8))
    nn.functional.cross_entropy(logits, torch.arange(8) % 5).backward()  # type: ignore[no-untyped-call]
    for parameter_name, parameter in model.named_parameters():
        assert parameter.grad is not None, parameter_name
        # a bias before a batch norm has a gradient of zero but for rounding: the norm takes the mean away
        assert bool(torch.isfinite(parameter.grad).all()), parameter_name
        if parameter.ndim > 1:
            assert bool(parameter.grad.any()), parameter_name


@pytest.mark.parametrize("name", SMALL)
def test_in_eval_mode_logits_repeat_and_do_not_depend_on_the_batch(name: str) -> None:
    torch.manual_seed(0)
    model = build(name, classes=5, size=(16, 16), width=0.5)
    batch = images(6)
    model(batch)  # statistics other than the initial ones
    model.eval()
    with torch.no_grad():
        together = model(batch)
        assert torch.equal(together, model(batch))
        alone = torch.cat([model(batch[position : position + 1]) for position in range(6)])
    torch.testing.assert_close(alone, together, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", SMALL)
def test_the_seed_decides_the_initial_weights(name: str) -> None:
    def drawn(seed: int) -> dict[str, torch.Tensor]:
        torch.manual_seed(seed)
        return build(name, classes=5, size=(16, 16), width=0.25).state_dict()

    one, again, other = drawn(1), drawn(1), drawn(2)
    assert all(torch.equal(one[key], again[key]) for key in one)
    assert any(not torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize("name", SMALL)
def test_parameters_grow_with_width_and_a_tiny_width_leaves_one_channel(name: str) -> None:
    # of mobilenet_v2 the smallest multiple of 8, six times that inside blocks, and in the last convolution all; of a
    # DenseNet one channel that a layer adds, four inside it, and in a transition half of the 1 + 6 that it gets
    smallest = {"mobilenet_v2": {8, 48, 1280}, "densenet_bc-40-12": {1, 4, 3}}.get(name, {1})
    counts = []
    for width in (0.001, 0.25, 0.5, 0.75, 1.0, 1.5):
        with torch.device("meta"):
            model = build(name, classes=5, size=(16, 16), width=width)
        counts.append(sum(parameter.numel() for parameter in model.parameters()))
        if width == 0.001:
            convolutions = [layer for layer in model.modules() if isinstance(layer, nn.Conv2d)]
            assert {layer.out_channels for layer in convolutions} == smallest
    assert counts == sorted(set(counts))


@pytest.mark.parametrize("name", [*SMALL, "densenet-121", "plain_cnn_narrow-2", "resnet-32", "vgg-16"])
def test_a_network_is_a_chain_of_its_children(name: str) -> None:
    # so that it can be cut in two anywhere between them
    torch.manual_seed(0)
    model = build(name, classes=5, size=(16, 16), width=0.25).eval()
    passed = images(2)
    for part in model.children():
        passed = part(passed)
    assert torch.equal(passed, model(images(2)))
    last = list(dict(model.named_modules()).items())[-1]
    assert isinstance(last[1], nn.Linear)
    assert last[0] == ("classifier.output" if name.startswith("plain_cnn") else "head")


@pytest.mark.parametrize("name", SMALL)
def test_the_forward_pass_can_be_exported_whole(name: str) -> None:
    # torch.export sees the whole forward pass: no data-dependent branch, no state that it changes in eval mode
    model = build(name, classes=5, size=(16, 16), width=0.25).eval()
    program = torch.export.export(model, (images(2),))
    torch.testing.assert_close(program.module()(images(2)), model(images(2)))


@pytest.mark.parametrize("width", [0, -0.5, float("nan"), float("inf"), 1e6])
def test_an_impossible_width_is_refused(width: float) -> None:
    with pytest.raises(BadInput, match="width multiplies"):
        build("resnet-8", classes=10, width=width)


def test_one_class_is_refused() -> None:
    with pytest.raises(BadInput, match="classes must be"):
        build("resnet-8", classes=1)


def test_a_built_in_network_has_no_published_weights() -> None:
    with pytest.raises(BadInput, match="resnet-8 has no published weights"):
        build("resnet-8", classes=10, pretrained=True)


def test_an_unknown_name_is_refused_before_anything_is_built() -> None:
    with pytest.raises(BadInput, match="there is no plain_cnn-11"):
        build("plain_cnn-11", classes=10)
