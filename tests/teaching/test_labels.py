from __future__ import annotations

import torch
import torch.nn.functional as F

from tests.teaching.toys import drawn, made_step
from understudy.teaching import Labels, Needs


def test_the_loss_is_the_hard_term_alone() -> None:
    student, labels = drawn(8, 10), torch.arange(8)
    said = Labels().for_stage(teachers=0).loss(made_step(student, labels))
    assert torch.equal(said["total"], F.cross_entropy(student, labels))
    assert torch.equal(said["hard"], said["total"])


def test_it_asks_for_nothing_but_the_usual_batch() -> None:
    assert Labels().needs() == Needs(logits=False, copies=1, plain=False)


def test_its_definition_does_not_depend_on_teachers() -> None:
    assert (
        Labels().definition(teachers=0) == Labels().definition(teachers=3) == {"name": "labels", "version": 1}
    )
