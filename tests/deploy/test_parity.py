from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.deploy.made import IMAGE, PREPROCESSING, small, split
from understudy.deploy.onnx_export import write_onnx
from understudy.deploy.parity import NotAlike, compare, demanded, parity
from understudy.deploy.torch_export import write_torch
from understudy.errors import BadInput

WRITERS = {".onnx": write_onnx, ".pt2": write_torch}


def rows(*logits: list[float]) -> torch.Tensor:
    return torch.tensor(logits)


# ------------------------------------------------------------------------------------------------------- counting
def test_differing_answers_and_accuracies_are_counted_by_hand() -> None:
    student = rows([2, 0, 0], [0, 2, 0], [0, 0, 2], [2, 1, 0])
    file = rows([2, 0, 0], [0, 2, 0], [2, 0, 0], [1, 2, 0])
    found = compare(student, file, torch.tensor([0, 1, 2, 1]))
    assert (found.images, found.differing, found.ties, found.examples) == (4, 2, 0, (2, 3))
    assert (found.accuracy, found.file_accuracy) == (0.75, 0.75)
    assert found.largest_difference == 2.0
    assert not found.holds


def test_an_answer_that_the_student_holds_as_good_is_a_tie() -> None:
    student = rows([1, 1, 0], [100, 99.995, 0], [100, 99.9, 0])
    found = compare(student, student[:, [1, 0, 2]] + rows([0, 1e-6, 0]), torch.tensor([0, 0, 0]))
    assert (found.differing, found.ties, found.examples) == (1, 2, (2,))
    assert found.holds  # one may always differ


def test_a_near_class_excuses_no_other_answer() -> None:
    found = compare(rows([1, 1, 0]), rows([0, 0, 1]), torch.tensor([0]))
    assert (found.differing, found.ties) == (1, 0)


@pytest.mark.parametrize(
    ("images", "allowed"), [(1, 1), (999, 1), (1000, 1), (1999, 1), (2000, 2), (10_000, 10)]
)
def test_one_image_or_one_in_a_thousand_may_differ(images: int, allowed: int) -> None:
    logits = torch.zeros(images, 2)
    assert compare(logits, logits, torch.zeros(images, dtype=torch.long)).allowed == allowed


def test_what_is_no_number_differs_and_is_right_nowhere() -> None:
    student = rows([1, 1], [1, 0], [0, 1])
    file = rows([math.nan, math.nan], [math.inf, 0], [0, 1])
    found = compare(student, file, torch.tensor([0, 0, 1]))
    assert (found.differing, found.ties) == (2, 0)
    assert found.file_accuracy == pytest.approx(1 / 3)
    assert found.largest_difference == math.inf
    assert json.loads(json.dumps(found.as_dict(), allow_nan=False))["largest_difference"] is None


def test_images_without_a_label_count_in_no_accuracy() -> None:
    student = rows([1, 0], [1, 0])
    found = compare(student, student.flip(1), torch.tensor([-1, 0]))
    assert (found.differing, found.accuracy, found.file_accuracy) == (2, 1.0, 0.0)


# ----------------------------------------------------------------------------------------------------------- files
def broken(layer: str) -> nn.Module:
    """The small network with one layer of other weights."""
    model = small()
    model.get_submodule(layer).weight.data *= -4  # type: ignore[union-attr]
    return model


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str, bool], Path]:
    """A file of the small network, or (``layer``) of one that is broken there."""
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    folder = tmp_path_factory.mktemp("files")

    def write(ending: str, layer: str = "", inside: bool = False) -> Path:
        path = folder / f"{layer or 'whole'}-{inside}{ending}"
        if not path.exists():
            WRITERS[ending](
                broken(layer) if layer else small(),
                path,
                channels=3,
                size=IMAGE if inside else (8, 8),
                preprocessing=PREPROCESSING if inside else None,
            )
        return path

    return write


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("ending", WRITERS)
def test_a_good_file_answers_as_the_student(
    written: Callable[[str, str, bool], Path], ending: str, inside: bool
) -> None:
    found = demanded(
        small(), written(ending, "", inside), split(), preprocessing=PREPROCESSING, classes=3, inside=inside
    )
    assert (found.images, found.differing, found.part) == (40, 0, "validation")
    assert found.accuracy == found.file_accuracy > 0
    assert found.largest_difference < 1e-4


@pytest.mark.parametrize("layer", ["stem.0", "block.0", "head"])
@pytest.mark.parametrize("ending", WRITERS)
def test_the_first_layer_that_parts_is_named(
    written: Callable[[str, str, bool], Path], ending: str, layer: str
) -> None:
    path = written(ending, layer, False)
    with pytest.raises(
        NotAlike, match=r"otherwise than the student; 1 may differ\. They part first at"
    ) as raised:
        demanded(small(), path, split(), preprocessing=PREPROCESSING, classes=3)
    assert f"layer '{layer}' (aten." in str(raised.value)
    assert raised.value.exit_status == 1


def test_the_layer_is_named_behind_preprocessing_too(written: Callable[[str, str, bool], Path]) -> None:
    with pytest.raises(NotAlike, match=r"part first at layer 'block\.0' \(aten\.conv2d\)"):
        demanded(
            small(),
            written(".onnx", "block.0", True),
            split(),
            preprocessing=PREPROCESSING,
            classes=3,
            inside=True,
        )


def test_a_changed_number_in_the_file_itself_is_found(
    written: Callable[[str, str, bool], Path], tmp_path: Path
) -> None:
    import onnx

    described = onnx.load(written(".onnx", "", False))
    (bias,) = (one for one in described.graph.initializer if one.name == "block.0.bias")
    numbers = onnx.numpy_helper.to_array(bias).copy()
    numbers[0] = math.nan
    bias.CopyFrom(onnx.numpy_helper.from_array(numbers, bias.name))
    onnx.save(described, tmp_path / "changed.onnx")
    with pytest.raises(
        NotAlike, match=r"answers 40 of 40 .* layer 'block\.0' \(aten\.conv2d\), where values differ by inf"
    ):
        demanded(small(), tmp_path / "changed.onnx", split(), preprocessing=PREPROCESSING, classes=3)


def test_a_file_whose_values_have_other_names_is_told_so(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    helper = onnx.helper
    graph = helper.make_graph(
        [
            helper.make_node("ReduceMean", ["x", "axes"], ["y"], keepdims=0),
            helper.make_node("Neg", ["y"], ["z"]),
        ],
        "other",
        [helper.make_tensor_value_info("x", 1, ["batch", 3, 8, 8])],
        [helper.make_tensor_value_info("z", 1, None)],
        [helper.make_tensor("axes", 7, [2], [2, 3])],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnx.save(made, tmp_path / "other.onnx")
    with pytest.raises(NotAlike, match="Which layer parts cannot be seen: the file names no values"):
        demanded(small(), tmp_path / "other.onnx", split(), preprocessing=PREPROCESSING, classes=3)


@pytest.mark.parametrize("ending", WRITERS)
def test_a_file_for_other_classes_is_bad_input(
    written: Callable[[str, str, bool], Path], ending: str
) -> None:
    model = nn.Sequential(small(), nn.Linear(3, 5))
    with pytest.raises(BadInput, match="answers 40 images for 3 classes, and the student has 5 classes"):
        parity(model, written(ending, "", False), split(), preprocessing=PREPROCESSING, classes=5)


@pytest.mark.parametrize("ending", WRITERS)
def test_a_file_for_other_images_is_bad_input(written: Callable[[str, str, bool], Path], ending: str) -> None:
    with pytest.raises(BadInput) as raised:
        parity(small(), written(ending, "", True), split(), preprocessing=PREPROCESSING, classes=3)
    assert "\n" not in str(raised.value)


def test_without_images_nothing_can_be_said(written: Callable[[str, str, bool], Path]) -> None:
    with pytest.raises(BadInput, match="no images to compare"):
        parity(small(), written(".onnx", "", False), split(0), preprocessing=PREPROCESSING, classes=3)
