from __future__ import annotations

import logging
import warnings

import pytest
import torch
from torch import Tensor, nn

from tests.deploy.made import IMAGE, PREPROCESSING, small
from understudy.deploy.capture import captured, deployable, layer_of, quiet, shown
from understudy.errors import BadInput


class Inner(nn.Module):
    def forward(self, features: Tensor) -> Tensor:
        return features if features.sum() > 0 else -features


class Branching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.inner = nn.Sequential(nn.ReLU(), Inner())

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.inner(self.conv(images))
        return features.mean((2, 3))


class Fixed(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images.view(2, 3, -1).mean(2)


class Maps(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images


def test_the_network_is_left_as_it_was() -> None:
    model = small().train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    ready = deployable(model, channels=3, size=(8, 8))
    captured(ready, channels=3, size=(8, 8))
    assert model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert {id(tensor) for tensor in model.parameters()}.isdisjoint(id(t) for t in ready.parameters())


def test_batch_normalisation_is_folded_and_half_precision_widened() -> None:
    ready = deployable(small().half(), channels=3, size=(8, 8))
    assert not any(isinstance(module, nn.BatchNorm2d) for module in ready.modules())
    assert {tensor.dtype for tensor in ready.parameters()} == {torch.float32}


def test_operators_know_their_layers_and_nothing_of_the_machine() -> None:
    ready = deployable(small(), channels=3, size=IMAGE, preprocessing=PREPROCESSING)
    program = captured(ready, channels=3, size=IMAGE)
    layers = {layer_of(node) for node in program.graph.nodes if node.op == "call_function"}
    assert {"network.stem.0", "network.head", "network", ""} <= layers
    assert not any("stack_trace" in node.meta for node in program.graph.nodes)


def test_layers_are_called_as_their_author_knows_them() -> None:
    assert shown("network.stem.0") == shown("stem.0") == shown("stem.0@1") == "layer 'stem.0'"
    assert shown("network") == shown("") == "the network's own forward method"


def test_a_way_that_depends_on_values_is_refused_and_its_layer_named(
    capfd: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(
        BadInput, match=r"capture the network at layer 'inner\.1': what it does next depends on the values"
    ):
        captured(Branching(), channels=3, size=(8, 8))
    assert capfd.readouterr() == ("", "")  # torch prints the graph that it has by then


def test_a_number_of_images_that_is_written_down_is_refused() -> None:
    with pytest.raises(BadInput, match="batches of one length only"):
        captured(Fixed(), channels=3, size=(8, 8))
    captured(nn.Flatten(), channels=3, size=(8, 8))


def test_what_does_not_answer_with_logits_is_refused() -> None:
    with pytest.raises(BadInput, match=r"answers 2 images with \(2, 3, 8, 8\)"):
        captured(Maps(), channels=3, size=(8, 8))
    with pytest.raises(BadInput, match="cannot be run on 1-channel images of 8x8"):
        captured(small(), channels=1, size=(8, 8))
    with pytest.raises(BadInput, match="mean and std of 3 channels, and the images have 1"):
        deployable(small(), channels=1, size=(8, 8), preprocessing=PREPROCESSING)


def test_others_may_talk_again_afterwards() -> None:
    levels = [logging.getLogger(name).level for name in ("torch", "torch.onnx", "onnxscript")]
    with quiet():
        warnings.warn("of an exporter", FutureWarning, stacklevel=1)
    assert [logging.getLogger(name).level for name in ("torch", "torch.onnx", "onnxscript")] == levels
    with pytest.warns(FutureWarning):
        warnings.warn("of mine", FutureWarning, stacklevel=1)
