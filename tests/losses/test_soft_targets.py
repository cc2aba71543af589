from __future__ import annotations

import math
from collections.abc import Callable

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
    for i in range(6):
        others = torch.arange(6) != i
        changed = torch.where(others.unsqueeze(1), 100 * teacher, student)
        assert torch.equal(soft_target_loss(changed, teacher, temperature=4.0)[i], together[i])
        # the last digit may depend on where in a vector register a number lies
        alone = soft_target_loss(student[i : i + 1], teacher[i : i + 1], temperature=4.0)
        torch.testing.assert_close(alone, together[i : i + 1], rtol=1e-5, atol=1e-6)


def test_its_gradient_is_that_of_its_values() -> None:
    student = drawn(3, 5, seed=1, dtype=torch.float64).requires_grad_()
    teacher = drawn(2, 3, 5, seed=2, dtype=torch.float64)
    weights = torch.tensor([0.5, 2.0], dtype=torch.float64)
    assert torch.autograd.gradcheck(
        lambda z: dense_soft_target_loss(z, teacher, temperature=3.0, weights=weights), (student,)
    )
    assert torch.autograd.gradgradcheck(
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


def plain_sum(student_logits: Tensor, teacher_logits: Tensor, temperature: float, weights: Tensor) -> Tensor:
    """One term for each teacher, each with its own KL, in the number format of the logits."""
    log_q = (student_logits / temperature).log_softmax(-1)
    total = torch.zeros(len(student_logits), dtype=student_logits.dtype)
    for weight, logits in zip(weights, teacher_logits, strict=True):
        log_p = (logits / temperature).log_softmax(-1)
        total = total + weight * temperature**2 * (log_p.exp() * (log_p - log_q)).sum(-1)
    return total


def with_gradient(loss: Callable[[Tensor], Tensor], student_logits: Tensor) -> tuple[Tensor, Tensor]:
    z = student_logits.clone().requires_grad_()
    values = loss(z)
    # a factor for each example, so that a mix-up of examples shows
    (values * torch.arange(1, len(z) + 1, dtype=z.dtype)).sum().backward()
    assert z.grad is not None
    return values.detach(), z.grad


@st.composite
def ladders(draw: st.DrawFn) -> tuple[Tensor, Tensor, float, Tensor]:
    """Student logits, teacher logits, temperature and weights, in float64."""
    teachers, batch, classes = draw(st.integers(1, 5)), draw(st.integers(1, 4)), draw(st.integers(2, 7))
    size = draw(st.sampled_from([0.01, 1.0, 30.0]))
    seed = draw(st.integers(0, 2**32))
    weights = draw(st.lists(st.floats(0, 5), min_size=teachers, max_size=teachers))
    return (
        size * drawn(batch, classes, seed=seed, dtype=torch.float64),
        size * drawn(teachers, batch, classes, seed=seed + 1, dtype=torch.float64),
        draw(st.floats(0.25, 20)),
        torch.tensor(weights, dtype=torch.float64),
    )


@settings(deadline=None)
@given(ladder=ladders())
def test_merged_targets_give_the_values_and_gradients_of_one_term_for_each_teacher(
    ladder: tuple[Tensor, Tensor, float, Tensor],
) -> None:
    student, teachers, temperature, weights = ladder
    values, gradient = with_gradient(
        lambda z: dense_soft_target_loss(z, teachers, temperature=temperature, weights=weights), student
    )
    expected, slope = with_gradient(lambda z: plain_sum(z, teachers, temperature, weights), student)
    torch.testing.assert_close(values, expected, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(gradient, slope, rtol=1e-10, atol=1e-10)


def test_its_values_are_those_of_the_identity() -> None:
    student, teachers = (
        drawn(8, 10, seed=1, dtype=torch.float64),
        drawn(3, 8, 10, seed=2, dtype=torch.float64),
    )
    weights = torch.tensor([1.0, 0.5, 2.0], dtype=torch.float64)
    p, log_q = (teachers / 4).softmax(-1), (student / 4).log_softmax(-1)
    merged = torch.einsum("i,ibc->bc", weights, p)
    of_the_teachers = torch.einsum("i,ibc->bc", weights, p * p.log())
    expected = 4.0**2 * (of_the_teachers - merged * log_q).sum(-1)
    loss = dense_soft_target_loss(student, teachers, temperature=4.0, weights=weights)
    torch.testing.assert_close(loss, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("teachers", [1, 2, 5])
def test_is_exactly_zero_when_all_say_the_same(temperature: float, teachers: int) -> None:
    logits, weights = 3 * drawn(8, 100), torch.linspace(0.1, 2, teachers)
    loss = dense_soft_target_loss(
        logits, logits.expand(teachers, 8, 100), temperature=temperature, weights=weights
    )
    assert torch.equal(loss, torch.zeros(8))


@pytest.mark.parametrize("classes", [10, 100])
@pytest.mark.parametrize("teachers", [1, 5])
def test_near_agreement_at_a_high_temperature_no_digit_is_lost_to_the_merging(
    classes: int, teachers: int
) -> None:
    shared = 3 * drawn(512, classes, seed=1)
    student, stack = (
        shared + 0.01 * drawn(512, classes, seed=2),
        shared + 0.01 * drawn(teachers, 512, classes, seed=3),
    )
    weights = torch.ones(teachers)
    exact, slope = with_gradient(
        lambda z: plain_sum(z, stack.double(), 20.0, weights.double()), student.double()
    )

    def error(values: Tensor, gradient: Tensor) -> tuple[float, float]:
        return (values - exact).norm().item(), (gradient - slope).norm().item()

    merged = error(
        *with_gradient(lambda z: dense_soft_target_loss(z, stack, temperature=20.0, weights=weights), student)
    )
    plain = error(*with_gradient(lambda z: plain_sum(z, stack, 20.0, weights), student))
    assert merged[0] < 1.1 * plain[0]
    assert merged[1] < 1.5 * plain[1]


@pytest.mark.parametrize("left_out", [0, 1, 3])
def test_a_teacher_of_weight_zero_might_as_well_not_be_there(left_out: int) -> None:
    student, teachers = drawn(8, 10, seed=1), drawn(4, 8, 10, seed=2)
    weights = torch.tensor([1.0, 0.5, 3.0, 2.0])
    weights[left_out] = 0
    others = [position for position in range(4) if position != left_out]
    values, gradient = with_gradient(
        lambda z: dense_soft_target_loss(z, teachers, temperature=4.0, weights=weights), student
    )
    expected, slope = with_gradient(
        lambda z: dense_soft_target_loss(z, teachers[others], temperature=4.0, weights=weights[others]),
        student,
    )
    torch.testing.assert_close(values, expected)
    torch.testing.assert_close(gradient, slope)


def test_a_class_that_a_teacher_excludes_adds_nothing() -> None:
    student, teachers = drawn(8, 10, seed=1), drawn(3, 8, 10, seed=2)
    teachers[1, :, 4] = -math.inf
    probable = (teachers / 4).softmax(-1)
    weights = torch.tensor([1.0, 0.5, 2.0])
    values, gradient = with_gradient(
        lambda z: dense_soft_target_loss(z, teachers, temperature=4.0, weights=weights), student
    )
    log_q = (student / 4).log_softmax(-1)
    terms = torch.xlogy(probable, probable) - probable * log_q
    torch.testing.assert_close(values, 16 * (weights.view(3, 1, 1) * terms).sum((0, 2)), rtol=1e-4, atol=1e-4)
    assert gradient.isfinite().all()
    # all but excluded is the same to the digit
    teachers[1, :, 4] = -1e6
    nearly = dense_soft_target_loss(student, teachers, temperature=4.0, weights=weights)
    torch.testing.assert_close(values, nearly)


def test_probabilities_that_underflow_do_no_harm_to_other_teachers() -> None:
    student = torch.tensor([[0.0, 500.0, -500.0]])
    teachers = torch.tensor([[[500.0, 0.0, -500.0]], [[0.0, 500.0, -500.0]], [[-500.0, 0.0, 500.0]]])
    values, gradient = with_gradient(
        lambda z: dense_soft_target_loss(z, teachers, temperature=1.0, weights=torch.ones(3)), student
    )
    assert values.item() == pytest.approx(500 + 0 + 1000)
    torch.testing.assert_close(gradient, torch.tensor([[-1.0, 2.0, -1.0]]))


@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_teachers_that_are_no_numbers_are_not_hidden(broken: float) -> None:
    teachers = drawn(2, 4, 10)
    teachers[1, 2, 3] = broken
    loss = dense_soft_target_loss(drawn(4, 10, seed=1), teachers, temperature=4.0, weights=torch.ones(2))
    assert loss.isfinite().tolist() == [True, True, False, True]


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_nothing_that_is_given_is_changed(temperature: float) -> None:
    student, weights = drawn(4, 10, seed=1), torch.tensor([1.0, 0.5])
    with torch.inference_mode():
        teachers = drawn(2, 4, 10, seed=2)
    before = student.clone(), teachers.clone(), weights.clone()
    with_gradient(
        lambda z: dense_soft_target_loss(z, teachers, temperature=temperature, weights=weights), student
    )
    for given_one, kept in zip((student, teachers, weights), before, strict=True):
        assert torch.equal(given_one, kept)


def test_what_the_backward_pass_needs_does_not_grow_with_the_teachers() -> None:
    def saved(teachers: int) -> list[tuple[int, ...]]:
        shapes: list[tuple[int, ...]] = []

        def note(tensor: Tensor) -> Tensor:
            shapes.append(tuple(tensor.shape))
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            dense_soft_target_loss(
                drawn(4, 10).requires_grad_(),
                drawn(teachers, 4, 10, seed=1),
                temperature=4.0,
                weights=torch.ones(teachers),
            )
        return shapes

    assert saved(7) == saved(1)


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
