from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from understudy.data.dataset import Split
from understudy.errors import BadInput
from understudy.models import build
from understudy.models.preprocessing import Preprocessing
from understudy.training.landscape import (
    filter_direction,
    grid,
    landscape,
    mean_loss,
    moving,
    some_images,
    walked,
)


def network(seed: int = 0) -> nn.Module:
    """A small residual network that is trained on nothing, with statistics of its own."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build("resnet-8", classes=4, width=0.25)
        model.train()
        model(torch.randn(16, 3, 8, 8))
    return model.eval()


@pytest.fixture
def images() -> list[tuple[Tensor, Tensor]]:
    stream = torch.Generator().manual_seed(3)
    return [(torch.randn(6, 3, 8, 8, generator=stream), torch.tensor([0, 1, 2, 3, 0, 1])) for _ in range(2)]


def norms(tensor: Tensor) -> Tensor:
    return tensor.detach().double().flatten(1).square().sum(1).sqrt()


# --- directions ---------------------------------------------------------------------------------------------------


def test_each_filter_of_a_direction_is_as_long_as_the_networks_own() -> None:
    model = network()
    direction = filter_direction(model, seed=0)
    weights = moving(model)
    assert {name for name in weights if name.endswith("weight")} == set(weights)
    assert "head.weight" in weights
    for name, parameter in weights.items():
        torch.testing.assert_close(norms(direction[name]), norms(parameter), rtol=1e-5, atol=1e-7)
        assert direction[name].shape == parameter.shape
        assert not torch.allclose(direction[name], parameter)


def test_biases_and_normalisation_do_not_move() -> None:
    model = network()
    direction = filter_direction(model, seed=0)
    assert set(direction) == {name for name, _ in model.named_parameters()}
    still = [name for name in direction if name not in moving(model)]
    assert any("norm" in name for name in still)
    assert any(name.endswith("bias") for name in still)
    assert all(not direction[name].any() for name in still)


def test_a_normalisation_of_two_dimensions_does_not_move_either() -> None:
    model = nn.Sequential(nn.LayerNorm((4, 4)), nn.Flatten(), nn.Linear(16, 2))
    assert set(moving(model)) == {"2.weight"}


def test_a_filter_of_zeros_stays() -> None:
    model = network()
    first = next(iter(moving(model).values()))
    with torch.no_grad():
        first[1].zero_()
    direction = filter_direction(model, seed=0)[next(iter(moving(model)))]
    assert not direction[1].any()
    assert direction[0].any()
    assert direction.isfinite().all()


def test_networks_of_one_form_have_the_same_direction_but_for_its_lengths() -> None:
    one, other = network(0), network(1)
    first, second = filter_direction(one, seed=5), filter_direction(other, seed=5)
    for name in moving(one):
        cosine = torch.cosine_similarity(first[name].flatten(1), second[name].flatten(1))
        torch.testing.assert_close(cosine, torch.ones_like(cosine))
        assert not torch.allclose(first[name], second[name])


def test_seeds_and_numbers_are_other_directions() -> None:
    model = network()
    first = filter_direction(model, seed=0)["head.weight"]
    assert torch.equal(filter_direction(model, seed=0)["head.weight"], first)
    for other in ({"seed": 1}, {"seed": 0, "number": 1}):
        assert not torch.allclose(filter_direction(model, **other)["head.weight"], first)


def test_scaling_a_filter_scales_its_direction() -> None:
    model = network()
    name, weight = next(iter(moving(model).items()))
    before = filter_direction(model, seed=0)[name]
    with torch.no_grad():
        weight[0] *= 3
    after = filter_direction(model, seed=0)[name]
    torch.testing.assert_close(after[0], 3 * before[0])
    assert torch.equal(after[1:], before[1:])


# --- walking ------------------------------------------------------------------------------------------------------


class Bowl(nn.Module):
    """w and b, whose loss is |w|^2 + b."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor([[3.0, 4.0]], dtype=torch.float64))
        self.b = nn.Parameter(torch.tensor([2.0], dtype=torch.float64))


def test_a_quadratic_by_hand() -> None:
    bowl = Bowl()
    first = {"w": torch.tensor([[1.0, 0.0]]), "b": torch.zeros(1)}
    second = {"w": torch.tensor([[0.0, -2.0]])}
    places = [(0.0, 0.0), (1.0, 0.0), (-3.0, 0.0), (0.0, 2.0), (-3.0, 2.0), (0.5, -1.0)]

    def loss() -> float:
        return (bowl.w.square().sum() + bowl.b.sum()).item()

    assert walked(bowl, [first, second], places, loss) == [27.0, 34.0, 18.0, 11.0, 2.0, 3.5**2 + 36 + 2]
    assert torch.equal(bowl.w, torch.tensor([[3.0, 4.0]], dtype=torch.float64))


def test_along_a_filter_normalised_direction_the_loss_of_a_bowl_is_a_parabola() -> None:
    bowl = Bowl()
    direction = filter_direction(bowl, seed=0)
    torch.testing.assert_close(direction["w"].norm(), torch.tensor(5.0))
    slope = 2 * float((bowl.w.detach() * direction["w"]).sum())
    steps = grid(5, span=2.0)
    found = walked(bowl, [direction], [(step,) for step in steps], lambda: bowl.w.square().sum().item())
    assert found == pytest.approx([25 + slope * step + 25 * step**2 for step in steps], rel=1e-5)


def test_weights_and_statistics_are_as_before_bit_for_bit(images: list[tuple[Tensor, Tensor]]) -> None:
    model = network()
    with torch.no_grad():
        next(iter(moving(model).values()))[0, 0, 0, 0] = -0.0
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.train()
    landscape(model, images, steps=grid(3, span=0.7), seed=0)
    assert model.training
    for name, tensor in model.state_dict().items():
        as_bytes = [one.contiguous().numpy().tobytes() for one in (tensor, before[name])]
        assert as_bytes[0] == as_bytes[1], name
    assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())


def test_weights_are_put_back_where_the_loss_raises() -> None:
    model = network()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}

    def loss() -> float:
        if not torch.equal(model.state_dict()["head.weight"], before["head.weight"]):
            raise KeyboardInterrupt
        return 0.0

    with pytest.raises(KeyboardInterrupt):
        walked(model, [filter_direction(model, seed=0)], [(0.0,), (1.0,)], loss)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


# --- the loss on images -------------------------------------------------------------------------------------------


def test_the_centre_is_the_plain_loss_and_the_middle_row_the_first_direction(
    images: list[tuple[Tensor, Tensor]],
) -> None:
    model = network()
    steps = grid(5, span=0.5)
    found = landscape(model, images, steps=steps, seed=2)
    assert [len(row) for row in found] == [5] * 5
    assert found[2][2] == mean_loss(model, images)
    first, second = (filter_direction(model, seed=2, number=number) for number in (0, 1))
    assert found[2] == walked(model, [first], [(step,) for step in steps], lambda: mean_loss(model, images))
    down = walked(model, [second], [(step,) for step in steps], lambda: mean_loss(model, images))
    assert [row[2] for row in found] == down


def test_the_loss_is_that_of_labels_with_the_statistics_of_the_training(
    images: list[tuple[Tensor, Tensor]],
) -> None:
    model = network()
    pixels, labels = torch.cat([batch for batch, _ in images]), torch.cat([of for _, of in images])
    with torch.no_grad():
        log_p = model(pixels).log_softmax(-1)
    expected = -sum(log_p[i, label].item() for i, label in enumerate(labels)) / len(labels)
    assert mean_loss(model.train(), images) == pytest.approx(expected, rel=1e-5)
    assert model.training
    assert mean_loss(model, [(pixels, labels)]) == pytest.approx(expected, rel=1e-5)


class Pixels:
    in_memory = True

    def __init__(self, count: int) -> None:
        self.pixels = np.random.default_rng(0).integers(0, 256, (count, 4, 4, 1), dtype=np.uint8)

    def __len__(self) -> int:
        return len(self.pixels)

    def fetch(self, index: np.ndarray) -> np.ndarray:
        found: np.ndarray = self.pixels[index]
        return found


def split(labels: list[int]) -> Split:
    return Split(images=Pixels(len(labels)), labels=np.array(labels, dtype=np.int64))


def test_images_are_labelled_ones_without_augmentation() -> None:
    of = split([number % 3 for number in range(600)] + [-1] * 50)
    plain = Preprocessing(mean=(0.0,), std=(1.0,))
    found = some_images(of, plain, most=10_000, seed=0)
    assert [len(labels) for _, labels in found] == [200, 200, 200]
    assert torch.cat([labels for _, labels in found]).tolist() == of.labels[:600].tolist()
    pixels = torch.cat([batch for batch, _ in found])
    expected = torch.from_numpy(of.images.fetch(np.arange(600))).permute(0, 3, 1, 2) / 255
    torch.testing.assert_close(pixels, expected)


def test_some_of_many_images_are_the_same_for_one_seed() -> None:
    of = split([number % 7 for number in range(300)])
    plain = Preprocessing(mean=(0.0,), std=(1.0,))

    def labels(seed: int) -> list[int]:
        ((_, found),) = some_images(of, plain, most=20, seed=seed)
        return found.tolist()

    assert len(labels(0)) == 20
    assert labels(0) == labels(0)
    assert labels(0) != labels(1)
    assert len(set(labels(0))) > 3  # drawn, not every fifteenth


def test_images_without_labels_are_refused() -> None:
    with pytest.raises(BadInput, match="no training image has a label"):
        some_images(split([-1, -1]), Preprocessing(mean=(0.0,), std=(1.0,)), most=5, seed=0)


@pytest.mark.parametrize("points", [2, 20, 1, 0, -3, 203])
def test_points_are_odd_so_that_the_network_stands_in_the_middle(points: int) -> None:
    with pytest.raises(BadInput, match=rf"points is {points}; it is an odd number from 3 to 201"):
        grid(points, span=1.0)


@pytest.mark.parametrize("span", [0.0, -1.0, math.inf, math.nan])
def test_a_span_goes_somewhere(span: float) -> None:
    with pytest.raises(BadInput, match=r"span is .*; it is above 0"):
        grid(3, span=span)


@pytest.mark.parametrize("span", [1.0, 0.3, 0.1])
def test_steps_are_symmetric_with_an_exact_zero(span: float) -> None:
    steps = grid(21, span=span)
    assert steps[10] == 0.0
    assert steps == [-step for step in reversed(steps)]
    assert (steps[0], steps[-1]) == (-span, span)
