from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from understudy.models.readers import Rounded, outputs_to_round


class Two(nn.Module):
    """A convolution, something, a convolution, something else."""

    def __init__(self, between: Callable[[Tensor], Tensor], after: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.between, self.after = between, after

    def forward(self, images: Tensor) -> Tensor:
        return self.after(self.second(self.between(self.first(images))))


def found(model: nn.Module, layers: tuple[str, ...] = ("first", "second", "head")) -> dict[str, Rounded]:
    return outputs_to_round(model.eval(), torch.randn(2, 3, 8, 8), layers)


def itself(features: Tensor) -> Tensor:
    return features


@pytest.mark.parametrize(
    "between",
    [
        itself,
        F.relu,
        F.relu_,
        F.relu6,
        lambda x: F.max_pool2d(F.relu(x), 2),
        lambda x: F.relu(x, inplace=True).clamp(max=3.0),
        lambda x: x.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2),
        lambda x: x.flatten(2).view(2, 4, 8, 8),
        nn.Dropout(0.5).eval(),
    ],
)
def test_what_only_a_layer_reads_is_rounded_there(between: Callable[[Tensor], Tensor]) -> None:
    assert found(Two(between, itself)) == {}


@pytest.mark.parametrize(
    ("between", "floor", "ceiling"),
    [
        (lambda x: F.relu(x).mul(2.0), 0.0, math.inf),
        (lambda x: F.relu6(x) + 1.0, 0.0, 6.0),
        (lambda x: F.hardtanh(x, -2.0, 3.0) + 1.0, -2.0, 3.0),
        (lambda x: x.clamp(max=5.0).relu() + 1.0, 0.0, 5.0),
        (F.silu, -math.inf, math.inf),
        (F.hardswish, -math.inf, math.inf),
        (lambda x: F.avg_pool2d(F.max_pool2d(F.relu(x), 2, stride=1, padding=1), 1), 0.0, math.inf),
        # another reader sees what ReLU takes away
        (lambda x: F.relu(x) + x, -math.inf, math.inf),
        # zero would be no level of such a range
        (lambda x: x.clamp(min=1.0) + 1.0, -math.inf, math.inf),
        (lambda x: x.add_(1.0).relu_(), -math.inf, math.inf),
    ],
)
def test_what_something_else_reads_is_rounded_where_it_is_made(
    between: Callable[[Tensor], Tensor], floor: float, ceiling: float
) -> None:
    assert found(Two(between, itself)) == {"first": Rounded(floor=floor, ceiling=ceiling, readers=())}


def test_the_answer_stays_as_it_is_unless_it_is_a_mean() -> None:
    assert found(Two(F.relu, lambda x: x.flatten(1))) == {}
    assert found(Two(F.relu, lambda x: F.relu(x).mean((2, 3)))) == {
        "second": Rounded(floor=0.0, ceiling=math.inf, readers=())
    }


class Residual(nn.Module):
    """What the first convolution gives is read by the second and by the sum."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.head = nn.Linear(4, 5)

    def forward(self, images: Tensor) -> Tensor:
        features = F.relu(self.first(images))
        logits: Tensor = self.head((self.second(features) + features).mean((2, 3)))
        return logits


def test_a_layer_that_reads_a_rounded_output_is_named_with_it() -> None:
    assert found(Residual()) == {
        "first": Rounded(floor=0.0, ceiling=math.inf, readers=("second",)),
        "second": Rounded(floor=-math.inf, ceiling=math.inf, readers=()),
    }


def test_a_layer_that_stays_in_float_counts_as_something_else() -> None:
    assert found(Two(F.relu, itself), ("first",)) == {
        "first": Rounded(floor=0.0, ceiling=math.inf, readers=())
    }
    assert found(Two(F.relu, itself), ("second",)) == {}


class Twice(nn.Module):
    """One convolution that reads two others in turn."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.shared = (nn.Conv2d(3, 3, 1) for _ in range(3))

    def forward(self, images: Tensor) -> Tensor:
        one, other = self.first(images), self.second(images)
        total: Tensor = self.shared(one) + self.shared(other) + one + other
        return total


def test_a_layer_that_reads_two_outputs_has_no_one_source() -> None:
    everything = Rounded(floor=-math.inf, ceiling=math.inf, readers=())
    assert found(Twice(), ("first", "second", "shared")) == {
        "first": everything,
        "second": everything,
        "shared": everything,
    }
