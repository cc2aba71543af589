from __future__ import annotations

from pathlib import Path

import numpy as np

from tests.deploy.int8_networks import batches, float_file, uneven_file
from understudy.deploy.int8_static import quantised
from understudy.deploy.onnx_answers import answers
from understudy.deploy.sensitivity import LayerChange, Score, Try, keep_until, layer_changes


def test_the_layer_that_reads_an_uneven_tensor_is_the_most_sensitive(tmp_path: Path) -> None:
    quantised(uneven_file(), tmp_path / "int8.onnx", batches(64, seed=1))
    ranking = layer_changes(uneven_file(), tmp_path / "int8.onnx", batches(64, seed=1))
    assert ranking[0].layer == "features.conv2"
    assert {one.layer for one in ranking} == {
        "features.conv1",
        "features.conv2",
        "classifier.output",
    }
    assert ranking[0].change > 10.0 * ranking[1].change


def test_changes_are_those_of_the_softmax_answers_layer_by_layer(tmp_path: Path) -> None:
    """With all layers but one in float, the int8 file is what is compared."""
    asked = batches(64, seed=1)
    quantised(float_file("mobile"), tmp_path / "int8.onnx", asked)
    ranking = layer_changes(float_file("mobile"), tmp_path / "int8.onnx", asked)
    layers = [one.layer for one in ranking]
    assert sorted(layers) == ["block.0", "block.3", "block.6", "head", "stem.0"]
    assert all(one.change > 0.0 for one in ranking)
    assert [one.change for one in ranking] == sorted((one.change for one in ranking), reverse=True)
    alone = tmp_path / "alone.onnx"
    quantised(float_file("mobile"), alone, asked, keep_float=[layer for layer in layers if layer != "head"])
    expected, found = (answers(path, asked).astype(np.float64) for path in (float_file("mobile"), alone))
    log_expected, log_found = (
        logits - np.log(np.exp(logits).sum(1, keepdims=True)) for logits in (expected, found)
    )
    change = (np.exp(log_expected) * (log_expected - log_found)).sum(1).mean()
    (head,) = (one.change for one in ranking if one.layer == "head")
    np.testing.assert_allclose(head, change, rtol=1e-2)


def test_layers_that_are_in_float_already_are_not_ranked(tmp_path: Path) -> None:
    asked = batches(32, seed=1)
    quantised(float_file("mobile"), tmp_path / "int8.onnx", asked, keep_float=["stem.0", "head"])
    ranking = layer_changes(float_file("mobile"), tmp_path / "int8.onnx", asked)
    assert sorted(one.layer for one in ranking) == ["block.0", "block.3", "block.6"]


def score(correct: int) -> Score:
    return Score(correct=correct, labelled=100, differing=0, images=100)


def test_the_worst_are_left_in_float_one_after_the_other_until_it_is_enough() -> None:
    ranking = [
        LayerChange(layer=name, change=change) for name, change in (("a", 3.0), ("b", 2.0), ("c", 1.0))
    ]
    asked: list[tuple[str, ...]] = []

    def attempt(kept: tuple[str, ...]) -> Score:
        asked.append(kept)
        return score(80 + 5 * len(kept))

    tries = keep_until(ranking, attempt, lambda found: found.accuracy >= 0.9, most=3)
    assert asked == [("a",), ("a", "b")]
    assert tries == [Try(kept_float=kept, score=score(80 + 5 * len(kept))) for kept in asked]
    assert len(keep_until(ranking, attempt, lambda found: False, most=2)) == 2
    assert len(keep_until(ranking, attempt, lambda found: False, most=9)) == 3
    assert keep_until(ranking, attempt, lambda found: False, most=0) == []
