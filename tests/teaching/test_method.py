"""The protocol, on toy methods that use all of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.teaching.toys import NO_SURVEY, ToyPeer, ToySlimming, batch_with, drawn, made_step
from understudy.teaching import Labels, Method, Needs, SoftTargets, Step
from understudy.training import checkpoint
from understudy.training.optimizers import build_optimizer
from understudy.training.settings import Training

CLASSES = 4
LABELS = torch.arange(8) % CLASSES


def made_model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 6, 2), nn.BatchNorm2d(6), nn.Flatten(), nn.Linear(6, CLASSES))


def made_methods() -> list[Method]:
    return [Labels(), SoftTargets(), ToyPeer(classes=CLASSES), ToySlimming(strength=0.5, cut=0.05)]


def steps_of(method: Method, model: nn.Module, count: int, *, first: int = 0) -> list[Step]:
    """Steps with other pixels in each copy, on which ``model`` is the student."""
    needs, made = method.needs(), []
    for number in range(first, first + count):
        looks = [
            replace(batch_with(LABELS), pixels=drawn(8, 1, 2, 2, seed=10 * number + copy))
            for copy in range(needs.copies + 1)
        ]
        step = made_step(drawn(8, CLASSES), LABELS, drawn(1, 8, CLASSES, seed=9), number=number)
        made.append(
            replace(
                step,
                batches=tuple(looks[: needs.copies]),
                plain=looks[-1] if needs.plain else None,
                student=lambda batch: model(batch.pixels),
            )
        )
    return made


def taught(
    method: Method, model: nn.Module, steps: list[Step], optimizer: torch.optim.Optimizer
) -> list[float]:
    """What a training loop does with a method, without anything else."""
    totals = []
    for step in steps:
        loss = method.loss(step)["total"]
        penalty = method.penalty(model)
        (loss if penalty is None else loss + penalty).backward()
        optimizer.step()
        optimizer.zero_grad()
        method.after_step(model, step)
        totals.append(loss.item())
    return totals


def optimizer_for(method: Method, model: nn.Module) -> torch.optim.Optimizer:
    training = Training(lr=0.05, weight_decay=0.1, nesterov=False, momentum=0.0)
    return build_optimizer(training, [model, *method.modules().values()], no_decay=method.no_decay(model))


class Smallest(Method):
    name = "smallest"

    def definition(self, *, teachers: int) -> dict[str, Any]:
        return {"name": self.name}

    def loss(self, step: Step) -> dict[str, Tensor]:
        return {"total": step.hard_loss(step.student(step.batch), step.batch)}


def test_a_definition_and_a_loss_are_enough() -> None:
    method, model = Smallest().for_stage(teachers=0), made_model()
    assert method.needs() == Needs()
    assert dict(method.modules()) == {}
    assert list(method.no_decay(model)) == []
    assert method.penalty(model) is None
    assert method.metrics() == {}
    assert method.state_dict() == {}
    method.on_epoch(0, NO_SURVEY)
    method.load_state_dict({})
    totals = taught(method, model, steps_of(method, model, 1) * 5, optimizer_for(method, model))
    assert totals[-1] < totals[0]


def test_a_method_without_loss_cannot_be_made() -> None:
    class Unfinished(Method):
        name = "unfinished"

        def definition(self, *, teachers: int) -> dict[str, Any]:
            return {}

    with pytest.raises(TypeError, match="loss"):
        Unfinished()  # type: ignore[abstract]


def test_the_usual_batch_is_the_first_copy() -> None:
    method = ToyPeer(classes=CLASSES, copies=3)
    (step,) = steps_of(method, made_model(), 1)
    assert len(step.batches) == 3
    assert step.batch is step.batches[0]


@pytest.mark.parametrize("position", range(4), ids=["labels", "soft_targets", "peer", "slimming"])
def test_a_method_that_takes_back_its_state_goes_on_as_if_nothing_had_happened(position: int) -> None:
    straight, model = made_methods()[position].for_stage(teachers=1), made_model()
    straight.on_epoch(0, NO_SURVEY)
    whole = taught(straight, model, steps_of(straight, model, 6), optimizer_for(straight, model))

    first, model = made_methods()[position].for_stage(teachers=1), made_model()
    first.on_epoch(0, NO_SURVEY)
    before = taught(first, model, steps_of(first, model, 3), optimizer_for(first, model))
    tensors, rest = checkpoint.pack(
        {
            "model": dict(model.state_dict()),
            "modules": {name: dict(module.state_dict()) for name, module in first.modules().items()},
            "method": first.state_dict(),
        }
    )
    kept = checkpoint.unpack(tensors, rest)

    second, model = made_methods()[position].for_stage(teachers=1), made_model()
    model.load_state_dict(kept["model"])
    for name, module in second.modules().items():
        module.load_state_dict(kept["modules"][name])
    second.load_state_dict(kept["method"])
    second.on_epoch(0, NO_SURVEY)
    after = taught(second, model, steps_of(second, model, 3, first=3), optimizer_for(second, model))
    assert before + after == whole
    assert second.metrics() == straight.metrics()
    assert checkpoint.pack(second.state_dict())[1] == checkpoint.pack(straight.state_dict())[1]


@pytest.mark.parametrize("position", range(4), ids=["labels", "soft_targets", "peer", "slimming"])
def test_stages_share_no_memory(position: int) -> None:
    template = made_methods()[position]
    one, other = template.for_stage(teachers=1), template.for_stage(teachers=1)
    untouched, _ = checkpoint.pack({"state": other.state_dict(), "modules": modules_of(other)})
    model = made_model()
    taught(one, model, steps_of(one, model, 3), optimizer_for(one, model))
    still, _ = checkpoint.pack({"state": other.state_dict(), "modules": modules_of(other)})
    assert untouched.keys() == still.keys()
    assert all(torch.equal(untouched[name], still[name]) for name in still)
    assert not set(map(id, one.modules().values())) & set(map(id, other.modules().values()))


def modules_of(method: Method) -> dict[str, Any]:
    return {name: dict(module.state_dict()) for name, module in method.modules().items()}


def test_what_a_method_brings_along_is_trained() -> None:
    method, model = ToyPeer(classes=CLASSES).for_stage(teachers=0), made_model()
    before = method.adapter.weight.detach().clone()
    taught(method, model, steps_of(method, model, 3), optimizer_for(method, model))
    assert not torch.equal(method.adapter.weight, before)


def test_an_average_of_a_methods_own_follows_the_weights() -> None:
    method, model = ToyPeer(classes=CLASSES, decay=0.5).for_stage(teachers=0), made_model()
    optimizer = optimizer_for(method, model)
    expected: Tensor | None = None
    for step in steps_of(method, model, 4):
        taught(method, model, [step], optimizer)
        now = model[0].weight.detach().clone()  # type: ignore[index]
        expected = now if expected is None else (expected + now) / 2
    torch.testing.assert_close(method.average["0.weight"], expected)


def test_a_penalty_on_the_structure_closes_channels_that_decay_does_not_touch() -> None:
    method, model = ToySlimming(strength=0.5, cut=0.05).for_stage(teachers=0), made_model()
    optimizer = optimizer_for(method, model)
    spared = [group for group in optimizer.param_groups if group["weight_decay"] == 0]
    assert [parameter for group in spared for parameter in group["params"]] == [model[1].weight]  # type: ignore[index]
    before = method.penalty(model).item()
    taught(method, model, steps_of(method, model, 60), optimizer)
    assert method.penalty(model).item() < before
    assert method.metrics()["closed"] > 0


def test_a_penalty_has_a_gradient_for_the_weights_it_is_on_alone() -> None:
    method, model = ToySlimming(strength=0.5), made_model()
    method.penalty(model).backward()
    touched = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert touched == {"1.weight"}


def test_an_epoch_that_is_said_twice_after_a_resume_counts_once() -> None:
    method = ToyPeer(classes=CLASSES)
    said: list[Callable[[], None]] = [
        lambda epoch=epoch: method.on_epoch(epoch, NO_SURVEY) for epoch in (0, 1, 1, 2)
    ]  # type: ignore[misc]
    for say in said:
        say()
    assert method.state_dict()["epochs"] == [0, 1, 2]
