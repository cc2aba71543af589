from __future__ import annotations

import contextlib
from collections import Counter
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from understudy.data.batches import Batch
from understudy.models.preprocessing import Preprocessing
from understudy.training import Training, precision
from understudy.training.teachers import FrozenTeachers, Teacher

USUAL = Preprocessing(mean=(0.5,), std=(0.25,))
OTHER = Preprocessing(mean=(0.1,), std=(0.5,))
LARGER = Preprocessing(mean=(0.5,), std=(0.25,), size=(12, 12))


def made_model(seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(16, 5),
    )
    model(torch.randn(16, 1, 6, 6))  # statistics other than the initial ones
    return model


def made_batch(size: int = 8) -> Batch:
    generator = torch.Generator().manual_seed(0)
    return Batch(
        index=torch.arange(size),
        pixels=torch.randint(0, 256, (size, 1, 6, 6), dtype=torch.uint8, generator=generator),
        labels=torch.zeros(size, dtype=torch.int64),
    )


def frozen(*teachers: Teacher, autocast: Any = contextlib.nullcontext) -> FrozenTeachers:
    return FrozenTeachers(teachers, device="cpu", autocast=autocast)


def three() -> list[Teacher]:
    return [
        Teacher(model=made_model(seed), preprocessing=preprocessing)
        for seed, preprocessing in enumerate((USUAL, OTHER, LARGER))
    ]


def answer(teacher: Teacher, batch: Batch) -> Tensor:
    with torch.no_grad():
        logits: Tensor = teacher.model.eval()(teacher.preprocessing(batch.pixels))
    return logits


def test_each_teacher_sees_the_pixels_through_its_own_preprocessing() -> None:
    teachers, batch = three(), made_batch()
    logits = frozen(*teachers).logits([0, 1, 2], batch)
    assert logits.shape == (3, 8, 5)
    assert logits.dtype == torch.float32
    for given, teacher in zip(logits, teachers, strict=True):
        torch.testing.assert_close(given, answer(teacher, batch))
    same_weights = [Teacher(model=made_model(0), preprocessing=p) for p in (USUAL, OTHER, LARGER)]
    one, other, larger = frozen(*same_weights).logits([0, 1, 2], batch)
    assert not torch.equal(one, other)
    assert not torch.equal(one, larger)


@pytest.mark.parametrize("which", [[0], [2, 0], [1, 2], [2, 1, 0]])
def test_answers_come_in_the_order_asked(which: list[int]) -> None:
    teachers, batch = frozen(*three()), made_batch()
    everyone = teachers.logits([0, 1, 2], batch)
    assert torch.equal(teachers.logits(which, batch), everyone[which])


def test_only_those_who_are_asked_run() -> None:
    teachers, ran = three(), Counter[int]()
    for position, teacher in enumerate(teachers):
        teacher.model.register_forward_hook(lambda *_, position=position: ran.update([position]))
    ready = frozen(*teachers)
    assert len(ready) == 3
    ready.logits([1], made_batch())
    ready.logits([1, 2], made_batch())
    assert ran == Counter({1: 2, 2: 1})


def test_teachers_are_put_into_eval_mode_and_take_no_gradient() -> None:
    teachers = three()
    for teacher in teachers:
        teacher.model.train()
    ready = frozen(*teachers)
    for teacher in teachers:
        assert not any(module.training for module in teacher.model.modules())
        assert not any(parameter.requires_grad for parameter in teacher.model.parameters())
    batch = made_batch()
    logits = ready.logits([0, 1, 2], batch)
    assert not logits.requires_grad
    assert torch.equal(logits, ready.logits([0, 1, 2], batch))  # no dropout
    student = torch.zeros(8, 5, requires_grad=True)
    (student - logits[0]).square().sum().backward()
    assert all(parameter.grad is None for teacher in teachers for parameter in teacher.model.parameters())


def test_an_answer_has_no_gradient_whatever_else_a_teacher_is_made_of() -> None:
    class Odd(nn.Module):
        """Holds a tensor that is no parameter, and so is not frozen with them."""

        def __init__(self) -> None:
            super().__init__()
            self.scale = torch.ones(1, requires_grad=True)

        def forward(self, images: Tensor) -> Tensor:
            return images.mean((2, 3)) * self.scale

    ready = frozen(Teacher(model=Odd(), preprocessing=USUAL))
    assert not ready.logits([0], made_batch()).requires_grad


def test_teaching_changes_no_bit_of_a_teacher_buffers_included() -> None:
    teachers = three()
    before = [
        {name: tensor.clone() for name, tensor in teacher.model.state_dict().items()} for teacher in teachers
    ]
    assert any("running_mean" in name for name in before[0])
    ready = frozen(*teachers)
    for _ in range(5):
        ready.logits([0, 1, 2], made_batch())
    for teacher, kept in zip(teachers, before, strict=True):
        assert teacher.model.state_dict().keys() == kept.keys()
        for name, tensor in teacher.model.state_dict().items():
            assert torch.equal(tensor, kept[name]), name


def test_the_answer_for_an_example_does_not_depend_on_its_batch() -> None:
    ready, batch = frozen(*three()), made_batch(9)
    part = Batch(index=batch.index[3:6], pixels=batch.pixels[3:6], labels=batch.labels[3:6])
    whole = ready.logits([0, 1, 2], batch)[:, 3:6]
    torch.testing.assert_close(ready.logits([0, 1, 2], part), whole, rtol=1e-6, atol=1e-6)


def test_the_batch_is_left_as_it_was() -> None:
    batch = made_batch()
    before = batch.pixels.clone()
    frozen(*three()).logits([0, 1, 2], batch)
    assert torch.equal(batch.pixels, before)


def test_asking_draws_no_random_number() -> None:
    ready, batch = frozen(*three()), made_batch()
    before = torch.get_rng_state()
    ready.logits([0, 1, 2], batch)
    assert torch.equal(torch.get_rng_state(), before)


def test_teachers_run_in_the_number_format_of_the_stage_and_answer_in_float32() -> None:
    autocast = partial(precision.autocast, Training(precision="bf16", device="cpu"))
    batch = made_batch()
    brain = frozen(*three(), autocast=autocast).logits([0, 1, 2], batch)
    single = frozen(*three()).logits([0, 1, 2], batch)
    assert brain.dtype == torch.float32
    assert not torch.equal(brain, single)
    torch.testing.assert_close(brain, single, rtol=0.05, atol=0.05)


def test_no_teachers_are_possible() -> None:
    assert len(frozen()) == 0
