from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from understudy.errors import BadInput
from understudy.models import build
from understudy.models.describe import architecture_of
from understudy.models.strips import stripped

# of the wide ResNets with 3x3 filters and with 1x3 ones, 100 classes, in millions; and their ratio
COUNTS = [
    ("wrn-40-4", "8.972", "3.043", "0.339"),
    ("wrn-40-2", "2.255", "0.771", "0.342"),
    ("wrn-40-1", "0.570", "0.198", "0.347"),
    ("wrn-28-4", "5.872", "2.007", "0.342"),
    ("wrn-16-4", "2.772", "0.972", "0.350"),
    ("wrn-16-2", "0.703", "0.251", "0.357"),
    ("wrn-16-1", "0.181", "0.067", "0.370"),
]


def parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize(("name", "square", "strip", "ratio"), COUNTS)
def test_parameters_are_those_counted_from_the_paper(name: str, square: str, strip: str, ratio: str) -> None:
    model = build(name, classes=100)
    small = stripped(model, 3)
    assert f"{parameters(model) / 1e6:.3f}" == square
    assert f"{parameters(small) / 1e6:.3f}" == strip
    assert f"{parameters(small) / parameters(model):.3f}" == ratio


def test_only_filters_taller_than_a_row_are_replaced() -> None:
    model = build("wrn-16-1", classes=10)
    small = stripped(model, 5)
    before, after = dict(model.named_modules()), dict(small.named_modules())
    assert list(before) == list(after)
    for name, layer in before.items():
        if isinstance(layer, nn.Conv2d):
            other = after[name]
            assert isinstance(other, nn.Conv2d)
            if layer.kernel_size == (1, 1):
                assert torch.equal(other.weight, layer.weight)
            else:
                assert (other.kernel_size, other.padding, other.stride) == ((1, 5), (0, 2), layer.stride)
        elif not list(layer.children()):
            assert str(after[name]) == str(layer)


def test_the_model_that_is_given_stays_as_it_is() -> None:
    model = build("resnet-8", classes=10)
    text = str(model)
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    small = stripped(model, 3)
    assert str(model) == text
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    ours = {id(parameter) for parameter in model.parameters()}
    assert not ours & {id(parameter) for parameter in small.parameters()}


def test_stride_groups_bias_mode_and_dilation_along_the_row_stay() -> None:
    layers: list[dict[str, Any]] = [
        {"kernel_size": 3, "padding": 1, "bias": True},
        {"kernel_size": 3, "padding": 1, "groups": 4, "bias": False},
        {"kernel_size": 5, "padding": 2, "stride": (2, 1)},
        {"kernel_size": (7, 1), "padding": (3, 0)},
        {"kernel_size": 3, "padding": 2, "dilation": 2, "padding_mode": "circular"},
    ]
    for said in layers:
        model = nn.Sequential(nn.Conv2d(4, 8, **said))
        before, after = model[0], stripped(model, 3)[0]  # type: ignore[index]
        assert after.kernel_size == (1, 3)
        for what in ("in_channels", "out_channels", "stride", "groups", "padding_mode"):
            assert getattr(after, what) == getattr(before, what)
        assert (after.bias is None) == (before.bias is None)
        assert after.dilation == (1, before.dilation[1])
        images = torch.zeros(1, 4, 12, 9)
        assert after(images).shape == before(images).shape


@given(
    n=st.integers(1, 4).map(lambda half: 2 * half + 1), size=st.tuples(st.integers(1, 9), st.integers(9, 12))
)
@settings(max_examples=15, deadline=None)
def test_a_strip_gives_as_many_rows_and_columns_as_the_square_filter(n: int, size: tuple[int, int]) -> None:
    images = torch.zeros(1, 1, *size)
    for stride in (1, 2):
        square = nn.Sequential(nn.Conv2d(1, 1, n, stride=stride, padding=n // 2))
        assert stripped(square, n)(images).shape == square(images).shape


def test_new_weights_are_drawn_as_torch_draws_them_from_the_global_generator() -> None:
    model = build("resnet-8", classes=10)

    def drawn(seed: int) -> dict[str, Tensor]:
        torch.manual_seed(seed)
        return stripped(model, 3).state_dict()

    one, again, other = drawn(1), drawn(1), drawn(2)
    assert all(torch.equal(one[name], again[name]) for name in one)
    weight = one["stage3.0.conv2.weight"]
    assert not torch.equal(weight, other["stage3.0.conv2.weight"])
    bound = 1 / math.sqrt(64 * 3)  # uniform within 1 / sqrt(inputs of a filter)
    assert 0.99 * bound < float(weight.abs().max()) <= bound
    assert torch.equal(one["head.weight"], model.state_dict()["head.weight"])


@pytest.mark.parametrize("name", ["wrn-16-1", "resnet-14", "mobilenet_v2"])
@pytest.mark.parametrize("row", [0, 3, 4, 15])
def test_rows_never_meet_before_the_final_pooling(name: str, row: int) -> None:
    torch.manual_seed(0)
    model = stripped(build(name, classes=10, size=(16, 16), width=0.25), 3)
    with torch.no_grad():
        model(torch.randn(8, 3, 16, 16))  # other than the initial statistics
    features: list[Tensor] = []
    model.eval()
    model.get_submodule("pool").register_forward_pre_hook(lambda module, inputs: features.append(inputs[0]))
    images = torch.randn(2, 3, 16, 16)
    changed = images.clone()
    changed[:, :, row] += 1.0
    with torch.no_grad():
        model(images)
        model(changed)
    rows = features[0].shape[2]
    step = 16 // rows  # stride leaves out all rows but every fourth, or every eighth
    for out in range(rows):
        same = torch.equal(features[0][:, :, out], features[1][:, :, out])
        assert same == (out * step != row), (out, row)


def test_rows_do_meet_where_some_filters_are_square() -> None:
    torch.manual_seed(0)
    model = stripped(build("wrn-16-1", classes=10), 3, part="late").eval()
    features: list[Tensor] = []
    model.get_submodule("pool").register_forward_pre_hook(lambda module, inputs: features.append(inputs[0]))
    images = torch.randn(1, 3, 32, 32)
    changed = images.clone()
    changed[:, :, 5] += 1.0
    with torch.no_grad():
        model(images)
        model(changed)
    assert sum(not torch.equal(*(f[:, :, out] for f in features)) for out in range(8)) > 1


@pytest.mark.parametrize(
    ("name", "squares"),
    [
        (
            "wrn-16-1",
            [
                "stem",
                "stage1.0.conv1",
                "stage1.0.conv2",
                "stage1.1.conv1",
                "stage1.1.conv2",
                "stage2.0.conv1",
            ],
        ),
        ("plain_cnn-2", ["features.conv1"]),
        ("plain_cnn-3", ["features.conv1"]),
    ],
)
def test_late_leaves_the_first_half_square(name: str, squares: list[str]) -> None:
    model = stripped(build(name, classes=10, width=0.25), 3, part="late")
    convolutions = {n: layer for n, layer in model.named_modules() if isinstance(layer, nn.Conv2d)}
    assert [n for n, layer in convolutions.items() if layer.kernel_size == (3, 3)] == squares
    strips = sum(layer.kernel_size == (1, 3) for layer in convolutions.values())
    assert strips - len(squares) in (0, 1)


def test_a_mixed_network_lies_between_the_square_one_and_the_strips() -> None:
    model = build("wrn-16-1", classes=100)
    assert parameters(stripped(model, 3)) < parameters(stripped(model, 3, part="late")) < parameters(model)


def test_a_layer_in_two_places_stays_one() -> None:
    layer = nn.Conv2d(4, 4, 3, padding=1)
    small = stripped(nn.Sequential(layer, nn.ReLU(), layer), 3)
    assert small[0] is small[2]  # type: ignore[index]
    assert parameters(small) == 4 * 4 * 3 + 4


def test_mode_number_format_and_frozenness_stay() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3)).eval().requires_grad_(False).to(torch.float64)
    strip = stripped(model, 3)[0]  # type: ignore[index]
    assert not strip.training
    assert strip.weight.dtype == torch.float64
    assert not strip.weight.requires_grad


def test_what_is_described_rebuilds_the_strips() -> None:
    model = stripped(build("plain_cnn-4", classes=7, size=(16, 16), width=0.3), 5).eval()
    description = architecture_of(model, "plain_cnn-4", {"classes": 7})
    again = nn.Sequential(
        *(getattr(nn, layer["type"])(**layer["arguments"]) for layer in description["layers"])
    )
    named = dict(zip(again.state_dict(), model.state_dict().values(), strict=True))
    again.load_state_dict(named)
    images = torch.randn(2, 3, 16, 16)
    assert torch.equal(again.eval()(images), model(images))
    assert description["layers"][0]["arguments"]["kernel_size"] == [1, 5]


@pytest.mark.parametrize("n", [0, 1, 2, 4, -3, 101, True, 3.0, "3", None])
def test_a_length_that_is_not_odd_and_3_or_more_is_refused(n: Any) -> None:
    with pytest.raises(BadInput) as caught:
        stripped(build("plain_cnn-2", classes=10), n)
    assert repr(n) in str(caught.value)
    assert "odd" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unknown_part_is_refused() -> None:
    with pytest.raises(BadInput, match="'early' is none of all, late"):
        stripped(build("plain_cnn-2", classes=10), 3, part="early")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "model",
    [
        nn.Sequential(nn.Flatten(), nn.Linear(12, 2)),
        nn.Sequential(nn.Conv2d(3, 4, 1)),
        nn.Sequential(nn.Conv2d(3, 4, (1, 3))),
    ],
)
def test_a_network_without_such_filters_is_refused(model: nn.Module) -> None:
    with pytest.raises(BadInput, match="Sequential has no convolution whose filter is taller than one row"):
        stripped(model, 3)


class Same(nn.Conv2d):
    """A convolution of someone else's."""


@pytest.mark.parametrize("layer", [Same(4, 4, 3), nn.ConvTranspose2d(4, 4, 3)])
def test_a_convolution_that_is_not_torchs_plain_one_is_named(layer: nn.Module) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Sequential(copy.deepcopy(layer)))
    with pytest.raises(BadInput, match=rf"the layer 1\.0 is a {type(layer).__name__}"):
        stripped(model, 3)


@pytest.mark.parametrize("name", ["timm/resnet18", "torchvision/mobilenet_v2"])
def test_networks_from_elsewhere_are_stripped_too(name: str) -> None:
    pytest.importorskip(name.partition("/")[0])
    small = stripped(build(name, classes=5, size=(64, 64)), 3)
    assert all(m.kernel_size[0] == 1 for m in small.modules() if isinstance(m, nn.Conv2d))
    assert small.eval()(torch.zeros(1, 3, 64, 64)).shape == (1, 5)
