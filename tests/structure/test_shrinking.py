from __future__ import annotations

import copy
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.structure.nets import NETWORKS, Branches, Gated, Row, family, images, made, row, shaken, stem
from understudy.errors import BadInput
from understudy.structure.channels import read_channels
from understudy.structure.cost import cost
from understudy.structure.dropped import NoChannels, NoInputs
from understudy.structure.shrinking import shrunk, silenced
from understudy.structure.structures import Structure
from understudy.training.optimizers import build_optimizer
from understudy.training.settings import Training


def drawn(model: nn.Module, takes: dict[str, Any], seed: int) -> Structure:
    """A random share of each group's channels; of some groups none."""
    stream = np.random.default_rng(seed)
    kept = {}
    for group in read_channels(model, **takes).groups:
        share = stream.choice([0.0, 0.3, 0.7, 1.0])
        kept[group.name] = tuple(row for row in group.rows if stream.random() < share)
    return Structure(kept)


def answers(model: nn.Module, example: Tensor) -> Tensor:
    with torch.no_grad():
        out: Tensor = model(example)
    return out


# --------------------------------------------------------------------------------------------------------- exactness
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("name", NETWORKS)
def test_the_smaller_network_computes_what_the_silenced_one_does(name: str, seed: int) -> None:
    model, takes = made(name, seed=seed)
    structure = drawn(model, takes, seed)
    example = images(3, **takes).double()
    small = answers(shrunk(model, structure, **takes).double(), example)
    large = answers(silenced(model, structure, **takes).double(), example)
    torch.testing.assert_close(small, large, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", ["resnet", "mobilenet_v2", "plain_cnn"])
def test_what_is_silenced_are_rows_shifts_and_nothing_else(name: str) -> None:
    """A reference that knows nothing of columns: after a ReLU a channel without scale and shift is zero anyway."""
    model, takes = made(name)
    structure = drawn(model, takes, 0)
    plain = copy.deepcopy(model)
    reading = read_channels(model, **takes)
    alive = reading.alive(structure.kept)
    with torch.no_grad():
        for layer in reading.layers:
            if layer.part.kind == "norm":
                dead = [number >= 0 and not alive[number] for number in layer.part.out]
                norm = plain.get_submodule(layer.part.name)
                norm.weight[dead] = 0  # type: ignore[index, operator]
                norm.bias[dead] = 0  # type: ignore[index, operator]
    example = images(3, **takes)
    torch.testing.assert_close(
        answers(plain, example), answers(silenced(model, structure, **takes), example), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("name", NETWORKS)
def test_all_channels_give_the_same_network(name: str) -> None:
    model, takes = made(name)
    same = shrunk(model, Structure({}), **takes)
    assert torch.equal(answers(same, images(2, **takes)), answers(model, images(2, **takes)))
    assert [name for name, _ in same.named_modules()] == [name for name, _ in model.named_modules()]


@pytest.mark.parametrize("name", ["resnet", "flat", "concatenated", "sloped"])
def test_kept_weights_are_those_of_the_kept_channels(name: str) -> None:
    model, takes = made(name)
    reading = read_channels(model, **takes)
    group = reading.groups[0]
    rows = group.rows[1::2]
    small = shrunk(model, Structure({group.name: rows}), **takes)
    ours, theirs = (one.get_submodule(group.name).get_parameter("weight") for one in (small, model))
    assert torch.equal(ours, theirs[list(rows)])
    for (name, module), before in zip(small.named_modules(), model.modules(), strict=True):
        assert type(module) is type(before), name


def test_the_network_is_left_as_it_is_and_its_modes_are_kept() -> None:
    model, takes = made("resnet")
    model.train()
    model.get_submodule("stage1").eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    structure = drawn(model, takes, 0)
    for copied in (shrunk(model, structure, **takes), silenced(model, structure, **takes)):
        assert copied.training
        assert not copied.get_submodule("stage1").training
        assert not {id(parameter) for parameter in copied.parameters()} & set(map(id, model.parameters()))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_what_takes_no_gradient_takes_none_when_smaller() -> None:
    model, takes = made("resnet")
    model.get_submodule("stem").requires_grad_(False)
    small = shrunk(model, Structure({"stem.conv": (0, 2)}), **takes)
    frozen = {name for name, parameter in small.named_parameters() if not parameter.requires_grad}
    assert frozen == {"stem.conv.weight", "stem.norm.weight", "stem.norm.bias"}


def test_a_structure_of_another_network_is_refused() -> None:
    model, takes = made("resnet")
    with pytest.raises(BadInput, match="the structure does not fit this network"):
        shrunk(model, Structure({"features.conv1": (0,)}), **takes)


# -------------------------------------------------------------------------------------------------- rebuilding it
@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("name", NETWORKS)
def test_built_anew_it_takes_the_weights(name: str, seed: int) -> None:
    model, takes = made(name, seed=seed)
    structure = drawn(model, takes, seed)
    small = shrunk(model, structure, **takes)
    make, _ = NETWORKS[name]
    anew = shrunk(make().eval(), Structure.from_dict(structure.as_dict()), **takes)
    anew.load_state_dict(small.state_dict())
    assert torch.equal(answers(anew, images(2, **takes)), answers(small, images(2, **takes)))


# ----------------------------------------------------------------------------------------------- nothing of it left
DROPPED = {
    "resnet": {"stage1.0.conv1": (), "stage2.1.conv1": ()},
    "wrn": {"stage1.1.conv1": (), "stage2.0.conv1": ()},
    "mobilenet_v2": {"stage2.1.expand.conv": ()},
    "gated": {"body.conv1.0": (), "body.squeeze": ()},
    "branches": {"body.left.0.0": ()},
}


@pytest.mark.parametrize("name", DROPPED)
def test_a_dropped_branch_takes_no_multiply_adds(name: str) -> None:
    model, takes = made(name)
    small = shrunk(model, Structure(DROPPED[name]), **takes)
    assert any(isinstance(module, NoChannels) for module in small.modules())
    assert any(isinstance(module, NoInputs) for module in small.modules())
    reading = read_channels(model, **takes)
    assert cost(small, **takes) == reading.cost_of(reading.alive(DROPPED[name]))


@pytest.mark.parametrize("name", DROPPED)
def test_a_network_with_dropped_branches_can_be_trained(name: str) -> None:
    model, takes = made(name)
    small = shrunk(model, Structure(DROPPED[name]), **takes).train()
    optimizer = build_optimizer(Training(lr=0.01, weight_decay=0), [small])
    example, labels = images(8, **takes), torch.arange(8) % 3
    losses = []
    for _ in range(15):
        loss = nn.functional.cross_entropy(small(example), labels)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]
    assert all(torch.isfinite(tensor).all() for tensor in small.state_dict().values())


@pytest.mark.parametrize("name", ["resnet", "gated"])
def test_a_network_with_dropped_branches_becomes_an_onnx_file(name: str, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    model, takes = made(name)
    small = shrunk(model, Structure(DROPPED[name]), **takes)
    example, path = images(2, **takes), tmp_path / "small.onnx"
    batch = torch.export.Dim("batch")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own
        program = torch.onnx.export(
            small, (example,), dynamo=True, dynamic_shapes=({0: batch},), verbose=False
        )
    assert program is not None
    program.save(path)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for count in (1, 5):
        batch_of = images(count, **takes, seed=1)
        (said,) = session.run(None, {session.get_inputs()[0].name: batch_of.numpy()})
        torch.testing.assert_close(torch.from_numpy(said), answers(small, batch_of), rtol=1e-4, atol=1e-4)


def test_what_is_left_of_a_branch_is_its_last_shift() -> None:
    model, takes = made("resnet")
    small = shrunk(model, Structure({"stage1.0.conv1": ()}), **takes)
    block = small.get_submodule("stage1.0")
    norm = block.get_submodule("norm2")
    constant = norm.bias - norm.running_mean / (norm.running_var + norm.eps).sqrt() * norm.weight  # type: ignore[operator]
    features = images(2, channels=8, size=(8, 8))
    with torch.no_grad():
        expected = torch.relu(features + constant.view(1, -1, 1, 1))  # type: ignore[union-attr]
    torch.testing.assert_close(answers(block, features), expected)


def test_a_branch_keeps_the_bias_of_its_last_layer() -> None:
    model, takes = made("branches")
    small = shrunk(model, Structure({"body.left.0.0": ()}), **takes)
    last = small.get_submodule("body.left.2")
    assert isinstance(last, NoInputs)
    assert torch.equal(last.get_parameter("bias"), model.get_submodule("body.left.2").get_parameter("bias"))
    assert isinstance(small.get_submodule("body.left.1"), NoChannels)  # the pooling


class PooledInCode(Gated):
    """Its code pools what is left of a dropped branch by itself, where nothing can be put in its place."""

    def forward(self, features: Tensor) -> Tensor:
        inner = nn.functional.max_pool2d(self.conv1(features), 1)
        out: Tensor = self.conv2(inner) + features
        return out


def test_where_the_code_takes_no_empty_tensor_that_is_said() -> None:
    model = shaken(row(PooledInCode, 4)())
    with pytest.raises(BadInput) as caught:
        shrunk(model, Structure({"body.conv1.0": ()}), channels=2, size=(6, 6))
    assert "Row does not run without the channels that the structure drops (" in str(caught.value)
    assert "Keep at least one channel of each group" in str(caught.value)


def test_either_of_two_branches_can_go() -> None:
    for side in ("left", "right"):
        model = shaken(Row(stem(), Branches(), 6))
        small = shrunk(model, Structure({f"body.{side}.0.0": ()}), channels=2, size=(6, 6))
        assert not torch.equal(*answers(small, images(2, channels=2, size=(6, 6))))


def test_a_fresh_network_gives_a_fresh_smaller_one() -> None:
    takes = {"channels": 2, "size": (8, 8)}
    torch.manual_seed(0)
    fresh = family("resnet-8", width=0.5)()
    small = shrunk(fresh, Structure({"stage3.0.conv1": tuple(range(10))}), **takes)
    weight = small.get_submodule("stage3.0.conv1").get_parameter("weight")
    assert torch.equal(weight, fresh.get_submodule("stage3.0.conv1").get_parameter("weight")[:10])
