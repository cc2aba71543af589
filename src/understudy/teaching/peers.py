"""Peer collaborative learning: several peers on one trunk teach each other, without a teacher."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import torch

from understudy.errors import BadInput
from understudy.losses.peers import (
    ema_factor,
    ensemble_to_peers_loss,
    mean_teachers_to_peers_loss,
    ramp,
)
from understudy.models.peers import PeerNetwork
from understudy.teaching.around import Around
from understudy.teaching.method import Beginning, Method, Needs, Step

if TYPE_CHECKING:
    from torch import Tensor, nn

DIVISORS = ("length", "weight")


@dataclass(kw_only=True)
class Peers(Around):
    """m peers learn from the labels, from their ensemble, and from the moving averages of each other (PCL).

    Each step shows the images in m views; view j goes through the trunk to peer j. For peers' logits z_j, the
    ensemble's z_e on all peers' features, and z^t_k of the mean network's peer k on view k::

        L = CE(z_e, y) + sum_j [ L_j + w(e) * KL_T(z_e || z_j) + w(e) / (m - 1) * sum_{k != j} KL_T(z^t_k || z_j) ]

    ``KL_T(a || b) = T^2 KL(softmax(a / T) || softmax(b / T))``, without gradient to a. L_j is what the inner method
    says of peer j on its view: with ``Labels`` it is CE(z_j, y), as published; with soft targets peers learn from
    teachers, too (our extension; teachers answer to the views after the first one live).

    The mean network follows after each step of the optimiser, ``mean <- phi mean + (1 - phi) student`` with
    ``phi = min(1 - 1/g, ema)`` at step g = 1, 2, ..., trunk, peers and ensemble head alike. It runs in training mode
    and keeps normalisation statistics of its own. It is what the stage delivers.

    Attributes:
        method: the inner one.
        count: m, of the network.
        temperature: T.
        weight: of both collaborative terms at the end of the ramp; 0: the same peers without collaboration.
        ramp: share of the epochs in which w(e) = weight * exp(-5 (1 - e/length)^2) rises.
        ramp_divisor: ``length``, or ``weight`` as in the re-implementation, see ``understudy.losses.peers.ramp``.
        ema: in [0, 1), the largest phi.
        ema_buffers: normalisation statistics of the mean network are averages of the student's, as its weights are,
            instead of its own.

    References:
        Wu and Gong 2021 (AAAI); no official code. Read from a third-party re-implementation: own mean teacher excluded,
        terms summed over peers, statistics of the mean network. Our choices: the ramp as a share of the epochs (80 of
        300 there), the averaged ensemble head, and peers that begin with weights of their own. That code's ramp divides
        by its weight instead of its length, so that it jumps to 1 after epoch 80; ours rises as meant, unless
        ``ramp_divisor`` says otherwise.
    """

    name = "peers"

    method: Method
    count: int = 3
    temperature: float = 3.0
    weight: float = 1.0
    ramp: float = 80 / 300
    ramp_divisor: Literal["length", "weight"] = "length"
    ema: float = 0.999
    ema_buffers: bool = False
    student: PeerNetwork | None = field(default=None, init=False, compare=False, repr=False)
    mean: PeerNetwork | None = field(default=None, init=False, compare=False, repr=False)
    steps: int = field(default=0, init=False, compare=False)
    length: float = field(default=0.0, init=False, compare=False)

    def __post_init__(self) -> None:
        if self.count < 2:
            raise BadInput(
                f"peers are 2 or more; got {self.count}. One network alone is what scratch trains."
            )
        if not (self.temperature > 0 and math.isfinite(self.temperature)):
            raise BadInput(f"peers.temperature is a positive number; got {self.temperature}.")
        if not (self.weight >= 0 and math.isfinite(self.weight)):
            raise BadInput(f"peers.weight is a number of 0 or more; got {self.weight}.")
        if not 0 <= self.ramp <= 1:
            raise BadInput(f"peers.ramp is a share of the epochs in [0, 1]; got {self.ramp}.")
        if self.ramp_divisor not in DIVISORS:
            raise BadInput(f"peers.ramp_divisor {self.ramp_divisor!r} is none of {', '.join(DIVISORS)}.")
        if not 0 <= self.ema < 1:
            raise BadInput(f"peers.ema lies in [0, 1); got {self.ema}. 0.999 is usual, 0 copies the student.")

    def definition(self, *, teachers: int) -> dict[str, Any]:
        collaborate: dict[str, Any] = {}
        if self.weight:
            collaborate = {"temperature": self.temperature, "ramp": self.ramp}
            if self.ramp and self.ramp_divisor != "length":
                collaborate["ramp_divisor"] = self.ramp_divisor
        return {
            "name": self.name,
            "version": self.version,
            "method": self.method.definition(teachers=teachers),
            "count": self.count,
            "weight": self.weight,
            **collaborate,
            "ema": self.ema,
            "ema_buffers": self.ema_buffers,
        }

    def needs(self) -> Needs:
        return replace(self.method.needs(), copies=self.count)

    def check(self, *, teachers: int) -> None:
        inner = self.method.needs()
        if inner.copies > 1 or inner.plain or inner.features or not self.method.trains_student:
            raise BadInput(f"peers go with labels and soft targets, not with {self.method.name}.")
        self.method.check(teachers=teachers)

    def for_stage(self, *, teachers: int) -> Peers:
        self.check(teachers=teachers)
        return replace(self, method=self.method.for_stage(teachers=teachers))

    def begin(self, beginning: Beginning) -> None:
        super().begin(beginning)
        if not isinstance(beginning.model, PeerNetwork) or len(beginning.model.peers) != self.count:
            raise BadInput(
                f"{self.count} peers need a network of as many: give the model peers: {self.count}."
            )
        self.student = beginning.model
        self.mean = copy.deepcopy(beginning.model).requires_grad_(False).train()
        self.length = self.ramp * beginning.epochs

    def loss(self, step: Step) -> dict[str, Tensor]:
        model, mean = self.student, self.mean
        assert model is not None, "the method has not begun"
        assert mean is not None
        if step.batch.share is not None:
            raise BadInput(
                "peers see several views of one image, and mixup blends other images into each: leave mixup out."
            )
        answers, features = zip(
            *(step.run(partial(model.peer, j), batch) for j, batch in enumerate(step.batches)), strict=True
        )
        peers = torch.stack([answer.float() for answer in answers])
        # without gradient: the ensemble's term does not go through these logits, so shares of it would mislead
        step.answered(step.batch, peers[0].detach())
        ensemble: Tensor = model.ensemble(torch.cat([each.float() for each in features], dim=1))
        hard = step.hard_loss(ensemble, step.batch)
        own = [self._own(step, j, peers[j]) for j in range(self.count)]
        parts = {"ensemble": hard, "peers": sum((said["total"] for said in own if said), torch.zeros(()))}
        means = self._means(mean, step)  # also where nobody listens: statistics are learnt on the way
        total = parts["ensemble"] + parts["peers"]
        if self.weight:  # also where the ramp is 0, so that all epochs log the same parts
            weight = ramp(step.epoch, length=self.length, weight=self.weight, divisor=self.ramp_divisor)
            heat = self.temperature
            parts["from_ensemble"] = ensemble_to_peers_loss(peers, ensemble, temperature=heat).mean()
            parts["from_means"] = mean_teachers_to_peers_loss(peers, means, temperature=heat).mean()
            total = total + weight * (parts["from_ensemble"] + parts["from_means"])
        return {"total": total, **parts}

    @torch.no_grad()
    def _means(self, mean: PeerNetwork, step: Step) -> Tensor:
        """Logits ``(peers, batch, classes)`` of the mean network, of each peer on its view."""
        before = [buffer.clone() for buffer in mean.buffers()]
        answers = [step.run(partial(mean.peer, k), batch)[0].float() for k, batch in enumerate(step.batches)]
        if self.ema_buffers:  # then they follow the student's alone
            for buffer, was in zip(mean.buffers(), before, strict=True):
                buffer.copy_(was)
        return torch.stack(answers)

    def _own(self, step: Step, position: int, answer: Tensor) -> dict[str, Tensor]:
        """What the inner method says of one peer on its view; nothing where nobody teaches it in this step."""
        batch = step.batches[position]
        return self.method.loss(replace(step, batches=(batch,), student=lambda _: answer))

    @torch.no_grad()
    def after_step(self, model: nn.Module, step: Step) -> None:
        super().after_step(model, step)
        assert self.mean is not None
        self.steps += 1
        phi = ema_factor(self.steps, most=self.ema)
        pairs = [*zip(self.mean.parameters(), model.parameters(), strict=True)]
        if self.ema_buffers:
            pairs += zip(self.mean.buffers(), model.buffers(), strict=True)  # type: ignore[arg-type]
        for average, now in pairs:
            if average.is_floating_point():
                average.lerp_(now, 1 - phi)
            else:
                average.copy_(now)

    def delivered(self, model: nn.Module) -> nn.Module:
        assert self.mean is not None, "the method has not begun"
        return self.mean

    def state_dict(self) -> dict[str, Any]:
        assert self.mean is not None, "the method has not begun"
        return {"method": super().state_dict(), "mean": dict(self.mean.state_dict()), "steps": self.steps}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state["method"])
        assert self.mean is not None, "the method has not begun"
        self.mean.load_state_dict(state["mean"])
        self.steps = state["steps"]
