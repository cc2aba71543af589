from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor, nn
from torch.nn import functional as F

from understudy.models import build
from understudy.models.describe import architecture_of

ARGUMENTS = {"classes": 7, "channels": 3, "size": (16, 20), "width": 0.3}


def described(name: str, **changed: Any) -> tuple[nn.Module, dict[str, Any], dict[str, Tensor]]:
    """A network with other than initial statistics, and what a person would find in student.json and student.safetensors."""
    torch.manual_seed(0)
    arguments = {**ARGUMENTS, **changed}
    model = build(name, **arguments)
    model(torch.randn(8, arguments["channels"], *arguments["size"]))
    model.eval()
    text = json.dumps(architecture_of(model, name, arguments), allow_nan=False)
    return model, json.loads(text), load(save(model.state_dict()))


def rebuilt(layers: list[dict[str, Any]]) -> nn.Sequential:
    """Nested nn.Sequential by dotted name, with torch.nn only."""
    whole = nn.Sequential()
    for layer in layers:
        *parents, last = layer["name"].split(".")
        inside = whole
        for parent in parents:
            if parent not in dict(inside.named_children()):
                inside.add_module(parent, nn.Sequential())
            child = inside.get_submodule(parent)
            assert isinstance(child, nn.Sequential)
            inside = child
        inside.add_module(last, getattr(nn, layer["type"])(**layer["arguments"]))
    return whole


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("plain_cnn-2", {"size": (8, 8), "channels": 1}),
        ("plain_cnn-6", {}),
        ("plain_cnn-10", {}),
        ("plain_cnn_narrow-8", {"width": 1.0}),
        ("vgg-8", {}),
        ("vgg-16", {"width": 0.05, "size": (64, 64)}),
        ("okd_vgg-16", {"width": 0.05, "size": (64, 64)}),
        ("allcnn", {}),
    ],
)
def test_a_sequential_network_is_rebuilt_with_torch_alone(name: str, changed: dict[str, Any]) -> None:
    model, description, tensors = described(name, **changed)
    again = rebuilt(description["layers"])
    again.load_state_dict(tensors, strict=True)
    images = torch.randn(3, description["arguments"]["channels"], *description["arguments"]["size"])
    assert torch.equal(again.eval()(images), model(images))
    assert "order listed" in description["wiring"]


class ByName:
    """Runs described layers by dotted name, as a reader of ``wiring`` would write it."""

    def __init__(self, description: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        self.layers = nn.ModuleDict(
            {
                layer["name"].replace(".", "/"): getattr(nn, layer["type"])(**layer["arguments"])
                for layer in description["layers"]
            }
        ).eval()
        renamed = {
            name.rpartition(".")[0].replace(".", "/") + "." + name.rpartition(".")[2]: t
            for name, t in tensors.items()
        }
        self.layers.load_state_dict(renamed, strict=True)

    def __contains__(self, name: str) -> bool:
        return name.replace(".", "/") in self.layers

    def __call__(self, name: str, features: Tensor) -> Tensor:
        out: Tensor = self.layers[name.replace(".", "/")](features)
        return out

    def chain(self, names: str, features: Tensor) -> Tensor:
        for name in names.split():
            features = self(name, features)
        return features

    def blocks(self) -> list[str]:
        found = dict.fromkeys(name.rpartition("/")[0].replace("/", ".") for name in self.layers)
        return [name for name in found if name.startswith("stage") and not name.endswith("shortcut")]


@pytest.mark.parametrize("name", ["resnet-8", "resnet-14"])
def test_a_resnet_is_rebuilt_from_its_layers_and_wiring(name: str) -> None:
    model, description, tensors = described(name)
    run = ByName(description, tensors)
    images = torch.randn(3, 3, 16, 20)
    x = run.chain("stem.conv stem.norm stem.relu", images)
    for block in run.blocks():
        kept = x
        if f"{block}.shortcut.conv" in run:
            kept = run.chain(f"{block}.shortcut.conv {block}.shortcut.norm", x)
        x = run.chain(
            " ".join(f"{block}.{part}" for part in ("conv1", "norm1", "relu1", "conv2", "norm2")), x
        )
        x = run(f"{block}.relu2", x + kept)
    assert torch.equal(run.chain("pool flatten head", x), model(images))
    assert "relu2(norm2(conv2(relu1(norm1(conv1(x))))) + shortcut(x))" in description["wiring"]


@pytest.mark.parametrize("name", ["wrn-10-1", "wrn-16-2"])
def test_a_wide_resnet_is_rebuilt_from_its_layers_and_wiring(name: str) -> None:
    model, description, tensors = described(name)
    run = ByName(description, tensors)
    images = torch.randn(3, 3, 16, 20)
    x = run("stem", images)
    for block in run.blocks():
        a = run.chain(f"{block}.norm1 {block}.relu1", x)
        kept = run(f"{block}.shortcut", a) if f"{block}.shortcut" in run else x
        x = run.chain(" ".join(f"{block}.{part}" for part in ("conv1", "norm2", "relu2", "conv2")), a) + kept
    assert torch.equal(run.chain("norm relu pool flatten head", x), model(images))
    assert "conv2(relu2(norm2(conv1(a)))) + shortcut" in description["wiring"]


@pytest.mark.parametrize("width", [0.3, 1.0])
def test_a_mobilenet_is_rebuilt_from_its_layers_and_wiring(width: float) -> None:
    model, description, tensors = described("mobilenet_v2", width=width)
    run = ByName(description, tensors)
    images = torch.randn(3, 3, 16, 20)
    x = run.chain("stem.conv stem.norm stem.relu", images)
    for block in dict.fromkeys(name.rpartition(".")[0] for name in run.blocks() if name.count(".") == 2):
        e = x
        if f"{block}.expand.conv" in run:
            e = run.chain(f"{block}.expand.conv {block}.expand.norm {block}.expand.relu", x)
        d = run.chain(f"{block}.depthwise.conv {block}.depthwise.norm {block}.depthwise.relu", e)
        out = run.chain(f"{block}.project.conv {block}.project.norm", d)
        x = out + run(f"{block}.shortcut", x) if f"{block}.shortcut" in run else out
    assert torch.equal(run.chain("last.conv last.norm last.relu pool flatten head", x), model(images))
    assert "plus B.shortcut(x) where" in description["wiring"]


@pytest.mark.parametrize("name", ["bottleneck_resnet-20", "okd_wrn-20-8"])
def test_a_bottleneck_resnet_is_rebuilt_from_its_layers_and_wiring(name: str) -> None:
    model, description, tensors = described(name)
    run = ByName(description, tensors)
    images = torch.randn(3, 3, 16, 20)
    x = run.chain("stem.conv stem.norm stem.relu", images)
    for block in run.blocks():
        kept = x
        if f"{block}.shortcut.conv" in run:
            kept = run.chain(f"{block}.shortcut.conv {block}.shortcut.norm", x)
        parts = ("conv1", "norm1", "relu1", "conv2", "norm2", "relu2", "conv3", "norm3")
        x = run.chain(" ".join(f"{block}.{part}" for part in parts), x)
        x = run(f"{block}.relu3", x + kept)
    assert torch.equal(run.chain("pool flatten head", x), model(images))
    assert "norm3(conv3(relu2(norm2(conv2(relu1(norm1(conv1(x)))))))) + shortcut(x)" in description["wiring"]


def test_a_densenet_is_rebuilt_from_its_layers_and_wiring() -> None:
    model, description, tensors = described("densenet_bc-40-12")
    run = ByName(description, tensors)
    images = torch.randn(3, 3, 16, 20)
    x = run("stem", images)
    for number in (1, 2, 3):
        for place in range(6):
            layer = f"block{number}.{place}"
            parts = ("norm1", "relu1", "conv1", "norm2", "relu2", "conv2")
            x = torch.cat([run.chain(" ".join(f"{layer}.{part}" for part in parts), x), x], 1)
        if number < 3:
            x = run.chain(
                " ".join(f"transition{number}.{part}" for part in ("norm", "relu", "conv", "pool")), x
            )
    assert torch.equal(run.chain("norm relu pool flatten head", x), model(images))
    assert "followed by those of x" in description["wiring"]


def test_what_it_was_built_with_is_kept_and_layers_have_real_widths() -> None:
    _, description, _ = described("plain_cnn-2")
    assert description["name"] == "plain_cnn-2"
    assert description["arguments"] == {"classes": 7, "channels": 3, "size": [16, 20], "width": 0.3}
    assert description["layers"][0] == {
        "name": "features.conv1",
        "type": "Conv2d",
        "arguments": {
            "in_channels": 3,
            "out_channels": 10,
            "kernel_size": [3, 3],
            "stride": [1, 1],
            "padding": [1, 1],
            "dilation": [1, 1],
            "groups": 1,
            "bias": True,
            "padding_mode": "zeros",
        },
    }


class WithOwnParameter(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(2, 3))
        self.layer = nn.Linear(3, 2, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        return F.linear(images, self.layer.weight * self.scale)


def test_a_module_of_the_users_own_is_described_with_its_own_tensors() -> None:
    description = architecture_of(WithOwnParameter(), "mine:make", {"version": "1"})
    own, linear = description["layers"]
    assert own["type"].endswith("WithOwnParameter")
    assert own["tensors"] == {"scale": [2, 3]}
    assert linear == {
        "name": "layer",
        "type": "Linear",
        "arguments": {"in_features": 3, "out_features": 2, "bias": False},
    }
    assert "forward method" in description["wiring"]


def test_an_argument_that_is_not_json_is_refused() -> None:
    with pytest.raises(TypeError, match="no place in JSON"):
        architecture_of(nn.Linear(2, 2), "mine", {"classes": torch.zeros(1)})
