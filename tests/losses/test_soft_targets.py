from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from understudy.losses import dense_soft_target_loss, soft_target_loss

TEMPERATURES = [0.5, 1.0, 4.0, 20.0]


def drawn(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def softened(logits: list[float], temperature: float) -> list[float]:
    powers = [math.exp(logit / temperature) for logit in logits]
    return [power / math.fsum(powers) for power in powers]


def by_hand(student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> list[float]:
    """T^2 * sum_c p_c * (log p_c - log q_c) for each example, with loops over Python floats."""
    losses = []
    for student, teacher in zip(student_logits.tolist(), teacher_logits.tolist(), strict=True):
        p, q = softened(teacher, temperature), softened(student, temperature)
        terms = [a * (math.log(a) - math.log(b)) for a, b in zip(p, q, strict=True)]
        losses.append(temperature**2 * math.fsum(terms))
    return losses


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("classes", [2, 10, 100])
def test_equals_the_sum_written_by_hand(temperature: float, classes: int) -> None:
    student = drawn(8, classes, seed=1, dtype=torch.float64)
    teacher = 3 * drawn(8, classes, seed=2, dtype=torch.float64)
    expected = torch.tensor(by_hand(student, teacher, temperature), dtype=torch.float64)
    exact = soft_target_loss(student, teacher, temperature=temperature)
    torch.testing.assert_close(exact, expected, rtol=1e-10, atol=1e-12)
    single = soft_target_loss(student.float(), teacher.float(), temperature=temperature)
    torch.testing.assert_close(single.double(), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_a_case_that_a_pencil_can_solve(temperature: float) -> None:
    # softened probabilities of the teacher 3/4 and 1/4, of the student 1/2 each, at every temperature
    teacher = torch.tensor([[temperature * math.log(3), 0.0]])
    expected = temperature**2 * (0.75 * math.log(1.5) + 0.25 * math.log(0.5))
    loss = soft_target_loss(torch.zeros(1, 2), teacher, temperature=temperature)
    assert loss.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_is_zero_when_the_student_agrees(temperature: float) -> None:
    logits = drawn(8, 100)
    shifted = logits + 3.0  # softmax ignores a constant, so must the loss
    loss = soft_target_loss(shifted, logits, temperature=temperature)
    torch.testing.assert_close(loss, torch.zeros(8), atol=1e-4, rtol=0)


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_constants_added_to_an_example_change_nothing(temperature: float) -> None:
    student, teacher = drawn(8, 10, seed=1, dtype=torch.float64), drawn(8, 10, seed=2, dtype=torch.float64)
    shift = drawn(8, 1, seed=3, dtype=torch.float64)
    before = soft_target_loss(student, teacher, temperature=temperature)
    after = soft_target_loss(student + shift, teacher - shift, temperature=temperature)
    torch.testing.assert_close(before, after)


rows = st.lists(st.floats(-30, 30, width=32), min_size=5, max_size=5)


@settings(deadline=None)
@given(student=rows, teacher=rows, temperature=st.floats(0.25, 20))
def test_is_never_negative_and_never_infinite(
    student: list[float], teacher: list[float], temperature: float
) -> None:
    loss = soft_target_loss(torch.tensor([student]), torch.tensor([teacher]), temperature=temperature)
    assert math.isfinite(loss.item())
    assert loss.item() >= -1e-6 * temperature**2  # what rounding may do to a zero


def test_a_class_whose_probability_underflows_does_no_harm() -> None:
    student = torch.tensor([[0.0, 500.0, -500.0]], requires_grad=True)
    loss = soft_target_loss(student, torch.tensor([[500.0, 0.0, -500.0]]), temperature=1.0)
    loss.sum().backward()
    assert loss.item() == pytest.approx(500)
    assert student.grad is not None
    assert student.grad.isfinite().all()


def test_one_example_does_not_see_the_others() -> None:
    student, teacher = drawn(6, 10, seed=1), drawn(6, 10, seed=2)
    together = soft_target_loss(student, teacher, temperature=4.0)
    alone = [soft_target_loss(student[i : i + 1], teacher[i : i + 1], temperature=4.0) for i in range(6)]
    assert torch.equal(together, torch.cat(alone))


def test_its_gradient_is_that_of_its_values() -> None:
    student = drawn(3, 5, seed=1, dtype=torch.float64).requires_grad_()
    teacher = drawn(2, 3, 5, seed=2, dtype=torch.float64)
    weights = torch.tensor([0.5, 2.0], dtype=torch.float64)
    assert torch.autograd.gradcheck(
        lambda z: dense_soft_target_loss(z, teacher, temperature=3.0, weights=weights), (student,)
    )


def test_the_gradient_is_the_difference_of_probabilities() -> None:
    temperature = 4.0
    student = drawn(6, 10, seed=1, dtype=torch.float64).requires_grad_()
    teacher = drawn(6, 10, seed=2, dtype=torch.float64)
    soft_target_loss(student, teacher, temperature=temperature).sum().backward()
    expected = temperature * ((student / temperature).softmax(-1) - (teacher / temperature).softmax(-1))
    torch.testing.assert_close(student.grad, expected.detach())


def test_the_gradient_does_not_fade_with_the_temperature() -> None:
    # Hinton et al. 2015, section 2: at high temperature it tends to the difference of centred logits over classes.
    student, teacher = drawn(6, 10, seed=1, dtype=torch.float64), drawn(6, 10, seed=2, dtype=torch.float64)
    difference = student - teacher
    limit = (difference - difference.mean(-1, keepdim=True)) / 10

    def gradient(temperature: float) -> Tensor:
        z = student.clone().requires_grad_()
        soft_target_loss(z, teacher, temperature=temperature).sum().backward()
        assert z.grad is not None
        return z.grad

    off = [(gradient(temperature) - limit).norm() / limit.norm() for temperature in (20.0, 40.0, 400.0)]
    assert off[0] < 0.1
    assert off[1] < 0.6 * off[0]
    assert off[2] < 0.01


def test_the_teacher_gets_no_gradient() -> None:
    student, teacher = drawn(4, 10, seed=1).requires_grad_(), drawn(4, 10, seed=2).requires_grad_()
    soft_target_loss(student, teacher, temperature=4.0).sum().backward()
    assert teacher.grad is None
    assert student.grad is not None


def test_both_directions_of_kl_are_not_the_same_and_the_teacher_is_the_target() -> None:
    sure, unsure = torch.tensor([[10.0, 0.0]]), torch.zeros(1, 2)
    assert soft_target_loss(unsure, sure, temperature=1.0).item() == pytest.approx(math.log(2), abs=1e-3)
    assert soft_target_loss(sure, unsure, temperature=1.0).item() == pytest.approx(5 - math.log(2), abs=1e-3)


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
def test_half_precision_logits_are_computed_in_single_precision(half: torch.dtype) -> None:
    student, teacher = drawn(8, 100, seed=1).to(half), drawn(8, 100, seed=2).to(half)
    loss = soft_target_loss(student, teacher, temperature=4.0)
    assert loss.dtype == torch.float32
    assert torch.equal(loss, soft_target_loss(student.float(), teacher.float(), temperature=4.0))


def test_autocast_around_it_changes_no_bit() -> None:
    student, teachers, weights = (
        drawn(8, 100, seed=1),
        drawn(3, 8, 100, seed=2),
        torch.tensor([1.0, 0.3, 2.1]),
    )
    outside = dense_soft_target_loss(student, teachers, temperature=4.0, weights=weights)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = dense_soft_target_loss(student, teachers, temperature=4.0, weights=weights)
    assert torch.equal(inside, outside)


def test_one_dense_teacher_is_the_ordinary_loss() -> None:
    student, teacher = drawn(8, 10, seed=1), drawn(8, 10, seed=2)
    dense = dense_soft_target_loss(student, teacher.unsqueeze(0), temperature=4.0, weights=torch.ones(1))
    assert torch.equal(dense, soft_target_loss(student, teacher, temperature=4.0))


def test_several_teachers_are_the_weighted_sum_of_single_ones() -> None:
    student, teachers = drawn(8, 10, seed=1), drawn(4, 8, 10, seed=2)
    weights = torch.tensor([1.0, 0.5, 0.0, 3.0])
    dense = dense_soft_target_loss(student, teachers, temperature=4.0, weights=weights)
    pairs = [
        weight * soft_target_loss(student, teacher, temperature=4.0)
        for weight, teacher in zip(weights, teachers, strict=True)
    ]
    torch.testing.assert_close(dense, torch.stack(pairs).sum(0))


@settings(deadline=None, max_examples=25)
@given(
    first=st.lists(st.floats(0, 5), min_size=3, max_size=3),
    second=st.lists(st.floats(0, 5), min_size=3, max_size=3),
)
def test_is_linear_in_the_weights(first: list[float], second: list[float]) -> None:
    student, teachers = (
        drawn(4, 10, seed=1, dtype=torch.float64),
        drawn(3, 4, 10, seed=2, dtype=torch.float64),
    )

    def loss(weights: Tensor) -> Tensor:
        return dense_soft_target_loss(student, teachers, temperature=2.0, weights=weights)

    a, b = torch.tensor(first, dtype=torch.float64), torch.tensor(second, dtype=torch.float64)
    torch.testing.assert_close(loss(2 * a + b), 2 * loss(a) + loss(b), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("student", "teacher"), [((4, 10), (4, 11)), ((4, 10), (5, 10)), ((10,), (10,)), ((2, 4, 10), (2, 4, 10))]
)
def test_logits_of_other_shapes_are_refused(student: tuple[int, ...], teacher: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"are both \(batch, classes\); got") as error:
        soft_target_loss(torch.zeros(student), torch.zeros(teacher), temperature=4.0)
    assert str(error.value).endswith(f"got {student} and {teacher}")


@pytest.mark.parametrize("teachers", [(4, 10), (0, 4, 10), (3, 4, 11)])
def test_dense_logits_of_other_shapes_are_refused(teachers: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"teacher_logits \(teachers, batch, classes\); got \(4, 10\) and"):
        dense_soft_target_loss(
            torch.zeros(4, 10), torch.zeros(teachers), temperature=4.0, weights=torch.ones(teachers[0])
        )


@pytest.mark.parametrize("weights", [(1,), (3,), (2, 1)])
def test_there_is_one_weight_for_each_teacher(weights: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="one weight for each of 2 teachers; got"):
        dense_soft_target_loss(
            torch.zeros(4, 10), torch.zeros(2, 4, 10), temperature=4.0, weights=torch.ones(weights)
        )


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan])
def test_the_temperature_is_positive(temperature: float) -> None:
    with pytest.raises(ValueError, match=f"temperature is positive; got {temperature}"):
        soft_target_loss(torch.zeros(4, 10), torch.zeros(4, 10), temperature=temperature)
