from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.deploy.made import IMAGE, NAMES, PREPROCESSING, pixels, small
from understudy.deploy.onnx_export import OPSET, write_onnx
from understudy.errors import BadInput, MissingExtra


class Bessel(nn.Module):
    def forward(self, features: Tensor) -> Tensor:
        return torch.special.bessel_j0(features)


class Odd(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3)
        self.inner = nn.Sequential(nn.ReLU(), Bessel())

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.inner(self.conv(images))
        return features.mean((2, 3))


def test_without_the_packages_one_line_says_how_to_install_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(MissingExtra, match=r'^an ONNX file needs .* pip install "understudy\[export\]"$'):
        write_onnx(small(), tmp_path / "a.onnx", channels=3, size=(8, 8))


@pytest.fixture(scope="module")
def onnx() -> Any:
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    return pytest.importorskip("onnx")


@pytest.fixture(scope="module")
def folder(onnx: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small network as ``plain.onnx``, and as ``pixels.onnx`` with its preprocessing."""
    folder = tmp_path_factory.mktemp("onnx")
    write_onnx(small(), folder / "plain.onnx", channels=3, size=(8, 8), class_names=NAMES)
    write_onnx(small(), folder / "pixels.onnx", channels=3, size=IMAGE, preprocessing=PREPROCESSING)
    return folder


def ran(path: Path, images: Tensor) -> Tensor:
    import onnxruntime

    session = onnxruntime.InferenceSession(path)
    assert [one.name for one in session.get_inputs()] == ["images"]
    assert [one.name for one in session.get_outputs()] == ["logits"]
    return torch.from_numpy(session.run(None, {"images": images.contiguous().numpy()})[0])


@pytest.mark.parametrize("count", [1, 2, 7])
def test_the_file_answers_batches_of_any_length_as_the_network_does(folder: Path, count: int) -> None:
    images = PREPROCESSING(pixels(count))
    torch.testing.assert_close(ran(folder / "plain.onnx", images), small()(images), rtol=1e-5, atol=1e-5)


def test_with_preprocessing_it_takes_pixels(folder: Path) -> None:
    expected = small()(PREPROCESSING(pixels()))
    torch.testing.assert_close(ran(folder / "pixels.onnx", pixels()), expected, rtol=1e-4, atol=1e-4)


def test_operators_are_named_after_layers_and_batch_norm_is_gone(folder: Path, onnx: Any) -> None:
    nodes = onnx.load(folder / "pixels.onnx").graph.node
    names = [node.name for node in nodes]
    assert len(set(names)) == len(names)
    assert {"stem.0/Conv", "stem.2/Relu", "block.0/Conv", "head/Gemm", "preprocessing/Sub", "Add"} <= set(
        names
    )
    assert "BatchNormalization" not in {node.op_type for node in nodes}


def test_the_file_is_sound_and_for_old_runtimes_too(folder: Path, onnx: Any) -> None:
    for name in ("plain.onnx", "pixels.onnx"):
        described = onnx.load(folder / name)
        onnx.checker.check_model(described, full_check=True)
        assert [(one.domain, one.version) for one in described.opset_import] == [("", OPSET)]
        assert described.ir_version == 8
        assert described.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"


def test_class_names_are_in_it_and_nothing_of_the_machine_that_wrote_it(folder: Path, onnx: Any) -> None:
    (entry,) = onnx.load(folder / "plain.onnx").metadata_props
    assert (entry.key, json.loads(entry.value)) == ("class_names", list(NAMES))
    content = (folder / "plain.onnx").read_bytes()
    for trace in (__file__, os.path.dirname(torch.__file__), "site-packages", "stack_trace"):  # noqa: PTH120
        assert trace.encode() not in content


def test_the_same_network_gives_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    write_onnx(small(), tmp_path / "again.onnx", channels=3, size=(8, 8), class_names=NAMES)
    assert (tmp_path / "again.onnx").read_bytes() == (folder / "plain.onnx").read_bytes()


def test_an_operator_that_onnx_lacks_is_named_with_its_layer(onnx: Any, tmp_path: Path) -> None:
    with pytest.raises(
        BadInput, match=r"^ONNX cannot express \S*bessel_j0, which layer 'inner\.1' uses\. .*--to torch"
    ):
        write_onnx(Odd(), tmp_path / "a.onnx", channels=3, size=(8, 8))
    assert list(tmp_path.iterdir()) == []
