"""Hints against a hand-written mean, and what the regressor leaves alone."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from understudy.losses.hints import Regressor, as_maps, hint_loss


def drawn(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def test_equals_the_mean_written_by_hand() -> None:
    student, teacher = drawn(3, 4, 2, 5, dtype=torch.float64), drawn(3, 4, 2, 5, seed=1, dtype=torch.float64)
    loss = hint_loss(student, teacher)
    assert loss.shape == (3,)
    for row in range(3):
        pairs = zip(student[row].flatten().tolist(), teacher[row].flatten().tolist(), strict=True)
        assert loss[row].item() == pytest.approx(sum((a - b) ** 2 for a, b in pairs) / 40)
    assert loss.mean().item() == pytest.approx(F.mse_loss(student, teacher).item())


def test_is_zero_at_agreement_and_nowhere_else() -> None:
    features = drawn(3, 4, 2, 2)
    assert torch.equal(hint_loss(features, features), torch.zeros(3))
    assert (hint_loss(features + 0.1, features) > 0).all()


def test_only_the_student_gets_a_gradient_and_it_is_that_of_the_values() -> None:
    student = drawn(2, 3, 2, 2, dtype=torch.float64).requires_grad_()
    teacher = drawn(2, 3, 2, 2, seed=1, dtype=torch.float64).requires_grad_()
    hint_loss(student, teacher).sum().backward()
    assert teacher.grad is None
    assert torch.autograd.gradcheck(lambda z: hint_loss(z, teacher.detach()), (student,))


def test_the_regressor_is_one_matrix_for_all_positions() -> None:
    regressor, features = Regressor(3, 5), drawn(2, 3, 4, 4)
    projected = regressor(features)
    assert projected.shape == (2, 5, 4, 4)
    weight, bias = regressor.project.weight[:, :, 0, 0], regressor.project.bias
    assert bias is not None
    for i in range(4):
        torch.testing.assert_close(projected[:, :, i, 1], features[:, :, i, 1] @ weight.t() + bias)


def test_pooled_features_are_maps_of_one_position() -> None:
    regressor, pooled = Regressor(3, 5), drawn(2, 3)
    torch.testing.assert_close(regressor(pooled), regressor(pooled[:, :, None, None]))
    teacher = drawn(2, 5, seed=1)
    torch.testing.assert_close(
        hint_loss(regressor(pooled), teacher), hint_loss(regressor(pooled)[:, :, 0, 0], teacher)
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_single(dtype: torch.dtype) -> None:
    regressor, features = Regressor(3, 5), drawn(2, 3, 4, 4).to(dtype)
    expected = regressor(features.float())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(regressor(features), expected)
        loss = hint_loss(regressor(features), drawn(2, 5, 4, 4).to(dtype))
    assert loss.dtype == torch.float32
    assert torch.equal(loss, hint_loss(expected, drawn(2, 5, 4, 4).to(dtype).float()))
    assert regressor(features.double()).dtype == torch.float64


def test_a_regressor_learns_a_linear_map() -> None:
    torch.manual_seed(0)
    regressor, features, wanted = Regressor(3, 4), drawn(16, 3, 2, 2), Regressor(3, 4)
    optimiser = torch.optim.SGD(regressor.parameters(), lr=0.5)
    teacher = wanted(features).detach()
    first = hint_loss(regressor(features), teacher).mean()
    for _ in range(100):
        optimiser.zero_grad()
        hint_loss(regressor(features), teacher).mean().backward()
        optimiser.step()
    assert hint_loss(regressor(features), teacher).mean() < 0.01 * first


def test_wrong_shapes_are_named() -> None:
    with pytest.raises(ValueError, match=r"or \(batch, channels\) when pooled; got \(2, 3, 4\)"):
        as_maps(torch.zeros(2, 3, 4))
    with pytest.raises(ValueError, match=r"reads 3 channels; got features of \(2, 4, 1, 1\)"):
        Regressor(3, 5)(torch.zeros(2, 4, 1, 1))
    with pytest.raises(ValueError, match=r"same shape .* got \(2, 3, 4, 4\) and \(2, 3, 2, 2\)"):
        hint_loss(torch.zeros(2, 3, 4, 4), torch.zeros(2, 3, 2, 2))
