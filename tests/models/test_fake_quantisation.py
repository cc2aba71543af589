from __future__ import annotations

import copy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from tests.deploy.int8_networks import MobileBlock
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from understudy.errors import BadInput
from understudy.models import build
from understudy.models.fake_quantisation import (
    ChannelAffine,
    calibrate,
    fake_quantised,
    float_twin,
    integers,
)
from understudy.models.fake_quantised_layers import (
    MOMENTUM,
    FakeQuantisedConv2d,
    FakeQuantisedLinear,
    TrackedRange,
)
from understudy.models.folding import folded

EXAMPLE = torch.zeros(2, 3, 16, 16)


def images(count: int = 16, *, seed: int = 1, size: int = 16) -> Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(seed))


def trained(model: nn.Module, *, seed: int = 0) -> nn.Module:
    """Scales, shifts and statistics that are not the initial ones, as after a training."""
    drawn = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, _BatchNorm):
                module.weight.uniform_(0.5, 1.5, generator=drawn)
                module.bias.normal_(0.0, 0.3, generator=drawn)
        model.train()
        for number in range(3):
            model(images(32, seed=number))
    return model.eval()


def network(name: str = "resnet-8", *, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return build(name, classes=10, size=(16, 16))


def quantised(model: nn.Module, *, batches: int = 2) -> nn.Module:
    wrapped = fake_quantised(model, EXAMPLE)
    calibrate(wrapped, [images(32, seed=10 + number) for number in range(batches)])
    return wrapped


# one layer, by hand


def test_a_layer_computes_what_its_integers_do() -> None:
    torch.manual_seed(0)
    wrapped = quantised(nn.Sequential(nn.Conv2d(3, 5, 3, stride=2, padding=1), nn.Flatten()))
    ((_, own),) = integers(wrapped).items()
    pixels = images(4, seed=3)
    rounded = (pixels.numpy() / own.input.scale).round() + own.input.zero_point
    levels = np.clip(rounded, 0, 255) - own.input.zero_point
    assert own.bias is not None
    sums = F.conv2d(
        torch.from_numpy(levels).double(), torch.from_numpy(own.weight).double(), stride=2, padding=1
    ) + torch.from_numpy(own.bias).double().view(1, -1, 1, 1)
    expected = sums * own.input.scale * torch.from_numpy(own.weight_scale).double().view(1, -1, 1, 1)
    with torch.no_grad():
        answer = wrapped(pixels)
    torch.testing.assert_close(answer, expected.flatten(1).float(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("bits", "limit"), [(8, 127), (7, 63)])
def test_weights_are_symmetric_and_every_channel_uses_its_whole_range(bits: int, limit: int) -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(3, 4, 3)
    with torch.no_grad():
        layer.weight[2] *= 1000.0
    wrapped = fake_quantised(layer, EXAMPLE, weight_bits=bits)
    calibrate(wrapped, [images()])
    (own,) = integers(wrapped).values()
    assert own.weight.dtype == np.int8
    assert np.abs(own.weight.astype(int)).reshape(4, -1).max(1).tolist() == [limit] * 4
    expected = layer.weight.detach().flatten(1).abs().amax(1) / limit
    torch.testing.assert_close(torch.from_numpy(own.weight_scale), expected)
    step = torch.from_numpy(own.weight_scale).view(-1, 1, 1, 1)
    assert ((torch.from_numpy(own.weight) * step - layer.weight).abs() <= 0.5001 * step).all()


def test_a_dead_channel_and_a_bias_too_wide_for_32_bits_are_kept_right() -> None:
    layer = nn.Linear(4, 3)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[0.0] * 4, [1e-9, -1e-9, 1e-9, 0.0], [1.0, -1.0, 0.5, 0.25]]))
        layer.bias.copy_(torch.tensor([-3.0, 4.0, 0.5]))
    wrapped = fake_quantised(layer, torch.zeros(2, 4))
    given = torch.linspace(-1.0, 1.0, 32).view(8, 4)
    calibrate(wrapped, [given])
    with torch.no_grad():
        torch.testing.assert_close(wrapped(given), layer(given), atol=0.02, rtol=0.0)
    (own,) = integers(wrapped).values()
    assert own.bias is not None
    scale = own.input.scale * own.weight_scale.astype(np.float64)
    np.testing.assert_allclose(own.bias * scale, [-3.0, 4.0, 0.5], rtol=1e-4)


def test_rounding_passes_gradients_inside_the_range_and_none_outside() -> None:
    levels = TrackedRange().eval()
    levels.observe(torch.tensor([-1.0, 3.0]), 1.0)
    values = torch.tensor([-2.0, -0.99, 0.0, 1.234, 2.99, 4.0], requires_grad=True)
    answer = levels(values)
    answer.sum().backward()
    assert values.grad is not None
    assert values.grad.tolist() == [0.0, 1.0, 1.0, 1.0, 1.0, 0.0]
    step = 4.0 / 255.0
    assert (answer - values)[1:5].abs().max() <= step / 2 + 1e-6
    assert answer[2] == 0.0


# ranges


def test_a_range_takes_the_first_tensor_and_then_moves_a_small_way() -> None:
    levels = TrackedRange()
    levels.train()
    levels(torch.tensor([-1.0, 2.0]))
    assert (levels.low.item(), levels.high.item()) == (-1.0, 2.0)
    levels(torch.tensor([-3.0, 7.0]))
    torch.testing.assert_close(levels.low, torch.tensor(-1.0 - 2.0 * MOMENTUM))
    torch.testing.assert_close(levels.high, torch.tensor(2.0 + 5.0 * MOMENTUM))
    levels.eval()
    before = levels.high.item()
    levels(torch.tensor([100.0]))
    assert levels.high.item() == before


def test_a_range_has_zero_in_it_and_nothing_that_no_reader_tells_apart() -> None:
    levels = TrackedRange()
    levels(torch.tensor([3.0, 5.0]))
    assert (levels.low.item(), levels.high.item(), levels.as_grid().zero_point) == (0.0, 5.0, 0)
    levels = TrackedRange(floor=0.0, ceiling=6.0)
    levels(torch.tensor([-4.0, 9.0]))
    assert (levels.low.item(), levels.high.item()) == (0.0, 6.0)


def test_calibration_takes_the_mean_over_batches_of_the_float_network() -> None:
    layer = nn.Conv2d(3, 2, 1)
    wrapped = fake_quantised(layer, EXAMPLE)
    some = [torch.full((1, 3, 4, 4), value) for value in (1.0, 2.0, 6.0)]
    wrapped.train()
    calibrate(wrapped, some)
    assert wrapped.training
    assert isinstance(wrapped, FakeQuantisedConv2d)
    assert wrapped.input_range is not None
    torch.testing.assert_close(wrapped.input_range.high, torch.tensor(3.0))
    calibrate(wrapped, some[:1])  # anew, not on top
    assert wrapped.input_range.high.item() == 1.0


def test_answers_are_not_numbers_before_calibration() -> None:
    assert fake_quantised(network(), EXAMPLE)(images()).isnan().all()


# whole networks


@pytest.mark.parametrize("name", ["plain_cnn-2", "plain_cnn-10", "resnet-8", "wrn-10-1", "vgg-8", "mobile"])
def test_answers_are_near_those_of_the_float_network(name: str) -> None:
    model = trained(MobileBlock() if name == "mobile" else network(name))
    wrapped, asked = quantised(model), images(64, seed=5)
    with torch.no_grad():
        expected, answers, twin = model(asked), wrapped(asked), float_twin(wrapped)(asked)
    spread = float(expected.max() - expected.min())
    assert float((answers - expected).abs().max()) < 0.1 * spread
    assert float((answers - expected).abs().max()) > 0.0
    torch.testing.assert_close(twin, expected, atol=1e-4 * spread, rtol=0.0)
    assert not any(isinstance(module, _BatchNorm) for module in wrapped.modules())
    layers = [module for module in model.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    assert len(integers(wrapped)) == len(layers)


def test_a_normalisation_without_a_layer_before_it_becomes_a_constant_scale_and_shift() -> None:
    model = trained(network("wrn-10-1"))
    left = [
        name for name, module in folded(model, images()).named_modules() if isinstance(module, _BatchNorm)
    ]
    wrapped = fake_quantised(model, EXAMPLE)
    affine = [name for name, module in wrapped.named_modules() if isinstance(module, ChannelAffine)]
    assert affine == [f"{name}.affine" for name in left]
    twin = float_twin(wrapped)
    with torch.no_grad():
        torch.testing.assert_close(twin.train()(images()), twin.eval()(images()))


def test_of_a_residual_network_sums_read_rounded_outputs_and_layers_share_the_range() -> None:
    wrapped = fake_quantised(network("resnet-8"), EXAMPLE)
    layers = {
        name: module for name, module in wrapped.named_modules() if isinstance(module, FakeQuantisedConv2d)
    }
    rounded = {name for name, layer in layers.items() if layer.output_range is not None}
    assert rounded == {
        "stem.conv",
        "stage1.0.conv2",
        "stage2.0.conv2",
        "stage2.0.shortcut.conv",
        "stage3.0.conv2",
        "stage3.0.shortcut.conv",
    }
    stem, reader = layers["stem.conv"], layers["stage1.0.conv1"]
    assert reader.input_range is None
    assert reader.source == (stem.output_range,)
    copied = copy.deepcopy(wrapped)
    again = copied.get_submodule("stage1.0.conv1")
    assert isinstance(again, FakeQuantisedConv2d)
    assert again.source[0] is copied.get_submodule("stem.conv.output_range")


def test_the_network_given_and_the_global_generator_are_left_alone() -> None:
    model = trained(network())
    model.train()
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    drawn = torch.get_rng_state()
    wrapped = quantised(model)
    assert torch.equal(torch.get_rng_state(), drawn)
    assert model.training
    assert not wrapped.training
    assert all(parameter.requires_grad for parameter in wrapped.parameters())
    with torch.no_grad():
        for tensor in wrapped.state_dict().values():
            tensor.fill_(7.0)
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())


# the same form whatever the weights are


def test_a_network_is_wrapped_in_the_same_form_before_and_after_its_training() -> None:
    fresh, old = network("plain_cnn-2", seed=1), trained(network("plain_cnn-2", seed=2))
    layer, norm = old.get_submodule("features.conv2"), old.get_submodule("features.norm2")
    assert isinstance(layer, nn.Conv2d)
    assert isinstance(norm, nn.BatchNorm2d)
    assert layer.bias is not None
    assert norm.running_mean is not None
    with (
        torch.no_grad()
    ):  # the normalisation takes away what the bias adds, and float32 loses digits on the way
        layer.bias += 1e5
        norm.running_mean += 1e5
    assert any(isinstance(module, _BatchNorm) for module in folded(old, images()).modules())
    forms = [
        [(name, type(module)) for name, module in fake_quantised(model, example).named_modules()]
        for model, example in ((fresh, EXAMPLE), (old, images(3)))
    ]
    assert forms[0] == forms[1]


def test_state_goes_through_a_file_into_a_network_built_in_another_process(tmp_path: Path) -> None:
    wrapped = quantised(trained(network()))
    save_file(wrapped.state_dict(), tmp_path / "weights.safetensors")
    with torch.no_grad():
        save_file({"logits": wrapped(images(4, seed=6))}, tmp_path / "expected.safetensors")
    program = f"""
import torch
from safetensors.torch import load_file, save_file
from understudy.models import build
from understudy.models.fake_quantisation import fake_quantised
torch.set_num_threads(1)
torch.manual_seed(123)
model = fake_quantised(build("resnet-8", classes=10, size=(16, 16)), torch.zeros(2, 3, 16, 16))
model.load_state_dict(load_file({str(tmp_path / "weights.safetensors")!r}))
given = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(6))
with torch.no_grad():
    save_file({{"logits": model.eval()(given)}}, {str(tmp_path / "found.safetensors")!r})
"""
    subprocess.run([sys.executable, "-c", program], check=True)
    found, expected = (load_file(tmp_path / f"{name}.safetensors") for name in ("found", "expected"))
    assert torch.equal(found["logits"], expected["logits"])


# training


def steps(model: nn.Module, count: int = 40) -> list[float]:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.2, momentum=0.9)
    labels, losses, given = torch.arange(10), [], images(10, seed=4)
    model.train()
    for _ in range(count):
        loss = F.cross_entropy(model(given), labels)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(loss.item())
    return losses


def test_it_learns_and_twice_the_same() -> None:
    torch.manual_seed(0)
    start = quantised(trained(MobileBlock()))
    first, second = copy.deepcopy(start), copy.deepcopy(start)
    losses = steps(first)
    assert losses[-1] < 0.9 * losses[0]
    assert steps(second) == losses
    states = first.state_dict(), second.state_dict()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    changed = {
        name for name, tensor in states[0].items() if not torch.equal(tensor, start.state_dict()[name])
    }
    assert {"stem.0.weight", "head.bias", "block.3.input_range.high", "block.6.output_range.low"} <= changed


def test_ranges_and_answers_stand_still_in_eval_mode() -> None:
    wrapped = quantised(trained(network()))
    before = {name: tensor.clone() for name, tensor in wrapped.state_dict().items()}
    with torch.no_grad():
        first = wrapped(100.0 * images())
        assert torch.equal(wrapped(100.0 * images()), first)
        torch.testing.assert_close(wrapped(100.0 * images()[:3]), first[:3])
    assert all(torch.equal(tensor, before[name]) for name, tensor in wrapped.state_dict().items())


# kept in float, and refused


def test_layers_can_be_left_in_float() -> None:
    model = trained(network())
    wrapped = fake_quantised(model, EXAMPLE, keep_float=["stem.conv", "head"])
    calibrate(wrapped, [images()])
    assert type(wrapped.get_submodule("stem.conv")) is nn.Conv2d
    assert type(wrapped.get_submodule("head")) is nn.Linear
    assert {"stem.conv", "head"}.isdisjoint(integers(wrapped))
    assert len(integers(wrapped)) == 8


def test_linear_layers_of_sequences_and_layers_without_bias_work() -> None:
    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.mix = nn.Conv2d(3, 6, 4, 4, bias=False), nn.Linear(6, 6, bias=False)
            self.head = nn.Linear(6, 10)

        def forward(self, images: Tensor) -> Tensor:
            tokens = self.embed(images).flatten(2).transpose(1, 2)
            logits: Tensor = self.head((tokens + F.gelu(self.mix(tokens))).mean(1))
            return logits

    torch.manual_seed(0)
    model = Tokens()
    wrapped = quantised(model)
    assert isinstance(wrapped.get_submodule("mix"), FakeQuantisedLinear)
    with torch.no_grad():
        torch.testing.assert_close(wrapped(images()), model(images()), atol=0.02, rtol=0.0)


class OwnLinear(nn.Linear):
    """As torch's, by another name."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        return F.linear(input, self.weight, self.bias)


class Doubling(nn.Conv2d):
    """Not what its class says."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        return 2.0 * super().forward(F.pad(input, (1, 1, 1, 1)))


class Odd(nn.Module):
    """Layers of other classes, and one of which only the weight is used."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3), Doubling(4, 4, 15)
        self.weight_of, self.head = nn.Linear(4, 4), OwnLinear(4, 10)

    def forward(self, images: Tensor) -> Tensor:
        features = F.relu(self.second(F.relu(self.first(images)))).mean((2, 3))
        logits: Tensor = self.head(features @ self.weight_of.weight)
        return logits


def test_layers_that_are_not_what_they_seem_stay_as_they_are() -> None:
    torch.manual_seed(0)
    model = Odd()
    wrapped = quantised(model)
    assert list(integers(wrapped)) == ["first", "head"]
    assert isinstance(wrapped.get_submodule("second"), Doubling)
    first = wrapped.get_submodule("first")
    assert isinstance(first, FakeQuantisedConv2d)
    assert first.output_range is not None
    with torch.no_grad():
        torch.testing.assert_close(wrapped(images()), model(images()), atol=0.02, rtol=0.0)


class Uncopyable(nn.Linear):
    def __deepcopy__(self, memo: object) -> None:
        raise RuntimeError("no copies")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: fake_quantised(nn.ReLU(), EXAMPLE),
            "ReLU has no convolution (2d) or linear layer that could be quantised: leave it in float",
        ),
        (
            lambda: fake_quantised(network(), EXAMPLE, keep_float=["stem.covn"]),
            "there is no layer 'stem.covn' to keep in float. Did you mean 'stem.conv'? Layers: stem.conv, stage1.0",
        ),
        (lambda: fake_quantised(network(), EXAMPLE, weight_bits=4), "weight_bits is 8, 7, got 4"),
        (
            lambda: fake_quantised(Uncopyable(3, 3), EXAMPLE),
            "Uncopyable cannot be quantised: it cannot be copied (no copies). Give a plain PyTorch network.",
        ),
        (
            lambda: fake_quantised(network(), torch.zeros(2, 5, 16, 16)),
            "ResNet cannot be run on images of shape (2, 5, 16, 16): ",
        ),
        (
            lambda: calibrate(fake_quantised(network(), EXAMPLE), []),
            "calibration needs images, and there are none: give some hundred of the training set",
        ),
        (
            lambda: calibrate(network(), [images()]),
            "ResNet has no quantised layer: make it with fake_quantised(model, example)",
        ),
        (
            lambda: integers(fake_quantised(network(), EXAMPLE)),
            "layer stem.conv has no range yet: calibrate the network on training images first",
        ),
    ],
)
def test_what_cannot_be_is_said_in_one_line(make: object, message: str) -> None:
    assert callable(make)
    with pytest.raises(BadInput) as caught:
        make()
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)
