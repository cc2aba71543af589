from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import nn

from understudy.training import Training
from understudy.training.optimizers import build_optimizer


def made_model() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 3))


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)
        self.second.weight = self.first.weight


def decays(optimizer: torch.optim.Optimizer, *modules: nn.Module) -> dict[str, float]:
    """Weight decay by name of parameter; names of the second module begin with 1."""
    found = {
        id(parameter): group["weight_decay"]
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    return {
        (f"{position}." if position else "") + name: found[id(parameter)]
        for position, module in enumerate(modules)
        for name, parameter in module.named_parameters()
        if id(parameter) in found
    }


def all_parameters(optimizer: torch.optim.Optimizer) -> list[int]:
    return [id(parameter) for group in optimizer.param_groups for parameter in group["params"]]


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_everything_decays_unless_told_otherwise(optimizer: str) -> None:
    model = made_model()
    built = build_optimizer(Training(optimizer=optimizer, weight_decay=0.01), [model])  # type: ignore[arg-type]
    assert decays(built, model) == {name: 0.01 for name, _ in model.named_parameters()}


def test_decay_of_weights_leaves_biases_and_scales_alone() -> None:
    model = made_model()
    built = build_optimizer(Training(weight_decay=0.01, decay="weights"), [model])
    assert decays(built, model) == {
        "0.weight": 0.01,
        "0.bias": 0.0,
        "1.weight": 0.0,
        "1.bias": 0.0,
        "3.weight": 0.01,
        "3.bias": 0.0,
    }


def test_a_method_can_spare_parameters_of_the_student_by_name() -> None:
    model = made_model()
    built = build_optimizer(Training(weight_decay=0.01), [model], no_decay=["0.weight", "1.bias"])
    spared = {name for name, decay in decays(built, model).items() if decay == 0}
    assert spared == {"0.weight", "1.bias"}


def test_names_are_those_of_the_student_not_of_what_is_trained_beside_it() -> None:
    model, adapter = made_model(), made_model()
    built = build_optimizer(Training(weight_decay=0.01), [model, adapter], no_decay=["0.weight"])
    said = decays(built, model, adapter)
    assert said["0.weight"] == 0.0
    assert said["1.0.weight"] == 0.01


def test_a_name_that_spares_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match=r"no_decay names '0\.weigth'") as error:
        build_optimizer(Training(), [made_model()], no_decay=["0.weigth"])
    assert str(error.value) == (
        "no_decay names '0.weigth', which is no parameter of the student. Did you mean '0.weight'?"
    )


@pytest.mark.parametrize("name", ["first.weight", "second.weight"])
def test_tied_weights_are_spared_under_either_name(name: str) -> None:
    model = Tied()
    built = build_optimizer(Training(weight_decay=0.01), [model], no_decay=[name])
    assert decays(built, model)["first.weight"] == 0.0


def test_each_parameter_is_taken_once() -> None:
    model, tied = made_model(), Tied()
    built = build_optimizer(Training(), [model, tied, model, tied.first])
    expected = {id(parameter) for module in (model, tied) for parameter in module.parameters()}
    assert sorted(all_parameters(built)) == sorted(expected)


def test_what_a_method_trains_is_in_the_optimiser() -> None:
    model, adapter = made_model(), nn.Linear(3, 3)
    taken = all_parameters(build_optimizer(Training(), [model, adapter]))
    assert {id(parameter) for parameter in adapter.parameters()} <= set(taken)


def test_frozen_parameters_are_left_out() -> None:
    model = made_model()
    model[0].requires_grad_(False)
    taken = all_parameters(build_optimizer(Training(), [model]))
    assert {id(parameter) for parameter in model[0].parameters()}.isdisjoint(taken)
    assert len(taken) == 4


def test_the_order_of_parameters_does_not_depend_on_the_order_of_the_names_to_spare() -> None:
    model = made_model()
    names = ["3.bias", "0.weight", "1.bias"]
    one = build_optimizer(Training(), [model], no_decay=names)
    other = build_optimizer(Training(), [model], no_decay=set(names))
    assert all_parameters(one) == all_parameters(other)


def test_sgd_and_adamw_get_their_settings() -> None:
    sgd = build_optimizer(Training(lr=0.3, momentum=0.8, nesterov=True), [made_model()])
    assert isinstance(sgd, torch.optim.SGD)
    assert {(group["lr"], group["momentum"], group["nesterov"]) for group in sgd.param_groups} == {
        (0.3, 0.8, True)
    }
    adamw = build_optimizer(Training(optimizer="adamw", lr=0.003, momentum=0.85), [made_model()])
    assert isinstance(adamw, torch.optim.AdamW)
    assert {(group["lr"], group["betas"]) for group in adamw.param_groups} == {(0.003, (0.85, 0.999))}


def test_a_step_of_sgd_is_the_formula() -> None:
    # Sutskever et al. 2013 as PyTorch writes it: v = m v + g + d w; w = w - lr (g + d w + m v)
    layer = nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        layer.weight.fill_(2.0)
    built = build_optimizer(Training(lr=0.1, momentum=0.5, nesterov=True, weight_decay=0.25), [layer])
    weight, velocity = 2.0, 0.0
    for _ in range(3):
        layer.weight.grad = torch.ones(1, 1)
        built.step()
        gradient = 1.0 + 0.25 * weight
        velocity = 0.5 * velocity + gradient
        weight -= 0.1 * (gradient + 0.5 * velocity)
        assert layer.weight.item() == pytest.approx(weight, rel=1e-6)


ONE_STEP = """
import sys, torch
from understudy.training import Training
from understudy.training.optimizers import build_optimizer
layer = torch.nn.Linear(2, 2)
for name in ("sgd", "adamw"):
    optimizer = build_optimizer(Training(optimizer=name), [layer])
    layer(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    optimizer.load_state_dict(optimizer.state_dict())
print("torch._dynamo" in sys.modules)
compiled = torch.compile(layer, backend="eager")
print(bool(torch.equal(compiled(torch.ones(1, 2)), layer(torch.ones(1, 2)))))
"""


def test_an_optimiser_does_not_import_the_compiler_and_leaves_it_usable() -> None:
    run = subprocess.run([sys.executable, "-c", ONE_STEP], capture_output=True, text=True, timeout=120)
    assert run.stdout.split() == ["False", "True"], run.stderr
