from __future__ import annotations

import sys

import pytest
import torch
from torch import Tensor, nn

from tests.structure.nets import NETWORKS, Row, conv, family, made, row, stem
from understudy.errors import BadInput, MissingExtra
from understudy.structure.tracing import Part, trace


def parts(name: str) -> dict[str, Part]:
    model, takes = made(name)
    return {part.name: part for part in trace(model, **takes).parts}


def test_what_is_added_is_one_set() -> None:
    found = parts("resnet")
    writers = ["stem.conv", "stage1.0.conv2", "stage1.1.conv2"]
    assert len({tuple(found[name].out) for name in writers}) == 1
    assert (
        tuple(found["stage1.1.conv1"].into) == tuple(found["stem.norm"].out) == tuple(found["stem.conv"].out)
    )
    assert not set(found["stage1.0.conv1"].out) & set(found["stem.conv"].out)
    assert tuple(found["stage2.0.shortcut.conv"].out) == tuple(found["stage2.0.conv2"].out)


def test_a_pre_activation_norm_belongs_to_the_sum_that_it_reads() -> None:
    found = parts("wrn")
    assert tuple(found["stage2.1.norm1"].out) == tuple(found["stage2.0.conv2"].out)
    assert tuple(found["norm"].out) == tuple(found["stage3.1.conv2"].out)


def test_a_depthwise_convolution_is_in_the_set_of_what_feeds_it() -> None:
    found = parts("mobilenet_v2")
    block = "stage2.0"
    assert found[f"{block}.depthwise.conv"].kind == "depthwise"
    assert tuple(found[f"{block}.depthwise.conv"].out) == tuple(found[f"{block}.expand.conv"].out)
    assert tuple(found[f"{block}.project.conv"].into) == tuple(found[f"{block}.expand.conv"].out)
    assert found[f"{block}.depthwise.norm"].after_depthwise
    assert not found[f"{block}.expand.norm"].after_depthwise


def test_concatenated_channels_keep_their_own_sets_in_order() -> None:
    found = parts("concatenated")
    first, second, base = (found[name].out for name in ("body.first.0", "body.second.0", "stem.0"))
    assert found["body.second.0"].into.tolist() == [*base, *first]
    assert found["head"].into.tolist() == [*second, *base, *first]


def test_a_linear_layer_after_flattening_has_a_column_for_each_pixel() -> None:
    found = parts("flat")
    assert found["4"].into.tolist() == [int(number) for number in found["0"].out for _ in range(36)]


def test_a_gate_is_tied_to_what_it_multiplies() -> None:
    found = parts("gated")
    assert found["body.excite"].out.tolist() == found["body.conv1.0"].out.tolist()
    assert found["body.squeeze"].into.tolist() == found["body.conv1.0"].out.tolist()


@pytest.mark.parametrize("name", NETWORKS)
def test_image_and_classes_are_not_removable(name: str) -> None:
    model, takes = made(name)
    traced = trace(model, **takes)
    first = next(part for part in traced.parts if part.kind == "dense")
    last = [part for part in traced.parts if part.kind == "dense"][-1]
    assert set(first.into.tolist()) == {-1}
    assert set(last.out.tolist()) <= traced.answers
    assert max(traced.answers) < -1


def test_layers_that_cannot_lose_channels_keep_them() -> None:
    assert (parts("grouped")["body.0.0"].out < -1).all()
    assert (parts("grouped")["body.1.0"].out < -1).all()
    assert (parts("grouped")["body.2.0"].out >= 0).all()
    assert (parts("group norm")["body.0"].out < -1).all()
    assert (parts("group norm")["stem.0"].out >= 0).all()


def test_weights_that_two_layers_share_keep_their_channels() -> None:
    model = Row(stem(), nn.Sequential(conv(4, 4), nn.ReLU(), conv(4, 4)), 4)
    model.body[0].weight = model.body[2].weight  # type: ignore[index, union-attr]
    found = {part.name: part for part in trace(model, channels=2, size=(6, 6)).parts}
    for name in ("stem.0", "body.0", "body.2"):
        assert (found[name].out < -1).all()


def test_a_layer_that_is_used_twice_ties_what_it_reads_to_what_it_gives() -> None:
    layer = conv(4, 4)
    model = Row(stem(), nn.Sequential(layer, nn.ReLU(), layer), 4)
    found = {part.name: part for part in trace(model, channels=2, size=(6, 6)).parts}
    assert found["body.0"].out.tolist() == found["body.0"].into.tolist() == found["stem.0"].out.tolist()


def test_the_network_and_the_generator_are_left_alone() -> None:
    model = family("resnet-8", width=0.25)().train().requires_grad_(False)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    generator = torch.get_rng_state()
    with torch.no_grad():
        trace(model, channels=2, size=(8, 8))
    assert torch.equal(torch.get_rng_state(), generator)
    assert model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


class NotTraceable(nn.Module):
    """Cannot be run where gradients are wanted, as tracing needs them."""

    def forward(self, features: Tensor) -> Tensor:
        if features.requires_grad:
            raise ValueError("no gradients here")
        return features


def test_what_cannot_be_traced_is_said() -> None:
    with pytest.raises(BadInput) as caught:
        trace(row(NotTraceable, 4)(), channels=2, size=(6, 6))
    assert str(caught.value) == (
        "the channels of Row cannot be grouped: it cannot be traced (no gradients here). Choose a convolutional "
        "network that does not shuffle or regroup its channels"
    )


def test_the_layer_before_the_trouble_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from torch_pruning.dependency import index_mapping
    from torch_pruning.dependency.node import Node

    def stop(graph: object, cat_node: Node) -> None:
        raise ZeroDivisionError("integer division by zero")

    monkeypatch.setattr(index_mapping, "update_concat_index_mapping", stop)
    model, takes = made("concatenated")
    with pytest.raises(BadInput, match=r"cannot be traced behind the layer \S+ \(integer division by zero\)"):
        trace(model, **takes)


def test_without_torch_pruning_the_command_that_installs_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch_pruning", None)
    with pytest.raises(MissingExtra) as caught:
        trace(stem(), channels=2, size=(6, 6))
    assert (
        'learning a structure needs packages that are not installed: pip install "understudy[compress]"'
        in str(caught.value)
    )
