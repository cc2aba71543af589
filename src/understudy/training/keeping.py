"""Where a training stands, and what of it survives a crash: its log and its checkpoints."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from understudy.errors import StageFailed
from understudy.store import files
from understudy.store.results import CHECKPOINTS, METRICS
from understudy.teaching.method import Method
from understudy.training import checkpoint


@dataclass(kw_only=True)
class Position:
    """Where a training stands; all of it is in the checkpoint."""

    epoch: int = 0  # epochs finished
    batch: int = 0  # batches done in this epoch
    number: int = 0  # batches done in all
    step: int = 0  # steps of the optimiser made
    skipped: int = 0  # batches that taught nothing
    seconds: float = 0.0  # of training, over all processes that worked on it
    examples: int = 0  # in this epoch
    sums: dict[str, float] = field(default_factory=dict)  # of each loss part, in this epoch, times examples
    seen: dict[str, float] = field(default_factory=dict)  # of the metrics on training images, times labelled
    labelled: int = 0  # examples behind ``seen``
    gradient: dict[str, float] = field(default_factory=dict)  # share of each part, at the epoch's first batch
    metrics_bytes: int = 0  # length of the log


class Kept:
    """Log and checkpoints of a stage in its folder."""

    def __init__(
        self,
        folder: Path,
        *,
        model: nn.Module,
        method: Method,
        optimizer: torch.optim.Optimizer,
        average: AveragedModel | None,
        device: str,
        say: Callable[[str], None],
    ) -> None:
        self.folder = folder
        self.model, self.method, self.optimizer, self.average = model, method, optimizer, average
        self.device, self.say = device, say

    def log(self, line: Mapping[str, Any]) -> None:
        path = self.folder / METRICS
        with files.explained(path), path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
            file.flush()
            os.fsync(file.fileno())  # the checkpoint that follows counts on these bytes

    def write(self, at: Position, *, seconds: float) -> None:
        if not all(bool(torch.isfinite(parameter).all()) for parameter in self.model.parameters()):
            raise StageFailed(
                f"a weight is not a finite number any more after batch {at.number}. Try a smaller training.lr or "
                f"training.clip: 1.0; the last good checkpoint is kept."
            )
        log = self.folder / METRICS
        at.seconds = seconds
        at.metrics_bytes = log.stat().st_size if log.exists() else 0
        tree = {
            "position": asdict(at),
            "model": dict(self.model.state_dict()),
            "optimizer": self.optimizer.state_dict(),
            "average": None if self.average is None else dict(self.average.state_dict()),
            "modules": {name: dict(module.state_dict()) for name, module in self.method.modules().items()},
            "method": self.method.state_dict(),
            "rng": torch.get_rng_state(),
            "rng_cuda": torch.cuda.get_rng_state() if self.device == "cuda" else None,
        }
        checkpoint.write(self.folder / CHECKPOINTS, tree, step=at.number)

    def resume(self) -> Position:
        with files.explained(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        tree = checkpoint.read(
            self.folder / CHECKPOINTS, damaged=lambda path: self.say(f"{path} is damaged and passed over")
        )
        at = Position() if tree is None else Position(**tree["position"])
        log = self.folder / METRICS
        with files.explained(log), log.open("ab") as file:
            # Lines written after the checkpoint are written again; a log that is shorter is not filled up.
            file.truncate(min(at.metrics_bytes, file.tell()))
        if tree is None:
            return at
        self.model.load_state_dict(tree["model"])
        self.optimizer.load_state_dict(tree["optimizer"])
        _as_parameters_lie(self.optimizer)
        if self.average is not None:
            self.average.load_state_dict(tree["average"])
        for name, module in self.method.modules().items():
            module.load_state_dict(tree["modules"][name])
        self.method.load_state_dict(tree["method"])
        torch.set_rng_state(tree["rng"])
        if self.device == "cuda":
            torch.cuda.set_rng_state(tree["rng_cuda"])
        self.say(f"goes on from epoch {at.epoch + 1}, batch {at.batch + 1}")
        return at


def _as_parameters_lie(optimizer: torch.optim.Optimizer) -> None:
    """Gives the optimiser's buffers the memory layout of their parameters again; a file has lost it."""
    for parameter, state in optimizer.state.items():
        for name, value in state.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                state[name] = torch.empty_like(parameter).copy_(value)
