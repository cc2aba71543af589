"""Hints: the sum in numpy, what is trained and what stays, refusals, and an exact resume."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tests.ladder.tiny import same_tensors, training
from tests.teaching.test_sparse_codes import PAIRS, initial, refusal, teacher, teacher_model, teacher_state
from tests.teaching.toys import drawn, made_step
from tests.training.test_loop import Stop, log_of, normalised, trained, weights
from understudy.data.views import ViewPolicy
from understudy.errors import Interrupted
from understudy.teaching import Beginning
from understudy.teaching.hints import Hints


def begun(*pairs: tuple[str, str]) -> Hints:
    method = Hints(pairs=pairs).for_stage(teachers=1)
    torch.manual_seed(3)
    method.begin(
        Beginning(
            model=nn.Identity(),
            labels=np.arange(8) % 4,
            classes=4,
            epochs=2,
            seed=0,
            shapes={"s": (4, 2, 2), "t": (7,)},
            teacher_shapes=[{"a": (3, 2, 2), "b": (5,)}],
            handed=None,
        )
    )
    return method


def test_the_loss_is_the_squared_difference_after_the_regressors() -> None:
    method = begun(("s", "a"), ("t", "b"))
    student = {"s": drawn(4, 4, 2, 2, seed=2).requires_grad_(), "t": drawn(4, 7, seed=3).requires_grad_()}
    teaching = {"a": drawn(4, 3, 2, 2).requires_grad_(), "b": drawn(4, 5, seed=1).requires_grad_()}
    step = replace(
        made_step(torch.zeros(4, 4), torch.zeros(4).long()),
        student_features=lambda batch: (torch.zeros(4, 4), student),
        teacher_features=lambda position, batch: teaching,
    )
    parts = method.loss(step)
    expected = 0.0
    for regressor, (own, other) in zip(method.regressors, method.pairs, strict=True):
        assert regressor.project.bias is not None
        weight = regressor.project.weight.detach().double().numpy()[:, :, 0, 0]
        bias = regressor.project.bias.detach().double().numpy()
        f, x = (
            one.detach().double().numpy().reshape(4, one.shape[1], -1)
            for one in (student[own], teaching[other])
        )
        told = np.einsum("ds,bsp->bdp", weight, f) + bias[:, None]
        expected += ((told - x) ** 2).mean()
    assert parts["total"].item() == pytest.approx(expected, rel=1e-5)
    assert parts["hints"] is parts["total"]
    parts["total"].backward()
    assert all(one.grad is not None and one.grad.abs().sum() > 0 for one in student.values())
    assert all(one.grad is None for one in teaching.values())


def test_it_is_zero_where_the_regressor_tells_the_teachers_features() -> None:
    method = begun(("s", "a"))
    features = drawn(4, 4, 2, 2)
    step = replace(
        made_step(torch.zeros(4, 4), torch.zeros(4).long()),
        student_features=lambda batch: (torch.zeros(4, 4), {"s": features}),
        teacher_features=lambda position, batch: {"a": method.regressors[0](features).detach()},
    )
    assert method.loss(step)["total"].item() == 0


def taught(folder: Path, into: list[Hints] | None = None, **more: Any) -> Any:
    class Kept(Hints):
        def for_stage(self, *, teachers: int) -> Hints:
            bound = super().for_stage(teachers=teachers)
            if into is not None:
                into.append(bound)
            return bound

    said = {"said": training(epochs=3, weight_decay=0.05), **more}
    return trained(folder, normalised, Kept(pairs=PAIRS), speakers=[teacher()], **said)


def test_regressors_are_trained_and_thrown_away_and_the_classifier_stays(tmp_path: Path) -> None:
    early: list[Hints] = []
    with pytest.raises(Interrupted):
        taught(tmp_path / "early", early, stop=Stop(1))
    into: list[Hints] = []
    done = taught(tmp_path / "whole", into)
    for one, other in zip(early[0].regressors, into[0].regressors, strict=True):
        assert not torch.equal(one.project.weight, other.project.weight)
    assert list(into[0].modules()) == ["regressor0", "regressor1"]
    assert dict(done.artefacts) == {}
    before, after = initial(), weights(done)
    assert set(after) == set(before)
    for name in ("classifier.output.weight", "classifier.output.bias"):
        assert torch.equal(after[name], before[name])
    assert not torch.equal(after["features.conv1.weight"], before["features.conv1.weight"])
    lines = log_of(tmp_path / "whole")
    assert set(lines[0]["loss"]) == {"total", "hints"}
    assert lines[-1]["loss"]["total"] < lines[0]["loss"]["total"]
    assert same_tensors(dict(teacher_model().state_dict()), teacher_state())


def test_a_training_that_is_stopped_after_every_step_ends_with_the_same_bits(tmp_path: Path) -> None:
    policy = ViewPolicy(crop=1, flip=True)
    whole = taught(tmp_path / "whole", policy=policy)
    attempts = 0
    while True:
        attempts += 1
        try:
            parts = taught(tmp_path / "parts", policy=policy, stop=Stop(1))
            break
        except Interrupted:
            assert attempts < 30
    assert attempts > 5
    assert same_tensors(weights(parts), weights(whole))
    assert log_of(tmp_path / "parts") == log_of(tmp_path / "whole")


def test_the_pairs_are_the_definition() -> None:
    assert Hints(pairs=PAIRS).definition(teachers=1) == {
        "name": "hints",
        "version": 1,
        "pairs": [list(pair) for pair in PAIRS],
    }
    assert Hints(pairs=PAIRS).needs().features == ("features.pool1", "features.pool2")
    assert Hints(pairs=PAIRS).needs().teacher_features == (("features.relu4", "features.pool2"),)


def test_what_cannot_be_matched_is_refused_in_one_line(tmp_path: Path) -> None:
    assert refusal(partial(Hints, pairs=())) == (
        "hints need pairs of layers (student's, teacher's), each once; got []."
    )
    assert refusal(partial(Hints(pairs=PAIRS).for_stage, teachers=0)) == (
        "hints match the layers of one teacher; the stage has 0."
    )

    def start(*pairs: tuple[str, str]) -> str:
        method = Hints(pairs=pairs)
        return refusal(partial(trained, tmp_path, normalised, method, speakers=[teacher()]))

    assert start(("features.pool1", "features.pool9")).startswith(
        "the teacher has no layer 'features.pool9'."
    )
    assert start(("features.pool1", "features.pool2"), ("features.pool1", "features.relu4")).startswith(
        "the student's 'features.pool1' gives 8x4x4 and the teacher's 'features.pool2' 16x2x2: "
        "a pair needs one height and width."
    )
