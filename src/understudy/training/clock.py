"""Time spent, time left, and when it is time to say or keep something."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from understudy.training.keeping import Position


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Told a few times a second while a stage trains, and after every epoch (``epoch_done``).

    Attributes:
        epoch: epochs finished. epochs: of the whole training.
        batch: batches done since the stage began. batches: of the whole training.
        images_per_second: since this process began with the stage.
        seconds_left: estimate from the same.
        losses: mean of each loss part in this epoch so far.
        validation: metrics after the last finished epoch.
        epoch_done: True right after an epoch.
    """

    epoch: int
    epochs: int
    batch: int
    batches: int
    images_per_second: float
    seconds_left: float
    losses: Mapping[str, float]
    validation: Mapping[str, float]
    epoch_done: bool = False


class Clock:
    """Time spent, time left, and when it is time to say or keep something."""

    def __init__(self, at: Position, *, batches: int) -> None:
        self.before = at.seconds
        self.began = self.kept = self.said = time.monotonic()
        self.first = at.number
        self.images = 0
        self.batches = batches

    def seconds(self) -> float:
        return self.before + time.monotonic() - self.began

    def checkpoint_due(self, minutes: float) -> bool:
        if time.monotonic() - self.kept < minutes * 60:
            return False
        self.kept = time.monotonic()
        return True

    def tick(
        self,
        images: int,
        at: Position,
        epochs: int,
        validation: Mapping[str, float],
        progress: Callable[[Progress], None],
        *,
        look: Callable[[], None] = lambda: None,
        epoch_done: bool = False,
    ) -> None:
        """Tells ``progress`` where it is time to; ``look`` brings the position up to date before."""
        self.images += images
        if not epoch_done and time.monotonic() - self.said < 0.5:
            return
        look()
        self.said = now = time.monotonic()
        spent = max(now - self.began, 1e-9)
        done = at.number - self.first
        progress(
            Progress(
                epoch=at.epoch,
                epochs=epochs,
                batch=at.number,
                batches=self.batches,
                images_per_second=self.images / spent,
                seconds_left=spent / max(done, 1) * (self.batches - at.number),
                losses={name: total / max(1, at.examples) for name, total in at.sums.items()},
                validation=dict(validation),
                epoch_done=epoch_done,
            )
        )
