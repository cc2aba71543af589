from __future__ import annotations

import subprocess
import sys
import time

import pytest
import torch
from torch import Tensor, nn

from understudy.errors import BadInput
from understudy.models import build
from understudy.structure.cost import Cost, cost, layer_costs


def test_a_convolution_and_a_linear_layer_are_counted_by_hand() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, stride=2),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(8 * 16, 5),
    )
    multiply_adds = 4 * 4 * 8 * 3 * 9 + 8 * 16 * 5
    parameters = (8 * 3 * 9 + 8) + 16 + (8 * 16 * 5 + 5)
    assert cost(model, channels=3, size=(8, 8)) == Cost(parameters=parameters, multiply_adds=multiply_adds)


def test_groups_divide_the_multiply_adds() -> None:
    whole = cost(nn.Conv2d(8, 8, 3, bias=False), channels=8, size=(8, 8))
    depthwise = cost(nn.Conv2d(8, 8, 3, groups=8, bias=False), channels=8, size=(8, 8))
    assert whole.multiply_adds == 8 * depthwise.multiply_adds


def test_bias_and_batch_norm_cost_parameters_but_no_multiply_adds() -> None:
    bare = cost(nn.Conv2d(3, 8, 3, bias=False), channels=3, size=(8, 8))
    dressed = cost(nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)), channels=3, size=(8, 8))
    assert dressed.multiply_adds == bare.multiply_adds
    assert dressed.parameters == bare.parameters + 8 + 16


def test_frozen_parameters_count_and_shared_ones_count_once() -> None:
    layer = nn.Conv2d(3, 3, 1).requires_grad_(False)
    assert cost(nn.Sequential(layer, layer), channels=3, size=(2, 2)) == Cost(parameters=12, multiply_adds=72)


class Attention(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        tokens = images.flatten(2).transpose(1, 2)
        return nn.functional.scaled_dot_product_attention(tokens, tokens, tokens)


def test_attention_is_two_matrix_products() -> None:
    assert cost(Attention(), channels=8, size=(4, 4)) == Cost(parameters=0, multiply_adds=2 * 16 * 16 * 8)


class NeedsNumbers(nn.Module):
    """Decides by the values it sees, which no stand-in without data can."""

    seen: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 2)
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, images: Tensor) -> Tensor:
        self.seen += 1
        features = images.flatten(1)
        out: Tensor = self.layer(features) if float(features.sum()) == 0 else features
        return out


def test_a_model_that_needs_data_to_run_is_run_with_zeros() -> None:
    model = NeedsNumbers()
    assert cost(model, channels=1, size=(2, 2)) == Cost(parameters=10, multiply_adds=8)
    assert float(model.seen) == 0


def test_height_and_width_are_not_confused() -> None:
    model = nn.Conv2d(1, 1, (1, 3), bias=False)
    assert cost(model, channels=1, size=(2, 10)).multiply_adds == 2 * 8 * 3


class Restless(nn.Module):
    """Writes to its buffers in eval mode, draws random numbers, and has one part in the other mode."""

    seen: Tensor
    last: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3 * 4 * 4, 2)
        self.norm = nn.BatchNorm1d(2).eval()
        self.register_buffer("seen", torch.zeros(()))
        self.register_buffer("last", torch.zeros(2))

    def forward(self, images: Tensor) -> Tensor:
        self.seen += 1
        self.last = torch.rand(2)
        out: Tensor = self.norm(self.layer(images.flatten(1)))
        return out


def test_modes_buffers_gradients_and_random_numbers_are_left_as_they_were() -> None:
    model = Restless().train()
    model.norm.eval()
    model(torch.zeros(2, 3, 4, 4)).sum().backward()
    modes = [module.training for module in model.modules()]
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    copies = {name: gradient.clone() for name, gradient in gradients.items() if gradient is not None}
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    generator = torch.get_rng_state()

    cost(model, channels=3, size=(4, 4))

    assert [module.training for module in model.modules()] == modes
    assert torch.equal(torch.get_rng_state(), generator)
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    for name, parameter in model.named_parameters():
        assert parameter.grad is gradients[name]
        assert parameter.grad is not None
        assert torch.equal(parameter.grad, copies[name])
        assert parameter.requires_grad


def test_a_model_on_the_meta_device_costs_the_same() -> None:
    real = cost(build("resnet-8", classes=10), channels=3, size=(32, 32))
    with torch.device("meta"):
        model = build("resnet-8", classes=10)
    assert cost(model, channels=3, size=(32, 32)) == real


def test_a_model_of_another_dtype_is_counted() -> None:
    model = nn.Conv2d(3, 8, 3, bias=False).to(torch.bfloat16)
    assert cost(model, channels=3, size=(3, 3)).multiply_adds == 216


def test_images_that_the_model_cannot_take_are_refused_and_leave_its_mode() -> None:
    model = build("plain_cnn-2", classes=10).train()
    with pytest.raises(BadInput) as caught:
        cost(model, channels=3, size=(8, 8))
    assert "PlainCNN cannot be run on one 3-channel image of 8x8" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert all(module.training for module in model.modules())


def test_impossible_image_sizes_are_refused() -> None:
    with pytest.raises(BadInput, match="height in size"):
        cost(nn.Conv2d(3, 8, 3), channels=3, size=(0, 8))


def test_the_deepest_built_in_network_is_counted_in_a_moment() -> None:
    model = build("resnet-110", classes=10)
    cost(model, channels=3, size=(32, 32))
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        cost(model, channels=3, size=(32, 32))
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 2.0  # 0.13 s on a quiet machine


def test_importing_the_counter_does_not_import_torch() -> None:
    import subprocess
    import sys

    program = "import sys, understudy.structure.cost; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True)


def test_layers_add_up_and_stand_in_the_order_of_their_calls() -> None:
    model = build("resnet-20", classes=100)
    found = layer_costs(model, channels=3, size=(32, 32))
    assert found.total == cost(model, channels=3, size=(32, 32))
    assert sum(layer.multiply_adds for layer in found.layers) == found.total.multiply_adds
    assert sum(layer.parameters for layer in found.layers) == found.total.parameters
    first, second = found.layers[:2]
    assert (first.name, first.kind, first.output) == ("stem.conv", "Conv2d", (16, 32, 32))
    assert (first.parameters, first.multiply_adds) == (16 * 27, 16 * 27 * 1024)
    assert (second.name, second.parameters, second.multiply_adds) == ("stem.norm", 32, 0)
    assert found.layers[-1].output == (100,)


def test_work_of_a_forward_method_is_its_own_modules() -> None:
    found = layer_costs(nn.Sequential(Attention(), nn.Flatten(), nn.Linear(128, 2)), channels=8, size=(4, 4))
    assert [(layer.name, layer.multiply_adds) for layer in found.layers] == [
        ("0", 4096),
        ("1", 0),
        ("2", 256),
    ]


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.wide, self.back = nn.Conv2d(4, 16, 1), nn.Conv2d(16, 4, 1)

    def forward(self, images: Tensor) -> Tensor:
        out: Tensor = images + self.back(self.wide(images))
        return out


def test_peak_memory_counts_what_is_alive_together() -> None:
    """By hand, in float32 of 2x2 images: at most the image, the wide map and what becomes of it."""
    model = Residual()
    found = layer_costs(model, channels=4, size=(2, 2))
    image, wide = 4 * 4 * 4, 16 * 4 * 4
    assert found.peak_activation_bytes == image + wide + image
    halves = layer_costs(model.half(), channels=4, size=(2, 2))
    assert 2 * halves.peak_activation_bytes == found.peak_activation_bytes


def test_what_is_done_in_place_takes_no_more_memory() -> None:
    def peak(inplace: bool) -> int:
        model = nn.Sequential(nn.Conv2d(1, 8, 1), nn.ReLU(inplace=inplace))
        return layer_costs(model, channels=1, size=(4, 4)).peak_activation_bytes

    assert peak(inplace=False) - peak(inplace=True) == 8 * 16 * 4


def test_counting_leaves_no_hook_and_works_in_inference_mode() -> None:
    model = build("resnet-8", classes=10)
    usual = cost(model, channels=3, size=(32, 32))
    with torch.inference_mode():
        assert cost(model, channels=3, size=(32, 32)) == usual
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_counting_does_not_import_the_compiler() -> None:
    code = (
        "import sys; from torch import nn; from understudy.structure.cost import cost;"
        "cost(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)), channels=3, size=(8, 8));"
        "print('torch._dynamo' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert run.stdout.strip() == "False", run.stderr
