from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from onnx import numpy_helper
from torch import Tensor, nn

from tests.deploy.int8_networks import NAMES, SIZE, batches, float_file, made_up, network
from understudy.deploy.int8_export import export_int8, with_integers
from understudy.deploy.onnx_answers import answers
from understudy.errors import BadInput
from understudy.models.fake_quantisation import calibrate, fake_quantised, integers
from understudy.models.preprocessing import Preprocessing

EXAMPLE = torch.zeros(2, 3, *SIZE)


@cache
@torch.enable_grad()
def quantised(name: str) -> nn.Module:
    """Wrapped, calibrated and trained for a few steps."""
    model = fake_quantised(network(name), EXAMPLE)
    calibrate(model, made_up(128, seed=1)[0].split(32))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.005)
    model.train()
    for step in range(5):
        images, labels = made_up(32, seed=200 + step)
        loss = F.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return model.eval()


@cache
def exported(name: str) -> Path:
    path = float_file(name).with_name(f"{name}.int8.onnx")
    export_int8(quantised(name), path, channels=3, size=SIZE)
    return path


def constants(described: Any) -> dict[str, np.ndarray]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in described.graph.initializer}


@pytest.mark.parametrize("name", NAMES)
def test_torch_and_onnxruntime_agree_within_one_step_of_the_output(name: str) -> None:
    images, _ = made_up(512, seed=2)
    with torch.no_grad():
        expected = quantised(name)(images).numpy()
    found = answers(exported(name), [images.numpy()])
    step = (expected.max() - expected.min()) / 255.0
    assert np.abs(found - expected).max() <= step
    assert np.abs(found - expected).mean() <= 0.05 * step
    assert (found.argmax(1) == expected.argmax(1)).mean() >= 0.995


@pytest.mark.parametrize("name", NAMES)
def test_scales_zero_points_and_integers_in_the_file_are_the_networks(name: str) -> None:
    described = onnx.load(exported(name))
    values = constants(described)
    maker = {output: node for node in described.graph.node for output in node.output}
    readers = {name: node for node in described.graph.node for name in node.input}
    seen = set()
    for node in described.graph.node:
        if node.op_type not in ("Conv", "Gemm"):
            continue
        layer = node.name.partition("/")[0]
        own = integers(quantised(name))[layer]
        weight = maker[node.input[1]]
        assert weight.op_type == "DequantizeLinear"
        assert values[weight.input[0]].dtype == np.int8
        np.testing.assert_array_equal(values[weight.input[0]], own.weight)
        np.testing.assert_array_equal(values[weight.input[1]], own.weight_scale)
        np.testing.assert_array_equal(values[weight.input[2]], 0)
        rounding = maker[maker[node.input[0]].input[0]]
        assert rounding.op_type == "QuantizeLinear"
        assert values[rounding.input[1]] == np.float32(own.input.scale)
        assert values[rounding.input[2]].dtype == np.uint8
        assert values[rounding.input[2]] == own.input.zero_point
        assert own.bias is not None
        bias = maker[node.input[2]]
        np.testing.assert_array_equal(values[bias.input[0]], own.bias)
        assert values[bias.input[0]].dtype == np.int32
        after = readers.get(node.output[0])
        if own.output is None:
            assert after is None or after.op_type != "QuantizeLinear"
        else:
            assert after is not None
            assert after.op_type == "QuantizeLinear"
            assert values[after.input[1]] == np.float32(own.output.scale)
            assert values[after.input[2]] == own.output.zero_point
        seen.add(layer)
    assert seen == set(integers(quantised(name)))


def test_the_file_is_about_a_quarter_and_its_convolutions_run_in_integers(tmp_path: Path) -> None:
    whole, small = float_file("resnet-8"), exported("resnet-8")
    assert small.stat().st_size < 0.36 * whole.stat().st_size
    numbers = [sum(array.nbytes for array in constants(onnx.load(path)).values()) for path in (whole, small)]
    assert numbers[1] < 0.28 * numbers[0]
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    onnxruntime.InferenceSession(str(small), options, providers=["CPUExecutionProvider"])
    kinds = [node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node]
    assert "Conv" not in kinds
    assert kinds.count("QLinearConv") == 9
    assert kinds.count("QGemm") == 1


def test_preprocessing_and_class_names_go_into_the_file(tmp_path: Path) -> None:
    preprocessing = Preprocessing(mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.3))
    pixels = 255.0 * torch.rand(8, 3, *SIZE, generator=torch.Generator().manual_seed(0))
    export_int8(
        quantised("mobile"),
        tmp_path / "int8.onnx",
        channels=3,
        size=SIZE,
        preprocessing=preprocessing,
        class_names=["ant", "bee"],
    )
    with torch.no_grad():
        expected = quantised("mobile")(preprocessing(pixels)).numpy()
    found = answers(tmp_path / "int8.onnx", [pixels.numpy()])
    np.testing.assert_allclose(found, expected, atol=float(expected.max() - expected.min()) / 255.0)
    notes = {entry.key: entry.value for entry in onnx.load(tmp_path / "int8.onnx").metadata_props}
    assert notes["class_names"] == '["ant", "bee"]'


class Tokens(nn.Module):
    """Linear layers that see sequences, one of them twice, and one without bias."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.mix = nn.Conv2d(3, 6, 4, 4), nn.Linear(6, 6, bias=False)
        self.head = nn.Linear(6, 10)

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.embed(images).flatten(2).transpose(1, 2)
        logits: Tensor = self.head((tokens + self.mix(F.gelu(self.mix(tokens)))).mean(1))
        return logits


def test_layers_of_sequences_and_layers_that_are_used_twice(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = fake_quantised(Tokens(), EXAMPLE)
    images, _ = made_up(64, seed=3)
    calibrate(model, images.split(32))
    export_int8(model, tmp_path / "int8.onnx", channels=3, size=SIZE)
    with torch.no_grad():
        expected = model(images).numpy()
    found = answers(tmp_path / "int8.onnx", [images.numpy()])
    np.testing.assert_allclose(found, expected, atol=float(expected.max() - expected.min()) / 255.0)
    weights = [
        array for array in constants(onnx.load(tmp_path / "int8.onnx")).values() if array.dtype == np.int8
    ]
    assert sorted(array.size for array in weights if array.ndim > 1) == [36, 60, 288]


def test_layers_kept_in_float_are_float_in_the_file(tmp_path: Path) -> None:
    model = fake_quantised(network("plain_cnn-2"), EXAMPLE, keep_float=["features.conv1"])
    calibrate(model, made_up(32, seed=1)[0].split(32))
    export_int8(model, tmp_path / "int8.onnx", channels=3, size=SIZE)
    values = constants(onnx.load(tmp_path / "int8.onnx"))
    kept = [array for array in values.values() if array.shape == (32, 3, 3, 3)]
    assert [array.dtype for array in kept] == [np.float32]
    images, _ = made_up(32, seed=4)
    with torch.no_grad():
        expected = model(images).numpy()
    found = answers(tmp_path / "int8.onnx", [images.numpy()])
    np.testing.assert_allclose(found, expected, atol=float(expected.max() - expected.min()) / 255.0)


def test_twice_the_same_bytes_and_nothing_beside(tmp_path: Path) -> None:
    export_int8(quantised("mobile"), tmp_path / "again.onnx", channels=3, size=SIZE)
    assert (tmp_path / "again.onnx").read_bytes() == exported("mobile").read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == ["again.onnx"]


def test_an_export_that_fails_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="has no range yet: calibrate the network on training images first"):
        export_int8(fake_quantised(network("mobile"), EXAMPLE), tmp_path / "int8.onnx", channels=3, size=SIZE)
    with pytest.raises(BadInput, match="has no quantised layer"):
        export_int8(network("mobile"), tmp_path / "int8.onnx", channels=3, size=SIZE)
    assert list(tmp_path.iterdir()) == []


def test_a_layer_that_a_file_lacks_is_named() -> None:
    layers = integers(quantised("mobile"))
    described = onnx.load(float_file("mobile"))
    with pytest.raises(BadInput, match=r"no layer 'other' with weights of its own.*keep_float=\['other'\]"):
        with_integers(described, {"other": layers["head"]})
    with pytest.raises(BadInput, match=r"layer 'head' has weights of shape \(8, 3, 3, 3\), and its place"):
        with_integers(described, {"head": layers["stem.0"]})


def test_answers_are_asked_for_in_batches_of_any_length() -> None:
    whole = answers(float_file("mobile"), batches(40, seed=5))
    assert whole.shape == (40, 10)
    alone = answers(float_file("mobile"), (image[None] for batch in batches(40, seed=5) for image in batch))
    np.testing.assert_allclose(alone, whole, atol=1e-5)
    with pytest.raises(BadInput, match="there are no images to ask the file about"):
        answers(float_file("mobile").read_bytes(), [])
    with pytest.raises(BadInput, match=r"cannot be run on images of shape \(2, 1, 12, 12\)"):
        answers(float_file("mobile"), [np.zeros((2, 1, 12, 12), np.float32)])
