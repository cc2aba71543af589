from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from understudy.errors import BadInput, MissingExtra
from understudy.models import build
from understudy.models.frozen_files import open_network
from understudy.models.onnx_files import OnnxNetwork
from understudy.structure.cost import cost


def test_without_the_packages_one_line_says_how_to_install_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(
        MissingExtra, match=r'^a teacher in an ONNX file needs .* pip install "understudy\[export\]"$'
    ):
        OnnxNetwork(b"", source="a.onnx", classes=2, channels=1, size=(8, 8), threads=1)


@pytest.fixture
def onnx() -> Any:
    pytest.importorskip("onnxruntime")
    return pytest.importorskip("onnx")


class Made:
    """A linear classifier of 8x8 images as an ONNX model made by hand, parts of which tests change."""

    def __init__(self, onnx: Any) -> None:
        self.onnx, self.helper = onnx, onnx.helper
        self.weight = np.random.default_rng(0).normal(size=(64, 4)).astype(np.float32)
        self.image: list[Any] = ["batch", 1, 8, 8]
        self.kind = onnx.TensorProto.FLOAT
        self.extra: list[Any] = []
        self.inputs: list[Any] = []
        self.outputs: list[Any] = []
        self.opsets = [self.helper.make_opsetid("", 17)]

    def model(self) -> Any:
        helper = self.helper
        nodes = [
            helper.make_node("Flatten", ["images"], ["flat"]),
            helper.make_node("Gemm", ["flat", "weight"], ["logits"]),
        ]
        graph = helper.make_graph(
            nodes + self.extra,
            "made",
            [helper.make_tensor_value_info("images", self.kind, self.image), *self.inputs],
            [helper.make_tensor_value_info("logits", self.kind, None), *self.outputs],
            [self.onnx.numpy_helper.from_array(self.weight, "weight")],
        )
        return helper.make_model(graph, opset_imports=self.opsets, ir_version=8)

    def save(self, path: Path, model: Any = None) -> Path:
        path.write_bytes((model or self.model()).SerializeToString())
        return path


@pytest.fixture
def made(onnx: Any) -> Made:
    return Made(onnx)


def opened(path: Path, **changed: Any) -> OnnxNetwork:
    fit: dict[str, Any] = {"classes": 4, "channels": 1, "size": (8, 8)}
    network = open_network(path, **{**fit, **changed})
    assert isinstance(network, OnnxNetwork)
    return network


def refusal(path: Path, **changed: Any) -> str:
    with pytest.raises(BadInput) as refused:
        opened(path, **changed)
    assert "\n" not in str(refused.value)
    return str(refused.value).replace(str(path), "FILE")


def test_it_answers_what_the_file_says(made: Made, tmp_path: Path) -> None:
    network = opened(made.save(tmp_path / "a.onnx"))
    images = torch.randn(5, 1, 8, 8).contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(network(images), images.flatten(1) @ torch.from_numpy(made.weight))
    assert (network.weights, network.multiply_adds) == (64 * 4, 64 * 4)
    assert not list(network.parameters())


@pytest.mark.parametrize("name", ["plain_cnn-2", "resnet-8", "vgg-8"])
def test_an_export_of_torch_answers_as_the_network_does(onnx: Any, tmp_path: Path, name: str) -> None:
    pytest.importorskip("onnxscript")
    torch.manual_seed(0)
    model = build(name, classes=4, channels=1, size=(16, 16), width=0.25)
    model(torch.randn(16, 1, 16, 16))  # lived-in statistics
    model.eval()
    path = tmp_path / "a.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch's exporter, about itself
        torch.onnx.export(
            model,
            (torch.zeros(2, 1, 16, 16),),
            path,
            dynamo=True,
            external_data=False,
            dynamic_shapes=({0: "batch"},),
            verbose=False,
        )
    network = opened(path, size=(16, 16))
    images = torch.randn(7, 1, 16, 16)
    torch.testing.assert_close(network(images), model(images), atol=1e-5, rtol=1e-5)
    assert network.multiply_adds == cost(model, channels=1, size=(16, 16)).multiply_adds


def test_multiply_adds_are_unknown_where_shapes_are(made: Made, tmp_path: Path) -> None:
    made.extra = [
        made.helper.make_node("Size", ["flat"], ["count"]),
        made.helper.make_node("Loop", ["one", "", "flat"], ["looped"], body=_same(made)),
        made.helper.make_node("MatMul", ["looped", "weight"], ["unused"]),
    ]
    model = made.model()
    model.graph.initializer.append(made.onnx.numpy_helper.from_array(np.array(1), "one"))
    assert opened(made.save(tmp_path / "a.onnx", model)).multiply_adds == 0


def _same(made: Made) -> Any:
    """The body of a loop that changes nothing, and does not say of what shape."""
    helper, kinds = made.helper, made.onnx.TensorProto
    return helper.make_graph(
        [helper.make_node("Identity", ["go"], ["on"]), helper.make_node("Identity", ["x"], ["y"])],
        "body",
        [
            helper.make_tensor_value_info("number", kinds.INT64, []),
            helper.make_tensor_value_info("go", kinds.BOOL, []),
            helper.make_tensor_value_info("x", kinds.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("on", kinds.BOOL, []),
            helper.make_tensor_value_info("y", kinds.FLOAT, None),
        ],
    )


@pytest.mark.parametrize("place", ["/etc/passwd", "../other.data", "weights.data"])
def test_data_outside_of_the_file_are_refused_wherever_they_lie(
    made: Made, tmp_path: Path, place: str
) -> None:
    (tmp_path / "weights.data").write_bytes(made.weight.tobytes())
    model = made.model()
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = made.onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=place)
    said = refusal(made.save(tmp_path / "a.onnx", model))
    assert said.startswith(
        f"FILE keeps the data of 'weight' outside, in '{place}'; only files that are whole are read."
    )


def test_data_outside_are_found_inside_of_operators_too(made: Made, tmp_path: Path) -> None:
    hidden = made.onnx.numpy_helper.from_array(np.zeros(1, dtype=np.float32), "hidden")
    hidden.external_data.add(key="location", value="/etc/passwd")
    made.extra = [made.helper.make_node("Constant", [], ["constant"], value=hidden)]
    assert "keeps the data of 'hidden' outside" in refusal(made.save(tmp_path / "a.onnx"))


def test_operators_of_other_makers_are_refused(made: Made, tmp_path: Path) -> None:
    made.extra = [made.helper.make_node("Run", ["flat"], ["ran"], domain="my.company")]
    made.opsets.append(made.helper.make_opsetid("my.company", 1))
    said = refusal(made.save(tmp_path / "a.onnx"))
    assert said.startswith("FILE needs the operator Run of 'my.company', which is not one of ONNX's own.")


def test_a_batch_of_one_length_is_refused_with_the_export_that_helps(made: Made, tmp_path: Path) -> None:
    made.image = [1, 1, 8, 8]
    said = refusal(made.save(tmp_path / "a.onnx"))
    assert said.startswith(
        "FILE takes batches of 1 only; teaching needs batches of any length. Export it again: torch.onnx"
    )
    assert 'dynamic_shapes=({0: "batch"},)' in said


def test_images_of_another_size_are_refused_with_the_key_that_helps(made: Made, tmp_path: Path) -> None:
    path = made.save(tmp_path / "a.onnx")
    assert "Write size: [8, 8] beside file:" in refusal(path, size=(16, 16))
    assert "the images are (batch, 3, 8, 8)" in refusal(path, channels=3)


def test_other_classes_are_refused_with_both_numbers(made: Made, tmp_path: Path) -> None:
    said = refusal(made.save(tmp_path / "a.onnx"), classes=10)
    assert said.startswith("FILE answers for 4 classes, and the data have 10.")


def test_numbers_other_than_float32_are_refused(made: Made, tmp_path: Path) -> None:
    made.kind, made.weight = made.onnx.TensorProto.DOUBLE, made.weight.astype(np.float64)
    assert refusal(made.save(tmp_path / "a.onnx")).startswith("FILE takes tensor(double); a teacher takes")


def test_a_second_input_or_output_is_refused(made: Made, tmp_path: Path) -> None:
    made.outputs = [made.helper.make_tensor_value_info("flat", made.kind, None)]
    assert refusal(made.save(tmp_path / "a.onnx")).startswith(
        "FILE has 1 inputs and 2 outputs (images, logits, flat); a teacher has one of each"
    )


def test_answers_that_are_not_finite_are_refused(made: Made, tmp_path: Path) -> None:
    made.weight[3, 2] = np.nan
    assert "answers with numbers that are NaN or infinite" in refusal(made.save(tmp_path / "a.onnx"))


@pytest.mark.parametrize("content", [b"this is no protobuf at all", b"\x08\x08"])
def test_a_file_of_something_else_is_one_line(onnx: Any, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.onnx"
    path.write_bytes(content)
    assert "FILE" in refusal(path)


def test_a_file_cut_short_is_one_line(made: Made, tmp_path: Path) -> None:
    path = made.save(tmp_path / "a.onnx")
    path.write_bytes(path.read_bytes()[:-100])
    assert refusal(path).startswith("FILE is not an ONNX file")
