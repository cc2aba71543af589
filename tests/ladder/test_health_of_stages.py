"""Faults that are planted into real stages are named in plain words, in the record and to whoever watches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.ladder.tiny import jobs_of, made_up, network, stage, training
from understudy.data import Dataset
from understudy.ladder.runner import Watcher, run
from understudy.store import Store
from understudy.store.results import WEIGHTS
from understudy.teaching import Method, SoftTargets, Step


@pytest.fixture
def dataset() -> Dataset:
    return made_up(train=96, validation=64)


def made(stages: list[Any], dataset: Dataset, store: Store) -> tuple[dict[str, Any], list[str]]:
    """Records by stage, and what was said while they were made."""
    said: list[str] = []
    watcher = Watcher(event=lambda job, event: said.append(event.message) if event.kind == "say" else None)
    outcomes = run(jobs_of(stages, dataset), store=store, dataset=dataset, watcher=watcher)
    assert all(outcome.state == "done" for outcome in outcomes), [outcome.message for outcome in outcomes]
    return {o.job.name: o.result.record for o in outcomes if o.result}, said


class Still(Method):
    """Its loss is 1, whatever the student does."""

    name = "still"

    def definition(self, *, teachers: int) -> dict[str, Any]:
        return {"name": self.name}

    def loss(self, step: Step) -> dict[str, Tensor]:
        output = step.student(step.batch)
        return {"total": (output * 0).sum() + 1, "hard": (output * 0).sum()}


def test_a_sound_ladder_has_no_warnings_and_a_line_of_health(dataset: Dataset, tmp_path: Path) -> None:
    strong = training(epochs=12, lr=0.1)
    stages = [stage("teacher", training=strong), stage("student", "teacher", training=strong)]
    records, said = made(stages, dataset, Store(tmp_path))
    assert records["teacher"]["warnings"] == records["student"]["warnings"] == []
    health = records["student"]["health"]
    assert 0.25 < health["agreement"]["teacher"] <= 1
    assert sum(health["gradient"].values()) == pytest.approx(1)
    assert any(line.startswith("agrees with teacher on ") and "gradient: hard " in line for line in said)


def test_a_teacher_whose_classes_are_in_another_order_is_named_before_it_teaches(
    dataset: Dataset, tmp_path: Path
) -> None:
    store = Store(tmp_path / "store")
    strong = training(epochs=12, lr=0.1)
    (job,) = jobs_of([stage("teacher", training=strong)], dataset)
    run([job], store=store, dataset=dataset)
    tensors = load_file(store.place(job.key) / WEIGHTS)
    turned = {
        name: tensor.roll(1, dims=0).contiguous() if "classifier.output" in name else tensor
        for name, tensor in tensors.items()
    }
    assert any(not torch.equal(turned[name], tensors[name]) for name in tensors)
    save_file(turned, tmp_path / "turned.safetensors")
    given = stage("teacher", weights=tmp_path / "turned.safetensors", method=None, training=None)

    records, said = made([given, stage("student", "teacher")], dataset, store)

    (warning,) = [line for line in records["student"]["warnings"] if "teacher" in line]
    assert warning.startswith("its teacher teacher is no better than guessing")
    assert warning in said


def test_a_loss_that_stands_still_and_a_term_that_is_zero_are_named(dataset: Dataset, tmp_path: Path) -> None:
    records, said = made([stage("teacher", method=Still())], dataset, Store(tmp_path))
    warnings = records["teacher"]["warnings"]
    assert "the hard term was exactly 0 in every epoch: it taught nothing." in warnings
    assert "the loss did not move from 1 in 2 epochs: nothing was learned." in warnings
    assert set(warnings) <= set(said)


def test_a_student_stuck_at_chance_is_named(dataset: Dataset, tmp_path: Path) -> None:
    records, _ = made([stage("teacher", training=training(lr=1e-9))], dataset, Store(tmp_path))
    assert any("it is no better than guessing" in warning for warning in records["teacher"]["warnings"])


def test_a_soft_term_that_hardly_pulls_is_named(dataset: Dataset, tmp_path: Path) -> None:
    strong = training(epochs=6, lr=0.1)
    weak = stage("student", "teacher", method=SoftTargets(soft_weight=1e-6), training=strong)
    records, _ = made([stage("teacher", training=strong), weak], dataset, Store(tmp_path))
    assert any("the soft term has " in warning for warning in records["student"]["warnings"])


def test_learning_by_heart_is_named(tmp_path: Path) -> None:
    few = made_up(train=16, validation=64)
    few = type(few)(**{**vars(few), "validation": _shuffled(few)})
    long = training(epochs=60, lr=0.1, batch_size=8)
    records, _ = made([stage("teacher", network=network(width=1.0), training=long)], few, Store(tmp_path))
    assert any(
        "it knows its training images much better" in warning for warning in records["teacher"]["warnings"]
    )


def _shuffled(dataset: Dataset) -> Any:
    """Validation images with labels that no image shows."""
    split = dataset.validation
    return type(split)(images=split.images, labels=(split.labels + 1) % 4)
