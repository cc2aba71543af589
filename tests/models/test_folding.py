from __future__ import annotations

import copy
import random
import subprocess
import sys
import threading
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from understudy.models import build
from understudy.models.folding import folded


def normalisations(model: nn.Module) -> list[str]:
    return [name for name, module in model.named_modules() if isinstance(module, _BatchNorm)]


def trained(model: nn.Module, *, channels: int = 3, size: int = 16, seed: int = 0) -> nn.Module:
    """Frozen, with statistics of made-up images and scales, shifts and biases that are not the initial ones."""
    drawn = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, _BatchNorm) and module.weight is not None:
                module.weight.uniform_(0.5, 1.5, generator=drawn)
                module.bias.normal_(0.0, 0.5, generator=drawn)
        model.train()
        for _ in range(2):
            model(2.0 * images(8, channels=channels, size=size, generator=drawn) + 0.5)
    return model.eval().requires_grad_(False)


def images(
    count: int = 4, *, channels: int = 3, size: int = 16, generator: torch.Generator | None = None
) -> Tensor:
    generator = generator or torch.Generator().manual_seed(1)
    return torch.randn(count, channels, size, size, generator=generator)


def assert_same_answers(one: nn.Module, other: nn.Module, example: Tensor, share: float = 1e-5) -> None:
    with torch.no_grad():
        expected, answers = one(example), other(example)
    assert answers.dtype == expected.dtype
    torch.testing.assert_close(answers, expected, rtol=0, atol=share * float(expected.abs().max()))


def assert_unfolded(model: nn.Module, example: Tensor | None = None) -> nn.Module:
    """Comes back as it is: the same modules, the same bits, a copy."""
    result = folded(model, images() if example is None else example)
    assert result is not model
    assert [(name, type(module)) for name, module in result.named_modules()] == [
        (name, type(module)) for name, module in model.named_modules()
    ]
    assert_same_state(result.state_dict(), model.state_dict())
    assert not any(module.training for module in result.modules())
    assert not any(parameter.requires_grad for parameter in result.parameters())
    return result


def assert_same_state(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert list(one) == list(other)
    assert all(torch.equal(one[name], other[name]) for name in one)


class Head(nn.Module):
    """Any body of 8 channels, then the mean over each channel."""

    def forward(self, features: Tensor) -> Tensor:
        return features.mean((2, 3))


def pair(inputs: int = 3, outputs: int = 8) -> tuple[nn.Conv2d, nn.BatchNorm2d]:
    return nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs)


# what is folded


@pytest.mark.parametrize(
    ("name", "width", "left"),
    [
        ("plain_cnn-2", 1.0, 0),
        ("plain_cnn-10", 0.25, 0),
        ("plain_cnn_narrow-8", 1.0, 0),
        ("resnet-8", 1.0, 0),
        ("resnet-20", 1.0, 0),
        ("vgg-8", 0.25, 0),
        ("vgg-16", 0.25, 0),
        ("mobilenet_v2", 0.25, 0),
        ("allcnn", 0.25, 0),
        ("bottleneck_resnet-20", 0.5, 0),
        ("okd_vgg-16", 0.25, 0),
        # what a layer reads, of a block what its transition reads, and the last of all: several layers gave it
        ("densenet_bc-40-12", 0.5, 18 + 2 + 1),
        # the first of a block's two and the last of all normalise sums
        ("wrn-10-1", 1.0, 4),
        ("wrn-16-2", 1.0, 6),
    ],
)
def test_answers_of_every_family_are_the_same_to_float_tolerance(name: str, width: float, left: int) -> None:
    torch.manual_seed(0)
    model = trained(build(name, classes=10, size=(16, 16), width=width))
    result = folded(model, images())
    assert_same_answers(model, result, images(32, generator=torch.Generator().manual_seed(2)))
    assert len(normalisations(result)) == left
    assert not any(module.training for module in result.modules())
    assert not any(parameter.requires_grad for parameter in result.parameters())


def test_of_a_wide_resnet_the_normalisations_stay_that_no_convolution_is_followed_by() -> None:
    model = trained(build("wrn-10-1", classes=10))
    # stage1.0.norm1 follows the stem, but what the stem gives is added at the end of the block as well
    stay = ["stage1.0.norm1", "stage2.0.norm1", "stage3.0.norm1", "norm"]
    assert normalisations(folded(model, images())) == stay


def test_a_convolution_gets_the_weights_written_by_hand() -> None:
    model = trained(nn.Sequential(*pair(), Head()))
    convolution, normalisation = model[0], model[1]
    scale = normalisation.weight.double() / (normalisation.running_var.double() + normalisation.eps).sqrt()
    weight = convolution.weight.double() * scale[:, None, None, None]
    bias = (
        convolution.bias.double() - normalisation.running_mean.double()
    ) * scale + normalisation.bias.double()
    result = folded(model, images())
    assert torch.equal(result[0].weight, weight.float())
    assert torch.equal(result[0].bias, bias.float())


def test_a_layer_without_bias_and_a_normalisation_without_scale_and_shift_are_folded() -> None:
    for layer, normalisation in (
        (nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8, affine=False, eps=0.1)),
        (nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8, affine=False)),
        (nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8)),
    ):
        model = trained(nn.Sequential(layer, normalisation, Head()))
        result = folded(model, images())
        assert normalisations(result) == []
        assert_same_answers(model, result, images())


@pytest.mark.parametrize("affine", [True, False])
def test_linear_layers_and_convolutions_in_one_and_three_dimensions_are_folded(affine: bool) -> None:
    flat = nn.Sequential(nn.Flatten(), nn.Linear(768, 8), nn.BatchNorm1d(8, affine=affine), nn.ReLU())
    line = nn.Sequential(
        nn.Flatten(2), nn.Conv1d(3, 8, 5), nn.BatchNorm1d(8, affine=affine), nn.Flatten(1), nn.Linear(2016, 4)
    )
    solid = nn.Sequential(
        nn.Unflatten(1, (1, 3)), nn.Conv3d(1, 4, 3), nn.BatchNorm3d(4, affine=affine), nn.Flatten(1)
    )
    for model in (flat, line, solid):
        trained(model)
        result = folded(model, images())
        assert normalisations(result) == []
        assert_same_answers(model, result, images())


def test_dropout_in_eval_mode_between_the_two_is_no_obstacle() -> None:
    convolution, normalisation = pair()
    model = trained(nn.Sequential(convolution, nn.Dropout(0.5), nn.Identity(), normalisation, Head()))
    result = folded(model, images())
    assert normalisations(result) == []
    assert_same_answers(model, result, images())


def test_statistics_that_are_there_though_not_tracked_are_folded() -> None:
    model = trained(nn.Sequential(*pair(), Head()))
    model[1].track_running_stats = False  # in eval mode torch goes by whether there are statistics
    result = folded(model, images())
    assert normalisations(result) == []
    assert_same_answers(model, result, images())


class NormalisationWithActivation(nn.BatchNorm2d):
    """As timm has it: a normalisation that has modules of its own."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.drop = nn.Identity()
        self.act = nn.SiLU(inplace=True)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - so it is called in torch
        normalised = F.batch_norm(
            input,
            self.running_mean,
            self.running_var,
            self.weight,
            self.bias,
            self.training,
            self.momentum or 0.0,
            self.eps,
        )
        answer: Tensor = self.act(self.drop(normalised))
        return answer


def test_of_a_normalisation_with_an_activation_the_activation_stays_under_its_name() -> None:
    model = trained(nn.Sequential(nn.Conv2d(3, 8, 3), NormalisationWithActivation(8), Head()))
    result = folded(model, images())
    assert normalisations(result) == []
    assert isinstance(result.get_submodule("1.act"), nn.SiLU)
    assert_same_answers(model, result, images())


@pytest.mark.parametrize("more", [lambda out: 2.0 * out, lambda out: out.repeat(1, 2, 1, 1)])
def test_a_normalisation_that_does_something_else_as_well_stays(more: Callable[[Tensor], Tensor]) -> None:
    class Further(nn.BatchNorm2d):
        def forward(self, input: Tensor) -> Tensor:  # noqa: A002
            return more(super().forward(input))

    model = trained(nn.Sequential(*pair(), nn.Conv2d(8, 8, 1), Further(8), Head()))
    result = folded(model, images())
    assert normalisations(result) == ["3"]
    assert_same_answers(model, result, images())


def test_in_place_of_a_folded_normalisation_a_hook_sees_the_same_features() -> None:
    torch.manual_seed(0)
    model = trained(build("resnet-8", classes=10))
    result = folded(model, images())
    seen: list[Tensor] = []
    for network in (model, result):
        network.get_submodule("stage2.0.norm2").register_forward_hook(
            lambda m, i, output: seen.append(output)
        )
        network(images())
    torch.testing.assert_close(*seen, rtol=1e-4, atol=1e-4)


def test_two_names_of_one_normalisation_are_both_replaced() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = pair()
            self.same = self.norm

        def forward(self, pixels: Tensor) -> Tensor:
            return self.same(self.conv(pixels)).mean((2, 3))

    model = trained(Twice())
    result = folded(model, images())
    assert normalisations(result) == []
    assert_same_answers(model, result, images())


def test_weights_that_two_layers_share_are_folded_into_one_of_them_only() -> None:
    first, normalisation = pair(3, 3)
    second = nn.Conv2d(3, 3, 3, padding=1)
    second.weight = first.weight
    model = trained(nn.Sequential(first, normalisation, nn.ReLU(), second, Head()))
    result = folded(model, images())
    assert normalisations(result) == []
    assert torch.equal(result[3].weight, model[3].weight)
    assert_same_answers(model, result, images())


# what stays


class Body(nn.Module):
    """Two convolutions with normalisations; the second two are called in the way that is given."""

    def __init__(self, way: Callable[[Body, Tensor], object]) -> None:
        super().__init__()
        self.conv0, self.norm0 = pair()
        self.conv, self.norm = pair(8, 8)
        self.other = nn.Conv2d(8, 8, 1)
        self.way: Callable[[Body, Tensor], Tensor] = _one_after_the_other
        trained(self)
        self.way = way

    def forward(self, pixels: Tensor) -> Tensor:
        return self.way(self, self.norm0(self.conv0(pixels)))


def _one_after_the_other(body: Body, given: Tensor) -> Tensor:
    return body.norm(body.conv(given))


def _output_read_twice(body: Body, given: Tensor) -> Tensor:
    features = body.conv(given)
    return features + body.norm(features)


def _view_read_too(body: Body, given: Tensor) -> Tensor:
    features = body.conv(given)
    view = features[:, :4]
    return body.norm(features) + view.mean()


def _changed_in_between(body: Body, given: Tensor) -> Tensor:
    return body.norm(body.conv(given).relu_())


def _changed_afterwards(body: Body, given: Tensor) -> Tensor:
    features = body.conv(given)
    normalised = body.norm(features)
    return normalised + features.zero_()


def _written_over_afterwards(body: Body, given: Tensor) -> Tensor:
    features = body.conv(given)
    normalised = body.norm(features)
    torch.mul(given, 2.0, out=features)
    return normalised


def _layer_called_before(body: Body, given: Tensor) -> Tensor:
    before = body.conv(given.flip(2)).abs()
    return before + body.norm(body.conv(given))


def _layer_called_twice(body: Body, given: Tensor) -> Tensor:
    return body.norm(body.conv(given)) + body.conv(given.flip(2))


def _both_called_twice(body: Body, given: Tensor) -> Tensor:
    return body.norm(body.conv(given)) + body.norm(body.conv(given.flip(2)))


def _normalisation_called_twice(body: Body, given: Tensor) -> Tensor:
    return body.norm(body.other(body.norm(body.conv(given))))


def _function_in_place_of_the_module(body: Body, given: Tensor) -> Tensor:
    norm = body.norm
    return F.batch_norm(body.conv(given), norm.running_mean, norm.running_var, norm.weight, norm.bias)


def _forward_called_by_itself(body: Body, given: Tensor) -> Tensor:
    return body.norm.forward(body.conv.forward(given))


@pytest.mark.parametrize(
    "way",
    [
        _output_read_twice,
        _view_read_too,
        _changed_in_between,
        _changed_afterwards,
        _written_over_afterwards,
        _layer_called_before,
        _layer_called_twice,
        _both_called_twice,
        _normalisation_called_twice,
        _function_in_place_of_the_module,
        _forward_called_by_itself,
    ],
    ids=lambda way: way.__name__.strip("_"),
)
def test_a_pair_that_could_not_be_one_layer_stays_and_others_are_folded(
    way: Callable[[Body, Tensor], Tensor],
) -> None:
    model = Body(way)
    result = folded(model, images())
    assert normalisations(result) == ["norm"]
    assert_same_answers(model, result, images())


def _weights_read_elsewhere(body: Body, given: Tensor) -> Tensor:
    return body.norm(body.conv(given)) * body.conv.weight.abs().sum()


def _normalisation_read_elsewhere(body: Body, given: Tensor) -> Tensor:
    return body.norm(body.conv(given)) * body.norm.num_features


def _goes_by_type(body: Body, given: Tensor) -> Tensor:
    features = body.conv(given)
    return body.norm(features) if isinstance(body.norm, nn.BatchNorm2d) else body.other(features)


def _goes_by_value(body: Body, given: Tensor) -> Tensor:
    features = body.conv(given)
    return body.norm(features) if given.mean() > -10 else features


def _goes_by_item(body: Body, given: Tensor) -> Tensor:
    return body.norm(body.conv(given)) * (2 if given.max().item() > 3 else 1)


def _goes_by_how_many(body: Body, given: Tensor) -> Tensor:
    bright = given[given.mean((1, 2, 3)) > -10]
    return body.norm(body.conv(bright)) if len(bright) > 1 else body.conv(bright)


def _goes_by_equality(body: Body, given: Tensor) -> Tensor:
    features = body.conv(given)
    return features if torch.equal(given, -given) else body.norm(features)


def _fails(body: Body, given: Tensor) -> Tensor:
    raise ValueError("not these images")


@pytest.mark.parametrize(
    "way",
    [
        _weights_read_elsewhere,
        _normalisation_read_elsewhere,
        _goes_by_type,
        _goes_by_value,
        _goes_by_item,
        _goes_by_how_many,
        _goes_by_equality,
        _fails,
    ],
    ids=lambda way: way.__name__.strip("_"),
)
def test_a_network_of_which_one_run_does_not_show_enough_stays_whole(
    way: Callable[[Body, Tensor], Tensor],
) -> None:
    assert_unfolded(Body(way))


def test_statistics_of_the_batch_are_not_folded() -> None:
    without = nn.BatchNorm2d(8, track_running_stats=False)
    lost = nn.BatchNorm2d(8)
    for normalisation in (without, lost):
        model = trained(nn.Sequential(*pair(), nn.Conv2d(8, 8, 1), normalisation, Head()))
        lost.running_mean = lost.running_var = None
        result = folded(model, images())
        assert normalisations(result) == ["3"]
        assert_same_answers(model, result, images())


def test_transposed_convolutions_and_other_normalisations_stay() -> None:
    for layers in (
        [nn.ConvTranspose2d(3, 8, 3), nn.BatchNorm2d(8)],
        [nn.ConvTranspose2d(3, 6, 3, groups=3), nn.BatchNorm2d(6)],
        [nn.Conv2d(3, 8, 3), nn.InstanceNorm2d(8, affine=True, track_running_stats=True)],
        [nn.Conv2d(3, 8, 3), nn.GroupNorm(2, 8)],
    ):
        assert_unfolded(trained(nn.Sequential(*layers, Head())))


def test_after_a_linear_layer_on_a_sequence_the_normalisation_is_over_the_sequence_and_stays() -> None:
    # as many positions as outputs, so that the shapes would fit
    line = nn.Sequential(nn.Flatten(2), nn.Linear(256, 8), nn.BatchNorm1d(8), nn.Flatten(1))
    model = trained(nn.Sequential(*pair(), line))
    result = folded(model, images())
    assert normalisations(result) == ["2.2"]
    assert_same_answers(model, result, images())


def test_layers_of_other_types_stay() -> None:
    class Standardised(nn.Conv2d):
        def forward(self, input: Tensor) -> Tensor:  # noqa: A002
            weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
            return F.conv2d(input, weight, self.bias)

    parametrised = nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 8, 3))
    for layer in (Standardised(3, 8, 3), parametrised):
        assert_unfolded(trained(nn.Sequential(layer, nn.BatchNorm2d(8), Head())))
    layer, normalisation = pair()
    nn.utils.parametrize.register_parametrization(normalisation, "weight", nn.Softplus())
    # the layer's output is normalised with a scale that is computed anew
    model = nn.Sequential(layer, normalisation, Head()).eval().requires_grad_(False)
    result = folded(model, images())
    assert_same_answers(model, result, images())


class Other(nn.Parameter):
    """A tensor type of somebody else's, such as the quantised ones."""


def test_weights_of_other_tensor_types_stay() -> None:
    layer, normalisation = pair()
    model = trained(nn.Sequential(layer, normalisation, Head()))
    layer.weight = Other(layer.weight.detach(), requires_grad=False)
    result = folded(model, images())
    assert normalisations(result) == ["1"]


@pytest.mark.parametrize("answer", [lambda out: (out, out), lambda out: {"logits": out}, lambda out: None])
def test_networks_that_give_something_else_than_one_tensor_stay(answer: Callable[[Tensor], object]) -> None:
    assert_unfolded(Body(lambda body, given: answer(_one_after_the_other(body, given))))


def test_networks_without_batch_normalisation_are_not_run() -> None:
    class NotRun(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(3, 3)

        def forward(self, pixels: Tensor) -> Tensor:
            raise AssertionError

    assert_unfolded(NotRun().eval().requires_grad_(False))


@pytest.mark.parametrize("attach", ["register_forward_hook", "register_forward_pre_hook"])
def test_networks_with_hooks_stay_and_the_hooks_are_not_called(attach: str) -> None:
    model = trained(nn.Sequential(nn.Sequential(*pair()), Head()))
    calls: list[object] = []
    getattr(model[0][1], attach)(lambda *seen: calls.append(seen))
    result = assert_unfolded(model)
    assert calls == []
    result(images())
    assert len(calls) == 1


@pytest.mark.parametrize("draw", [lambda out: F.dropout(out), lambda out: out + torch.rand(())])
def test_a_network_that_draws_random_numbers_stays_and_the_generator_is_not_touched(
    draw: Callable[[Tensor], Tensor],
) -> None:
    model = Body(lambda body, given: draw(_one_after_the_other(body, given)))
    before = torch.get_rng_state()
    assert_unfolded(model)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_network_with_attention_is_folded() -> None:
    def attend(body: Body, given: Tensor) -> Tensor:
        tokens = _one_after_the_other(body, given).flatten(2)[:, None]
        return F.scaled_dot_product_attention(tokens, tokens, tokens)

    model = Body(attend)
    result = folded(model, images())
    assert normalisations(result) == []
    assert_same_answers(model, result, images())


def test_answers_that_are_not_finite_leave_the_network_unfolded() -> None:
    model = trained(nn.Sequential(*pair(), Head()))
    model[1].running_var[0] = float("nan")
    result = folded(model, images())
    assert normalisations(result) == ["1"]


def test_weights_that_a_half_precision_network_could_not_hold_leave_it_unfolded() -> None:
    model = trained(nn.Sequential(*pair(), Head())).half()
    model[1].running_var[0], model[1].eps = 1e-6, 0.0
    model[1].weight[0] = 60000.0
    model[0].weight[0], model[0].bias[0] = 1.0, float(model[1].running_mean[0])
    result = folded(model, images().half())
    assert normalisations(result) == ["1"]


def test_what_cannot_be_copied_comes_back_itself() -> None:
    model = trained(nn.Sequential(*pair(), Head()))
    model.session = threading.Lock()
    assert folded(model, images()) is model
    assert normalisations(model) == ["1"]


# what does not change


def test_the_network_that_was_given_is_unchanged_and_shares_nothing() -> None:
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = pair()
            self.head = nn.Linear(8, 4)
            self.register_buffer("runs", torch.zeros(()))
            self.seen: list[object] = []

        def forward(self, pixels: Tensor) -> Tensor:
            self.runs += 1
            self.seen.append(pixels.shape)
            return self.head(self.norm(self.conv(pixels)).mean((2, 3)))

    model = trained(Counting())
    model.requires_grad_(True)
    model.norm.train()
    example = images()
    state, given = copy.deepcopy(model.state_dict()), example.clone()
    runs = len(model.seen)
    result = folded(model, example)
    assert normalisations(result) == []
    assert not any(module.training for module in result.modules())
    assert not any(parameter.requires_grad for parameter in result.parameters())
    assert_same_state(model.state_dict(), state)
    assert torch.equal(example, given)
    assert len(model.seen) == len(result.seen) == runs
    assert torch.equal(result.runs, state["runs"])
    assert normalisations(model) == ["norm"]
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert model.norm.training
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in result.modules())
    for tensor in result.state_dict().values():
        tensor.fill_(7.0)
    assert_same_state(model.state_dict(), state)


def test_the_same_arguments_give_the_same_bits_and_no_generator_is_touched() -> None:
    model = trained(build("resnet-8", classes=10))
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    first = folded(model, images())
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (random.getstate(), np.random.get_state()[1].tolist()) == states[1:]
    torch.manual_seed(5)
    second = folded(model, images())
    assert_same_state(first.state_dict(), second.state_dict())
    with torch.no_grad():
        assert torch.equal(first(images()), second(images()))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_the_number_format_is_kept(dtype: torch.dtype) -> None:
    model = trained(nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), Head())).to(dtype)
    example = images().to(dtype)
    result = folded(model, example)
    assert {tensor.dtype for tensor in result.parameters()} == {dtype}
    share = 8 * torch.finfo(dtype).eps
    assert_same_answers(model, result, example, share=share)


def test_channels_last_is_kept() -> None:
    model = trained(nn.Sequential(*pair(), nn.ReLU(), *pair(8, 8), Head())).to(
        memory_format=torch.channels_last
    )
    example = images().contiguous(memory_format=torch.channels_last)
    result = folded(model, example)
    assert normalisations(result) == []
    assert all(result[at].weight.is_contiguous(memory_format=torch.channels_last) for at in (0, 3))
    assert_same_answers(model, result, example)


def test_an_autocast_around_the_call_changes_nothing() -> None:
    model = trained(build("resnet-8", classes=10))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        under = folded(model, images())
    assert_same_state(under.state_dict(), folded(model, images()).state_dict())


def test_another_thread_can_run_a_network_meanwhile() -> None:
    model, other = trained(build("resnet-20", classes=10)), trained(build("resnet-8", classes=10))
    done, wrong = threading.Event(), []

    def run() -> None:
        with torch.no_grad():
            expected = other(images())
            while not done.is_set():
                try:
                    if not torch.equal(other(images()), expected):
                        wrong.append("other bits")
                except Exception as error:
                    wrong.append(repr(error))

    thread = threading.Thread(target=run)
    thread.start()
    results = [folded(model, images()) for _ in range(3)]
    done.set()
    thread.join()
    assert wrong == []
    assert all(normalisations(result) == [] for result in results)


def test_torchs_compiler_is_not_imported() -> None:
    program = (
        "import sys, torch; from torch import nn; from understudy.models.folding import folded;"
        "net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).eval().requires_grad_(False);"
        "assert len(folded(net, torch.ones(2, 3, 8, 8))[1]) == 0;"
        "sys.exit('torch._dynamo' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


# any stack


@st.composite
def stacks(draw: st.DrawFn) -> nn.Sequential:
    layers: list[nn.Module] = []
    channels = 2
    for _ in range(draw(st.integers(1, 4))):
        groups = draw(st.sampled_from([1, 2]))
        outputs = draw(st.sampled_from([2, 4, 6]))
        convolution = nn.Conv2d(
            channels,
            outputs,
            draw(st.sampled_from([1, 2, 3])),
            stride=draw(st.sampled_from([1, 2])),
            padding=draw(st.sampled_from([1, 2])),
            dilation=draw(st.sampled_from([1, 2])),
            groups=groups,
            bias=draw(st.booleans()),
            padding_mode=draw(st.sampled_from(["zeros", "circular"])),
        )
        normalisation = nn.BatchNorm2d(
            outputs, affine=draw(st.booleans()), eps=draw(st.sampled_from([1e-5, 1e-1]))
        )
        # after its layer, before it, or not there
        layers += draw(
            st.sampled_from(
                [
                    [convolution, normalisation],
                    [nn.BatchNorm2d(channels), convolution],
                    [convolution],
                    [convolution, normalisation, nn.BatchNorm2d(outputs)],
                    [convolution, nn.Tanh(), normalisation],
                ]
            )
        )
        layers.append(draw(st.sampled_from([nn.ReLU(inplace=True), nn.GELU(), nn.Identity()])))
        channels = outputs
    return nn.Sequential(*layers, nn.Flatten())


@settings(max_examples=40, deadline=None)
@given(stack=stacks(), seed=st.integers(0, 2**31))
def test_any_stack_gives_the_same_answers_in_float64(stack: nn.Sequential, seed: int) -> None:
    drawn = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in stack.state_dict().values():
            if tensor.is_floating_point():
                tensor.uniform_(0.2, 1.5, generator=drawn)
                if tensor.dim() > 1:
                    tensor.sub_(0.8)
    model = stack.double().eval().requires_grad_(False)
    example = images(3, channels=2, size=9, generator=drawn).double()
    try:
        model(example)
    except RuntimeError:  # circular padding of more pixels than are left
        assume(False)
    result = folded(model, example)
    # directly after a layer, and that only once: identity is no operator
    order = [module for module in model if not isinstance(module, nn.Identity)]
    foldable = sum(
        isinstance(module, nn.BatchNorm2d) and isinstance(before, nn.Conv2d)
        for before, module in pairwise(order)
    )
    assert len(normalisations(model)) - len(normalisations(result)) == foldable
    other = images(5, channels=2, size=9, generator=drawn).double()
    assert_same_answers(model, result, other, share=1e-11)


# networks from elsewhere


@pytest.mark.parametrize(
    ("name", "left"),
    [
        ("resnet18", 0),
        ("mobilenetv3_small_050", 0),
        ("efficientnet_lite0", 0),
        ("regnetx_002", 0),
        ("vit_tiny_patch16_224", 0),
    ],
)
def test_networks_of_timm_are_folded(name: str, left: int) -> None:
    pytest.importorskip("timm")
    torch.manual_seed(0)
    model = trained(build(f"timm/{name}", classes=10, size=(64, 64)), size=64)
    result = folded(model, images(size=64))
    assert len(normalisations(result)) == left
    assert_same_answers(model, result, images(size=64))
