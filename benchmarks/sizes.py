"""How much is measured: enough to count, enough to see the trend, or just enough to see that it runs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Size:
    """Attributes:
    name: as on the command line.
    rounds: of interleaved turns.
    seconds: of CPU time in a turn, about.
    images: of the training split, in figures of steps.
    classes: of made-up images.
    batch: images in a step.
    ladder_images: of the training split, in figures of whole ladders.
    epochs: of each training in a whole ladder.
    """

    name: str
    rounds: int
    seconds: float
    images: int
    classes: int
    batch: int
    ladder_images: int
    epochs: int


FULL = Size(
    name="full",
    rounds=9,
    seconds=2.0,
    images=9_984,  # 78 whole batches of 128
    classes=100,
    batch=128,
    ladder_images=10_000,
    epochs=2,
)
QUICK = Size(
    name="quick", rounds=3, seconds=0.7, images=2_560, classes=100, batch=128, ladder_images=2_000, epochs=1
)
TINY = Size(name="tiny", rounds=2, seconds=0.01, images=64, classes=10, batch=16, ladder_images=80, epochs=1)
SIZES = {size.name: size for size in (FULL, QUICK, TINY)}
