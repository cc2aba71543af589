from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from tests.deploy.int8_networks import NAMES, SIZE, batches, float_file, made_up, network
from understudy.deploy.int8_static import quantised
from understudy.deploy.onnx_answers import answers
from understudy.deploy.onnx_export import write_onnx
from understudy.errors import BadInput
from understudy.models.preprocessing import Preprocessing


def constants(path: Path) -> dict[str, np.ndarray]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer}


def nodes(path: Path) -> dict[str, Any]:
    return {node.name: node for node in onnx.load(path).graph.node}


@pytest.mark.parametrize("name", NAMES)
def test_an_int8_file_answers_like_the_float_one_and_is_small(name: str, tmp_path: Path) -> None:
    made = quantised(float_file(name), tmp_path / "int8.onnx", batches(128, seed=1))
    asked = batches(512, seed=2)
    expected, found = answers(float_file(name), asked), answers(made.path, asked)
    assert (expected.argmax(1) == found.argmax(1)).mean() > 0.97
    assert np.abs(expected - found).max() < 0.1 * (expected.max() - expected.min())
    assert made.bytes == made.path.stat().st_size
    assert made.images == 128
    layers = [
        one for one, module in network(name).named_modules() if isinstance(module, nn.Conv2d | nn.Linear)
    ]
    assert sorted(made.layers) == sorted(layers)
    assert made.kept_float == ()
    sizes = [
        sum(array.nbytes for array in constants(path).values() if array.ndim > 1)
        for path in (float_file(name), made.path)
    ]
    assert sizes[1] * 4 == sizes[0]
    assert [path.name for path in tmp_path.iterdir()] == ["int8.onnx"]


def test_weights_are_symmetric_int8_for_each_channel_and_activations_uint8(tmp_path: Path) -> None:
    made = quantised(float_file("plain_cnn-2"), tmp_path / "int8.onnx", batches(64, seed=1))
    values, floats = constants(made.path), constants(float_file("plain_cnn-2"))
    whole = {
        node.input[1]: node for node in onnx.load(float_file("plain_cnn-2")).graph.node if len(node.input) > 2
    }
    checked = 0
    for weight in whole:
        integers, scale = values[f"{weight}_quantized"], values[f"{weight}_scale"]
        expected = np.abs(floats[weight]).reshape(len(scale), -1).max(1) / 127.0
        np.testing.assert_allclose(scale, expected, rtol=1e-6)
        assert integers.dtype == np.int8
        assert not values[f"{weight}_zero_point"].any()
        steps = floats[weight].reshape(len(scale), -1) / scale[:, None]
        assert np.abs(integers.reshape(len(scale), -1) - steps).max() <= 0.501
        checked += 1
    assert checked == 3
    rounding = [node for node in onnx.load(made.path).graph.node if node.op_type == "QuantizeLinear"]
    assert {values[node.input[2]].dtype.name for node in rounding} == {"uint8"}
    # the range of the images is the one that was seen, and zero
    seen = np.concatenate(batches(64, seed=1))
    (first,) = (node for node in rounding if node.input[0] == "images")
    np.testing.assert_allclose(values[first.input[1]], (seen.max() - seen.min()) / 255.0, rtol=1e-5)


def test_logits_are_not_rounded(tmp_path: Path) -> None:
    made = quantised(float_file("mobile"), tmp_path / "int8.onnx", batches(64, seed=1))
    (output,) = onnx.load(made.path).graph.output
    (maker,) = (node for node in onnx.load(made.path).graph.node if output.name in node.output)
    assert maker.op_type == "Gemm"
    assert len(np.unique(answers(made.path, batches(512, seed=2)))) > 256


def test_seven_bits_leave_room_in_sums_of_two_products(tmp_path: Path) -> None:
    made = quantised(float_file("mobile"), tmp_path / "int8.onnx", batches(64, seed=1), weight_bits=7)
    largest = [
        np.abs(array.astype(int)).max() for array in constants(made.path).values() if array.dtype == np.int8
    ]
    assert max(largest) <= 64
    assert 255 * 64 * 2 < 2**15


def test_layers_kept_in_float_have_their_float_weights(tmp_path: Path) -> None:
    made = quantised(
        float_file("resnet-8"), tmp_path / "int8.onnx", batches(64, seed=1), keep_float=["head", "stem.conv"]
    )
    assert made.kept_float == ("stem.conv", "head")
    assert len(made.layers) == 8
    values, floats = constants(made.path), constants(float_file("resnet-8"))
    for name in ("stem.conv/Conv", "head/Gemm"):
        weight = nodes(made.path)[name].input[1]
        np.testing.assert_array_equal(values[weight], floats[nodes(float_file("resnet-8"))[name].input[1]])
    assert "stage1.0.conv1.weight" not in values


@pytest.mark.parametrize("name", NAMES)
def test_with_all_layers_in_float_nothing_is_rounded(name: str, tmp_path: Path) -> None:
    layers = [
        one for one, module in network(name).named_modules() if isinstance(module, nn.Conv2d | nn.Linear)
    ]
    made = quantised(float_file(name), tmp_path / "int8.onnx", batches(32, seed=1), keep_float=layers)
    assert made.layers == ()
    asked = batches(64, seed=2)
    np.testing.assert_allclose(answers(made.path, asked), answers(float_file(name), asked), atol=1e-5)


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("resnet-8", "stage1.0.conv1"),
        ("resnet-8", "stage2.0.conv2"),
        ("mobile", "block.3"),
        ("plain_cnn-2", "features.conv2"),
    ],
)
def test_what_a_layer_in_float_reads_is_not_rounded_and_keeps_its_activation(
    name: str, kept: str, tmp_path: Path
) -> None:
    """Pixels and weights of a layer are all that is rounded before the layer after it reads."""
    made = quantised(float_file(name), tmp_path / "int8.onnx", batches(64, seed=1), keep_float=[kept])
    described = onnx.load(made.path)
    maker = {output: node for node in described.graph.node for output in node.output}
    (node,) = (one for one in described.graph.node if one.name == f"{kept}/Conv")
    producer = maker[node.input[0]]
    while producer.op_type == "MaxPool":
        producer = maker[producer.input[0]]
    assert producer.op_type in ("Relu", "Clip")
    asked = batches(256, seed=2)
    expected, found = answers(float_file(name), asked), answers(made.path, asked)
    assert (expected.argmax(1) == found.argmax(1)).mean() > 0.97
    read = {one for node in described.graph.node for one in node.input} | {"logits"}
    assert all(read.intersection(one.output) for one in described.graph.node)


def test_preprocessing_inside_stays_in_float(tmp_path: Path) -> None:
    preprocessing = Preprocessing(mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.3), size=SIZE)
    whole = tmp_path / "float.onnx"
    write_onnx(network("mobile"), whole, channels=3, size=(20, 24), preprocessing=preprocessing)
    pixels = 255.0 * torch.rand(64, 3, 20, 24, generator=torch.Generator().manual_seed(0)).numpy()
    made = quantised(whole, tmp_path / "int8.onnx", [pixels])
    assert sorted(made.layers) == ["block.0", "block.3", "block.6", "head", "stem.0"]
    resizing = [node for node in onnx.load(made.path).graph.node if node.op_type == "MatMul"]
    rounded = {node.output[0] for node in onnx.load(made.path).graph.node if "Linear" in node.op_type}
    assert resizing
    assert not any(rounded.intersection(node.input) for node in resizing)
    expected, found = answers(whole, [pixels]), answers(made.path, [pixels])
    assert np.abs(expected - found).max() < 0.1 * (expected.max() - expected.min())


def test_a_file_of_torchs_own_exporter_works_too(tmp_path: Path) -> None:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network("mobile"),
            (torch.zeros(1, 3, *SIZE),),
            str(tmp_path / "float.onnx"),
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    made = quantised(
        tmp_path / "float.onnx", tmp_path / "int8.onnx", batches(64, seed=1), keep_float=["head"]
    )
    assert sorted(made.layers) == ["block.0", "block.3", "block.6", "stem.0"]
    asked = batches(64, seed=2)  # the file takes one image at a time
    expected, found = answers(tmp_path / "float.onnx", asked), answers(made.path, asked)
    assert (expected.argmax(1) == found.argmax(1)).mean() > 0.95


def test_the_same_bytes_in_another_process_and_for_single_images(tmp_path: Path) -> None:
    some = np.concatenate(batches(64, seed=1))
    first = quantised(float_file("mobile"), tmp_path / "one.onnx", [some])
    quantised(float_file("mobile"), tmp_path / "two.onnx", iter(some))
    np.save(tmp_path / "images.npy", some)
    program = f"""
from pathlib import Path
import numpy
from understudy.deploy.int8_static import quantised
some = numpy.load({str(tmp_path / "images.npy")!r})
quantised(Path({str(float_file("mobile"))!r}), Path({str(tmp_path / "three.onnx")!r}), [some])
"""
    subprocess.run([sys.executable, "-c", program], check=True, env={**os.environ, "PYTHONHASHSEED": "7"})
    for name in ("two", "three"):
        assert (tmp_path / f"{name}.onnx").read_bytes() == first.path.read_bytes()


def test_it_says_nothing_and_leaves_logging_alone(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    root = logging.getLogger()
    before = list(root.handlers), list(root.filters), root.level
    quantised(float_file("mobile"), tmp_path / "int8.onnx", batches(32, seed=1))
    assert capfd.readouterr() == ("", "")
    assert caplog.records == []
    assert (root.handlers, root.filters, root.level) == before


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ([], "calibration needs images, and there are none: give some hundred of the training set"),
        ([np.zeros((0, 3, 12, 12), np.float32)], "calibration needs images, and there are none"),
        (
            [np.zeros((4, 3, 16, 12), np.float32)],
            "the file takes images of shape (None, 3, 12, 12), and a calibration image has shape (4, 3, 16, 12)",
        ),
        (
            [np.zeros((12, 12), np.float32)],
            "the file takes images of shape (None, 3, 12, 12), and a calibration",
        ),
        ([np.full((1, 3, 12, 12), np.nan, np.float32)], "a calibration image has values that are not finite"),
    ],
)
def test_calibration_images_that_will_not_do_leave_no_file(
    images: list[np.ndarray], message: str, tmp_path: Path
) -> None:
    with pytest.raises(BadInput) as caught:
        quantised(float_file("mobile"), tmp_path / "int8.onnx", images)
    assert str(caught.value).startswith(message)
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_layer_and_files_that_are_none(tmp_path: Path) -> None:
    target, some = tmp_path / "int8.onnx", batches(32, seed=1)
    with pytest.raises(
        BadInput, match=r"has no layer 'haed' to keep in float. Did you mean 'head'\? Layers: stem.0"
    ):
        quantised(float_file("mobile"), target, some, keep_float=["haed"])
    with pytest.raises(BadInput, match="weight_bits is 8, 7, got 6"):
        quantised(float_file("mobile"), target, some, weight_bits=6)
    with pytest.raises(BadInput, match="cannot be read: No such file"):
        quantised(tmp_path / "none.onnx", target, some)
    (tmp_path / "bad.onnx").write_bytes(b"no protobuf at all")
    with pytest.raises(BadInput, match="is not an ONNX file"):
        quantised(tmp_path / "bad.onnx", target, some)
    write_onnx(nn.Flatten(), tmp_path / "flat.onnx", channels=1, size=(2, 2))
    with pytest.raises(BadInput, match="has no convolution or linear layer, so nothing to quantise"):
        quantised(tmp_path / "flat.onnx", target, [np.zeros((2, 1, 2, 2), np.float32)])
    assert not target.exists()


def test_made_up_images_are_learnt() -> None:
    """Else the tests above would compare noise."""
    images, labels = made_up(512, seed=9)
    for name in NAMES:
        with torch.no_grad():
            assert (network(name)(images).argmax(1) == labels).float().mean() > 0.5
