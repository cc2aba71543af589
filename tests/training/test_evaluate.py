from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from understudy.data.dataset import MemoryImages, Split
from understudy.models.preprocessing import Preprocessing
from understudy.training import Training, precision
from understudy.training.evaluate import evaluating, outputs

PREPROCESSING = Preprocessing(mean=(0.5,), std=(0.25,))


def made_split(samples: int = 37) -> Split:
    pixels = np.random.default_rng(0).integers(0, 256, (samples, 6, 6, 1), dtype=np.uint8)
    return Split(images=MemoryImages(pixels), labels=np.zeros(samples, dtype=np.int64))


def made_model() -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5), nn.Flatten(), nn.Linear(64, 5)
    )
    model(torch.randn(16, 1, 6, 6))  # statistics other than the initial ones
    return model


def by_hand(model: nn.Module, split: Split) -> torch.Tensor:
    pixels = torch.from_numpy(split.images.fetch(np.arange(len(split)))).permute(0, 3, 1, 2)
    model.eval()
    with torch.no_grad():
        answers: torch.Tensor = model((pixels.float() / 255 - 0.5) / 0.25)
    return answers


def test_the_answers_are_those_of_the_plain_images_in_order() -> None:
    split = made_split()
    answers = outputs(made_model(), split, preprocessing=PREPROCESSING)
    assert answers.shape == (37, 5)
    assert answers.dtype == torch.float32
    assert not answers.requires_grad
    torch.testing.assert_close(answers, by_hand(made_model(), split))


@pytest.mark.parametrize("batch_size", [2, 3, 9, 36, 37, 1000])
def test_the_batch_size_does_not_change_the_answers(batch_size: int) -> None:
    split = made_split()
    usual = outputs(made_model(), split, preprocessing=PREPROCESSING)
    other = outputs(made_model(), split, preprocessing=PREPROCESSING, batch_size=batch_size)
    torch.testing.assert_close(other, usual, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("samples", [1, 2, 3])
def test_a_split_may_be_small(samples: int) -> None:
    split = made_split(samples)
    answers = outputs(made_model(), split, preprocessing=PREPROCESSING, batch_size=2)
    torch.testing.assert_close(answers, by_hand(made_model(), split))


def test_an_empty_split_has_no_answers() -> None:
    assert outputs(made_model(), made_split(0), preprocessing=PREPROCESSING).numel() == 0


def test_every_module_is_in_the_mode_it_had_before() -> None:
    model = made_model()
    model.train()
    model[1].eval()  # somebody froze the statistics of this layer
    before = [module.training for module in model.modules()]
    assert len(set(before)) == 2
    outputs(model, made_split(), preprocessing=PREPROCESSING)
    assert [module.training for module in model.modules()] == before


def test_modes_come_back_after_an_error_too() -> None:
    model = made_model()
    model[3].eval()
    before = [module.training for module in model.modules()]

    def fail() -> None:
        assert not any(module.training for module in model.modules())
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), evaluating(model):
        fail()
    assert [module.training for module in model.modules()] == before


def test_looking_changes_nothing_of_the_model_and_draws_no_random_number() -> None:
    model = made_model().train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    random = torch.get_rng_state()
    outputs(model, made_split(), preprocessing=PREPROCESSING)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.equal(torch.get_rng_state(), random)


def test_the_number_format_of_the_stage_is_used_and_the_answers_are_float32() -> None:
    split, autocast = made_split(), partial(precision.autocast, Training(precision="bf16", device="cpu"))
    single = outputs(made_model(), split, preprocessing=PREPROCESSING)
    brain = outputs(made_model(), split, preprocessing=PREPROCESSING, autocast=autocast)
    assert brain.dtype == torch.float32
    assert not torch.equal(brain, single)
    torch.testing.assert_close(brain, single, rtol=0.05, atol=0.05)


def test_an_evaluation_can_be_ended_between_batches() -> None:
    model = made_model().train()
    asked = 0

    def stop() -> None:
        nonlocal asked
        asked += 1
        if asked == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        outputs(model, made_split(), preprocessing=PREPROCESSING, batch_size=5, stop=stop)
    assert asked == 3
    assert model.training
