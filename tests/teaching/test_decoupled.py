"""Decoupled distillation as a way to teach."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tests.teaching.toys import drawn, made_step
from understudy.errors import BadInput
from understudy.losses.decoupled import decoupled_loss
from understudy.tasks import Classification
from understudy.teaching.decoupled import Decoupled

LABELS = torch.tensor([0, 3, 1, 2])


def test_is_the_hard_term_and_the_decoupled_loss() -> None:
    student, teacher = drawn(4, 5), drawn(1, 4, 5, seed=1)
    step = made_step(student, LABELS, teacher)
    parts = Decoupled(temperature=3.0, target_weight=0.5, others_weight=2.0).for_stage(teachers=1).loss(step)
    hard = Classification().hard_loss(student, step.batch)
    soft = decoupled_loss(
        student, teacher[0], LABELS, temperature=3.0, target_weight=0.5, others_weight=2.0
    ).mean()
    torch.testing.assert_close(parts["total"], hard + soft)
    torch.testing.assert_close(parts["soft"], soft)


def test_blended_images_have_no_class_apart() -> None:
    step = made_step(drawn(4, 5), LABELS, drawn(1, 4, 5, seed=1))
    batch = replace(step.batch, share=torch.full((4,), 0.5), partner_labels=LABELS)
    with pytest.raises(BadInput, match=r"leave data\.views\.mixup out"):
        Decoupled().loss(replace(step, batches=(batch,)))


def test_the_ramp_rises_over_the_first_epochs() -> None:
    student, teacher = drawn(4, 5), drawn(1, 4, 5, seed=1)
    method = Decoupled(warmup=4).for_stage(teachers=1)
    shares = []
    for epoch in (0, 1, 3, 9):
        parts = method.loss(replace(made_step(student, LABELS, teacher), epoch=epoch))
        shares.append(((parts["total"] - parts["hard"]) / parts["soft"]).item())
    assert shares == pytest.approx([0.25, 0.5, 1.0, 1.0])


def test_every_setting_is_in_the_definition() -> None:
    plain = Decoupled().definition(teachers=1)
    for change in ({"temperature": 2.0}, {"target_weight": 2.0}, {"others_weight": 1.0}, {"warmup": 3}):
        assert Decoupled(**change).definition(teachers=1) != plain


def test_bad_settings_are_named() -> None:
    with pytest.raises(BadInput, match="has one teacher; got 2"):
        Decoupled().for_stage(teachers=2)
    with pytest.raises(BadInput, match="others_weight is a number of 0 or more; got -1"):
        Decoupled(others_weight=-1)
    with pytest.raises(BadInput, match="temperature is a positive number; got 0"):
        Decoupled(temperature=0)
