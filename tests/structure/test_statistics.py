from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.structure.nets import images, made
from understudy.structure.statistics import renew_statistics


def test_they_are_the_mean_over_the_batches() -> None:
    norm = nn.BatchNorm2d(2, momentum=0.3)
    batches = [images(4, channels=2, size=(3, 3), seed=seed) * (seed + 1) for seed in range(3)]
    norm(batches[0] + 100)  # what was seen before does not count
    renew_statistics(norm, batches)
    flat = [batch.transpose(0, 1).flatten(1) for batch in batches]
    means = torch.stack([one.mean(1) for one in flat]).mean(0)
    variances = torch.stack([one.var(1) for one in flat]).mean(0)
    torch.testing.assert_close(norm.running_mean, means)
    torch.testing.assert_close(norm.running_var, variances)
    assert norm.momentum == 0.3


def test_nothing_else_changes() -> None:
    model, takes = made("resnet")
    model.train()
    model.get_submodule("stage1").eval()
    modes = [module.training for module in model.modules()]
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    renew_statistics(model, [images(8, **takes)])
    assert [module.training for module in model.modules()] == modes
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed
    assert all("running" in name or "num_batches" in name for name in changed)


def test_a_network_answers_then_as_it_does_while_it_trains() -> None:
    model, takes = made("resnet")
    batch = images(64, **takes)
    with torch.no_grad():
        trained = model.train()(batch)
        renew_statistics(model.eval(), [batch])
        evaluated = model(batch)
    # apart from n - 1 in the variance that is kept
    torch.testing.assert_close(evaluated, trained, rtol=0.05, atol=0.05)


def test_dropout_stays_off() -> None:
    model = nn.Sequential(nn.Dropout(0.9), nn.BatchNorm2d(2)).train()
    batch = images(4, channels=2, size=(3, 3))
    renew_statistics(model, [batch])
    torch.testing.assert_close(model[1].running_mean, batch.mean((0, 2, 3)))


def test_no_batch_is_an_error() -> None:
    with pytest.raises(ValueError, match="one batch or more"):
        renew_statistics(nn.BatchNorm2d(2), [])
