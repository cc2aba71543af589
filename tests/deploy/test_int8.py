from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.deploy.int8_networks import batches, float_file, made_up, uneven_file
from understudy.deploy.int8 import Int8Result, TooMuchLost, int8_of
from understudy.deploy.onnx_answers import answers
from understudy.errors import BadInput


def searched(file: Path, target: Path, **changed: Any) -> Int8Result:
    arguments: dict[str, Any] = {
        "calibration_images": batches(64, seed=1),
        "validation_images": batches(300, seed=2),
        "labels": made_up(300, seed=2)[1].numpy(),
    }
    return int8_of(file, target, **{**arguments, **changed})


def test_where_int8_costs_nothing_all_layers_are_int8(tmp_path: Path) -> None:
    found = searched(float_file("plain_cnn-2"), tmp_path / "int8.onnx", max_drop=1.0)
    assert found.file.path == tmp_path / "int8.onnx"
    assert found.file.kept_float == ()
    assert found.ranking == ()
    assert len(found.tries) == 1
    labels = made_up(300, seed=2)[1].numpy()
    given = [
        answers(path, batches(300, seed=2)).argmax(1) for path in (float_file("plain_cnn-2"), found.file.path)
    ]
    assert found.float_accuracy == (given[0] == labels).mean()
    assert found.score.accuracy == (given[1] == labels).mean()
    assert found.score.differing == (given[0] != given[1]).sum()
    assert found.row() == {
        "name": "int8 after training",
        "accuracy": found.score.accuracy,
        "bytes": found.file.path.stat().st_size,
    }
    assert found.sentence().startswith("int8: all layers; accuracy ")
    assert [path.name for path in tmp_path.iterdir()] == ["int8.onnx"]


def test_the_layer_that_costs_accuracy_is_left_in_float_and_named(tmp_path: Path) -> None:
    found = searched(uneven_file(), tmp_path / "int8.onnx", max_drop=1.0)
    lost = found.float_accuracy - found.tries[0].score.accuracy
    assert lost > 0.02
    assert found.file.kept_float == ("features.conv2",)
    assert found.file.layers == ("features.conv1", "classifier.output")
    assert found.float_accuracy - found.score.accuracy <= 0.01
    assert found.tries[-1].kept_float == tuple(one.layer for one in found.ranking[: len(found.tries) - 1])
    assert "int8: 1 of 3 layers stay in float32 (features.conv2: " in found.sentence()


def test_where_nothing_helps_the_best_is_said_and_no_file_stays(tmp_path: Path) -> None:
    target = tmp_path / "int8.onnx"
    target.write_bytes(b"an older one")
    with pytest.raises(TooMuchLost) as caught:
        searched(uneven_file(), target, max_drop=0.0, most_float=0)
    said = str(caught.value)
    assert said.startswith("int8 costs too much accuracy: at best ")
    assert "allowed are 0 points and 5 %. Allow more with --max-drop, or distil the student as int8" in said
    assert "Most sensitive: features.conv2: " in said
    assert "\n" not in said
    assert list(tmp_path.iterdir()) == []


def test_images_may_be_one_array(tmp_path: Path) -> None:
    whole = {
        "calibration_images": np.concatenate(batches(64, seed=1)),
        "validation_images": np.concatenate(batches(300, seed=2)),
    }
    found = searched(float_file("plain_cnn-2"), tmp_path / "one.onnx", max_drop=1.0, **whole)
    again = searched(float_file("plain_cnn-2"), tmp_path / "two.onnx", max_drop=1.0)
    assert found.score == again.score
    assert (tmp_path / "one.onnx").read_bytes() == (tmp_path / "two.onnx").read_bytes()


def test_images_may_come_once_and_without_labels(tmp_path: Path) -> None:
    labels = made_up(300, seed=2)[1].numpy().copy()
    labels[150:] = -1
    found = searched(
        float_file("plain_cnn-2"),
        tmp_path / "int8.onnx",
        calibration_images=iter(batches(64, seed=1)),
        validation_images=iter(batches(300, seed=2)),
        labels=labels,
        max_drop=2.0,
    )
    assert (found.score.labelled, found.score.images) == (150, 300)
    assert 0.5 < found.score.accuracy <= 1.0


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"calibration_images": []}, "calibration needs images, and there are none"),
        ({"validation_images": []}, "there are no images to ask "),
        (
            {"labels": np.zeros(7, np.int64)},
            "there are 300 validation images and 7 labels: give one for each",
        ),
        ({"labels": np.full(300, -1)}, "no validation image has a label, so int8 cannot be compared"),
        ({"max_drop": -1.0}, "max_drop is a number of percentage points, 0 to 100, got -1.0"),
        ({"max_drop": float("nan")}, "max_drop is a number of percentage points, 0 to 100, got nan"),
        ({"max_drop": 100.5}, "max_drop is a number of percentage points, 0 to 100, got 100.5"),
    ],
)
def test_bad_input_is_one_line_and_leaves_no_file(
    changed: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(BadInput) as caught:
        searched(float_file("plain_cnn-2"), tmp_path / "int8.onnx", **changed)
    assert str(caught.value).startswith(message)
    assert list(tmp_path.iterdir()) == []
