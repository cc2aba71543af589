"""Distillation of standardised logits as a way to teach."""

from __future__ import annotations

import pytest
import torch

from tests.teaching.toys import drawn, made_step
from understudy.errors import BadInput
from understudy.losses.standardised import standardised_soft_target_loss
from understudy.tasks import Classification
from understudy.teaching.standardised import Standardised

LABELS = torch.tensor([0, 3, 1, 2])


def test_is_the_weighted_sum_of_hard_and_standardised_soft_term() -> None:
    student, teacher = drawn(4, 5), drawn(1, 4, 5, seed=1)
    step = made_step(student, LABELS, teacher)
    parts = Standardised(temperature=3.0, hard_weight=0.25, soft_weight=2.0).for_stage(teachers=1).loss(step)
    hard = Classification().hard_loss(student, step.batch)
    soft = standardised_soft_target_loss(student, teacher[0], temperature=3.0).mean()
    torch.testing.assert_close(parts["total"], 0.25 * hard + 2.0 * soft)


def test_every_setting_is_in_the_definition() -> None:
    plain = Standardised().definition(teachers=1)
    for change in ({"temperature": 4.0}, {"hard_weight": 0.5}, {"soft_weight": 1.0}):
        assert Standardised(**change).definition(teachers=1) != plain


def test_bad_settings_are_named() -> None:
    with pytest.raises(BadInput, match="has one teacher; got 2"):
        Standardised().for_stage(teachers=2)
    with pytest.raises(BadInput, match="soft_weight is a number of 0 or more; got -1"):
        Standardised(soft_weight=-1)
