"""What a ladder will cost, from a few measured steps and from what the store knows."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch

from understudy.errors import Damaged
from understudy.ladder.graph import Job
from understudy.store.results import CHECKPOINTS, Store
from understudy.training import precision
from understudy.training.settings import Training

if TYPE_CHECKING:
    from understudy.data.dataset import Dataset


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Of one job.

    Attributes:
        state: ``kept``, ``resumes`` (a checkpoint is there) or ``to do``.
        seconds: expected, of what is still to do; 0 for what is kept.
        bytes: that it adds to the store: weights, outputs and the checkpoint while it trains.
    """

    state: Literal["kept", "resumes", "to do"]
    seconds: float
    bytes: int


def estimates(all_jobs: Sequence[Job], *, store: Store, dataset: Dataset) -> dict[str, Estimate]:
    """An estimate for each job's key; each network is measured for some steps, on random pixels.

    Args:
        all_jobs: inputs first.
        store: knows what is kept.
        dataset: gives sizes.
    """
    forward: dict[tuple[str, str], float] = {}
    both: dict[tuple[str, str], float] = {}
    found: dict[str, Estimate] = {}
    images = len(dataset.train) + len(dataset.validation)
    for job in all_jobs:
        if job.key in found:
            continue
        if _is_kept(store, job.key):
            found[job.key] = Estimate(state="kept", seconds=0.0, bytes=0)
            continue
        training = job.stage.training or precision.resolved(Training())
        seconds = 0.0
        for worker, passes in ((job, both), *((teacher, forward) for teacher in job.teachers)):
            if job.stage.training is None:
                break
            name = (
                repr(worker.stage.network),
                f"{training.precision} {training.batch_size} {training.device}",
            )
            if name not in passes:
                passes[name] = _seconds_an_image(worker, dataset, training, backward=passes is both)
            seconds += passes[name] * len(dataset.train) * training.epochs
            if passes is both:
                seconds += passes[name] / 3 * (len(dataset.validation) * training.epochs + len(dataset.test))
        weights = 4 * job.cost.parameters
        outputs = 4 * len(dataset.class_names) * (images - len(dataset.train) + len(dataset.test))
        resumes = any((store.place(job.key) / CHECKPOINTS).glob("[0-9]*"))
        found[job.key] = Estimate(
            state="resumes" if resumes else "to do", seconds=seconds, bytes=weights + outputs + 2 * weights
        )
    return found


def _is_kept(store: Store, key: str) -> bool:
    try:
        return store.result(key) is not None
    except Damaged:  # a run sets it aside and makes it again
        return False


def _seconds_an_image(job: Job, dataset: Dataset, training: Training, *, backward: bool) -> float:
    """Median over a few steps of one batch, after one to warm up, for about a second."""
    if job.stage.network.is_logits:
        return 0.0
    batch = min(training.batch_size, len(dataset.train))
    with torch.random.fork_rng(devices=[]), precision.threads(training.threads):
        model = job.stage.network.build(dataset).to(training.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        preprocessing = job.stage.network.preprocessing(dataset)
        pixels = torch.randint(
            0, 256, (batch, dataset.channels, dataset.height, dataset.width), dtype=torch.uint8
        )
        pixels = pixels.to(training.device, memory_format=torch.channels_last)
        model.train(backward)
        times: list[float] = []
        began = time.perf_counter()
        while len(times) < 4 or (len(times) < 20 and time.perf_counter() - began < 1):
            start = time.perf_counter()
            with torch.set_grad_enabled(backward), precision.autocast(training):
                answer = model(preprocessing(pixels))
            if backward:
                answer.float().square().mean().backward()
                model.zero_grad(set_to_none=True)
            if training.device == "cuda":
                torch.cuda.synchronize()
            times.append(time.perf_counter() - start)
            if time.perf_counter() - began > 5 and len(times) > 1:
                break
    return float(sorted(times[1:])[len(times[1:]) // 2]) / batch
