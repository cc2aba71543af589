"""The same steps on a GPU, where one is at hand: time on the wall, and absolute figures.

Ours is not waited for within its steps, the usual loop is once in each, where it reads its loss, as it is usually written;
a turn ends when the GPU has done all that it was given. Ours has images and
kept answers on the GPU, as ``fit`` has wherever there is room; the usual loop's come from its loader processes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from benchmarks.bench import Bench
from benchmarks.figures.steps import FIVE
from benchmarks.results import Figure, of_ratio
from benchmarks.turns import Work, as_json, paired

LOADERS = (
    8  # processes that make the usual loop's batches: with none of them no GPU would have anything to do
)


def gpu_kept_step(bench: Bench) -> Figure:
    """``kept_step`` on the GPU."""
    return _steps(bench, "gpu_kept_step", "resnet-20", FIVE[:1])


def gpu_dense_step(bench: Bench) -> Figure:
    """``dense_step`` on the GPU."""
    return _steps(bench, "gpu_dense_step", "resnet-8", FIVE)


def gpu_plain_step(bench: Bench) -> Figure:
    """A step of plain_cnn-2 from plain_cnn-10 on the GPU."""
    return _steps(bench, "gpu_plain_step", "plain_cnn-2", ("plain_cnn-10",))


def _steps(bench: Bench, name: str, student: str, teachers: Sequence[str]) -> Figure:
    if not torch.cuda.is_available():
        return Figure(name=name, value=None, details={"said": "no GPU here"})
    here = {"device": "cuda"}
    works: dict[str, Work] = {
        "usual": bench.usual(student, teachers, workers=LOADERS, **here),
        "official": bench.usual(student, teachers, official=True, workers=LOADERS, **here),
        "kept": bench.ours(student, teachers, **here),
        "live": bench.ours(student, teachers, kept=False, **here),
        "labels": bench.ours(student, **here),
    }
    rounds = bench.rounds(works)
    times = {
        f"{above}_over_{below}": round(paired(rounds.seconds(above), rounds.seconds(below)).value, 3)
        for above, below in (("official", "kept"), ("usual", "live"), ("kept", "labels"))
    }
    return of_ratio(
        paired(rounds.seconds("usual"), rounds.seconds("kept")),
        name=name,
        rounds=bench.size.rounds,
        details={"clock": "wall", **times, "steps": as_json(rounds)},
    )
