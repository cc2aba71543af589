"""Small methods that use every member of the protocol, and steps made by hand, for the tests of methods and loop."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from understudy.data.batches import Batch
from understudy.losses import soft_target_loss
from understudy.tasks import Classification
from understudy.teaching import Method, Needs, Step, Survey


def drawn(*shape: int, seed: int = 0) -> Tensor:
    """Normal numbers in float32, the same for the same shape and seed."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def batch_with(labels: Tensor) -> Batch:
    """A batch of blank images."""
    return Batch(
        index=torch.arange(len(labels)),
        pixels=torch.zeros(len(labels), 1, 2, 2, dtype=torch.uint8),
        labels=labels,
    )


def _nobody_asks(*_: Any) -> Tensor:
    raise AssertionError("nobody should look at the whole training split here")


NO_SURVEY = Survey(fingerprint=lambda: "0" * 16, student=_nobody_asks, teachers=_nobody_asks)


def made_step(
    student_logits: Tensor,
    labels: Tensor,
    teacher_logits: Tensor | None = None,
    *,
    number: int = 0,
    seed: int = 0,
    asked: list[list[int]] | None = None,
) -> Step:
    """A step whose networks answer what is given, whatever the batch.

    Args:
        student_logits: ``(batch, classes)``.
        labels: ``(batch,)``.
        teacher_logits: ``(teachers, batch, classes)``, or None: whoever asks a teacher fails.
        number: of the batch in the stage. seed: of the stage.
        asked: takes the positions of the teachers of each question.
    """

    def answers(which: Sequence[int], batch: Batch) -> Tensor:
        assert teacher_logits is not None, "this step has no teachers"
        if asked is not None:
            asked.append(list(which))
        return teacher_logits[list(which)]

    return Step(
        number=number,
        epoch=0,
        seed=seed,
        batches=(batch_with(labels),),
        student=lambda batch: student_logits,
        hard_loss=Classification().hard_loss,
        teacher_logits=answers,
    )


class ToyPeer(Method):
    """A peer method in miniature: looks at several copies and the plain batch, trains an adapter, keeps an average.

    The loss is the hard term on every copy, the agreement of the adapted later copies with the first one, and that
    of the plain batch with it. The average of the student's weights is the method's own, updated after each step.
    """

    name = "toy_peer"

    def __init__(self, *, classes: int, copies: int = 2, decay: float = 0.9) -> None:
        self.copies, self.decay = copies, decay
        self.adapter = nn.Linear(classes, classes)
        with torch.no_grad():  # no draw from a generator: a new method is always the same
            self.adapter.weight.copy_(torch.eye(classes))
            self.adapter.bias.zero_()
        self.average: dict[str, Tensor] = {}
        self.steps = 0
        self.epochs: list[int] = []

    def definition(self, *, teachers: int) -> dict[str, Any]:
        return {"name": self.name, "version": self.version, "copies": self.copies, "decay": self.decay}

    def needs(self) -> Needs:
        return Needs(copies=self.copies, plain=True)

    def modules(self) -> Mapping[str, nn.Module]:
        return {"adapter": self.adapter}

    def loss(self, step: Step) -> dict[str, Tensor]:
        assert step.plain is not None
        first, *others = [step.student(batch) for batch in step.batches]
        adapted = [self.adapter(other) for other in [*others, step.student(step.plain)]]
        answers = zip([first, *others], step.batches, strict=True)
        hard = torch.stack([step.hard_loss(answer, batch) for answer, batch in answers]).mean()
        agreement = torch.stack(
            [soft_target_loss(one, first, temperature=2.0).mean() for one in adapted]
        ).mean()
        return {"total": hard + agreement, "hard": hard, "agreement": agreement}

    def after_step(self, model: nn.Module, step: Step) -> None:
        self.steps += 1
        for name, parameter in model.named_parameters():
            now = parameter.detach().clone(memory_format=torch.contiguous_format)
            before = self.average.get(name)
            self.average[name] = now if before is None else before.lerp(now, 1 - self.decay)

    def on_epoch(self, epoch: int, survey: Survey) -> None:
        if epoch not in self.epochs:  # a resume in the middle of an epoch says it again
            self.epochs.append(epoch)

    def metrics(self) -> dict[str, Any]:
        return {"peer_steps": self.steps}

    def state_dict(self) -> dict[str, Any]:
        return {"average": dict(self.average), "steps": self.steps, "epochs": list(self.epochs)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.average, self.steps = dict(state["average"]), state["steps"]
        self.epochs = list(state["epochs"])


class ToySlimming(Method):
    """A structure penalty in miniature: pulls the scales of normalisation layers to zero and keeps them there."""

    name = "toy_slimming"

    def __init__(self, *, strength: float = 0.01, cut: float = 1e-3) -> None:
        self.strength, self.cut = strength, cut
        self.closed = 0

    def definition(self, *, teachers: int) -> dict[str, Any]:
        return {"name": self.name, "version": self.version, "strength": self.strength, "cut": self.cut}

    @staticmethod
    def scales(model: nn.Module) -> dict[str, nn.Parameter]:
        """Scales of the normalisation layers by name."""
        return {
            f"{name}.weight": module.weight
            for name, module in model.named_modules()
            if isinstance(module, nn.BatchNorm2d)
        }

    def no_decay(self, model: nn.Module) -> Iterable[str]:
        return self.scales(model)

    def loss(self, step: Step) -> dict[str, Tensor]:
        hard = step.hard_loss(step.student(step.batch), step.batch)
        return {"total": hard, "hard": hard}

    def penalty(self, model: nn.Module) -> Tensor:
        return self.strength * torch.stack([scale.abs().sum() for scale in self.scales(model).values()]).sum()

    def after_step(self, model: nn.Module, step: Step) -> None:
        with torch.no_grad():
            for scale in self.scales(model).values():
                scale[scale.abs() < self.cut] = 0.0
            self.closed = sum(int((scale == 0).sum()) for scale in self.scales(model).values())

    def metrics(self) -> dict[str, Any]:
        return {"closed": self.closed}

    def state_dict(self) -> dict[str, Any]:
        return {"closed": self.closed}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.closed = state["closed"]
