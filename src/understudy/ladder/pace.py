"""How fast networks are on this machine and what memory they take, from a few steps of the loop itself."""

from __future__ import annotations

import contextlib
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from understudy.data.batches import batch_of
from understudy.data.dataset import Images, Split
from understudy.ladder.graph import Job
from understudy.ladder.spoken import hears
from understudy.ladder.workers import cores
from understudy.tasks import Classification
from understudy.training import precision
from understudy.training.clock import Progress
from understudy.training.evaluate import outputs
from understudy.training.loop import fit
from understudy.training.settings import Training
from understudy.training.speaking import BATCH
from understudy.training.teachers import FrozenTeachers, Lookup, Teacher

if TYPE_CHECKING:
    from understudy.data.dataset import Dataset

_SECONDS = 0.6  # of steps, for each network and way of teaching it
_LOOK = 256  # images at once where a network is looked at
_BATCHES = 16  # in an epoch that is measured, or fewer where the data have fewer
_MULTIPLY_ADDS = 2e11  # in one measured step, or about: slow networks are measured on smaller batches


@dataclass(frozen=True, kw_only=True)
class Pace:
    """How one network does.

    Attributes:
        step: seconds of a whole batch in training, from drawing its view to the figures that are noted; 0 where
            nothing is trained.
        lap: batches in a whole epoch that was seen, and its seconds, with log and checkpoint; None where steps are
            too slow for that to matter.
        looks: seconds of one pass over each split that is only looked at.
        weights: bytes of what is kept of it.
        unseen: bytes that a step takes beside those that this process has by now, about: 0 where whole batches were
            measured.
    """

    step: float = 0.0
    lap: tuple[int, float] | None = None
    looks: Mapping[str, float]
    weights: int
    unseen: int = 0

    def epoch(self, batches: int) -> float:
        """Seconds of an epoch of that many batches, without the look at the validation split."""
        done, seconds = self.lap or (0, 0.0)
        return max(0.0, seconds + (batches - done) * self.step)

    def of_part(self, job: Job) -> Pace:
        """For the part of the network that the job's budget leaves, judged by its multiply-adds and parameters."""
        part = _part(job)
        size = job.cost.parameters / max(1, job.whole.parameters)
        return replace(
            self,
            step=self.step * part,
            lap=None if self.lap is None else (self.lap[0], self.lap[1] * part),
            looks={name: seconds * part for name, seconds in self.looks.items()},
            weights=round(self.weights * size),
        )


@dataclass(frozen=True, kw_only=True)
class Voice:
    """How fast a frozen teacher answers, in the form in which it does.

    Attributes:
        ready: seconds until it can. image: seconds for each image then, without drawing it.
    """

    ready: float
    image: float


def _part(job: Job) -> float:
    return job.cost.multiply_adds / max(1, job.whole.multiply_adds)


def training_pace(job: Job, dataset: Dataset) -> Pace:
    """Trains the network of ``job``, with all its channels, for a few steps, in a folder that is gone afterwards.

    Kept answers of teachers are stood for by random ones: reading them takes as long.
    """
    stage, training = job.stage, job.stage.training
    assert training is not None  # given networks are not trained
    assert stage.method is not None
    size = _affordable(3 * job.whole.multiply_adds, min(training.batch_size, len(dataset.train)))
    few = replace(
        dataset, train=_some(dataset.train, _BATCHES * size), validation=_some(dataset.validation, 0)
    )
    # more epochs than there is time for, at next to no learning rate, so that no step goes astray
    brief = replace(
        training, epochs=1000, batch_size=max(2, size), lr=1e-9, accumulate=1, workers=0, warmup=0.0
    )
    watch = _Watch(training.device)
    before = anonymous_bytes() or 0
    with precision.as_in_a_stage(training), tempfile.TemporaryDirectory() as folder:
        torch.manual_seed(0)
        model = stage.network.build(dataset)
        teachers = _stand_ins(job, few)
        with contextlib.suppress(_EnoughError):
            fit(
                model,
                stage.method.for_stage(teachers=len(job.teachers)),
                task=Classification(label_smoothing=training.label_smoothing),
                dataset=few,
                views=job.views,
                preprocessing=stage.network.preprocessing(dataset),
                teachers=teachers,
                training=brief,
                seed=job.seed,
                folder=Path(folder),
                signals=job.signals,
                progress=watch.told,
                stop=watch,
            )
        looks = _looks(model, job, dataset, training)
    lap = statistics.median(watch.laps) if watch.laps else None
    step = statistics.median(watch.steps) if watch.steps else (lap or 0.0) / watch.batches
    decoded = 0.0 if dataset.train.images.in_memory else size * drawing_seconds(job, dataset)
    late = waited(step, decoded, dataset.train, training) - step
    scale = min(training.batch_size, len(dataset.train)) / size
    return Pace(
        step=(step + late) * scale,
        lap=None if lap is None or scale != 1 else (watch.batches, lap + watch.batches * late),
        looks=looks,
        weights=_bytes_of(model),
        # on a GPU what grows lies there; here its driver grows, whatever the batch
        unseen=int((scale - 1) * max(0, (anonymous_bytes() or 0) - before)) if brief.device == "cpu" else 0,
    )


def looking_pace(job: Job, dataset: Dataset) -> Pace:
    """Of a network that is only looked at, once."""
    if job.stage.network.is_logits:
        return Pace(looks={}, weights=0)
    training = job.look
    with precision.as_in_a_stage(training):
        model = job.stage.network.build(dataset).to(training.device)
        looks = _looks(model, job, dataset, training)
    weights = 0 if job.stage.network.file is not None else _bytes_of(model)
    return Pace(looks=looks, weights=weights)


def voice(teacher: Job, job: Job, dataset: Dataset) -> Voice:
    """Lets the network of ``teacher``, with any weights, answer some images as it would for ``job``.

    Where teachers may speak ahead of their student that is in a thread of its own, here too: memory that a thread had
    is not used again by others.
    """
    training = job.stage.training
    assert training is not None
    if training.device == "cuda" or 2 * training.threads > cores():
        return _voice(teacher, job, dataset, training)
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(_voice, teacher, job, dataset, training).result()


def _voice(teacher: Job, job: Job, dataset: Dataset, training: Training) -> Voice:
    size = min(_affordable(teacher.whole.multiply_adds, BATCH[training.device]), len(dataset.train))
    view = job.views.at(0)
    network = teacher.stage.network
    with precision.as_in_a_stage(training):
        answering = FrozenTeachers(
            [Teacher(load=partial(network.build, dataset), preprocessing=network.preprocessing(dataset))],
            dataset=dataset,
            views=[view],
            training=training,
            signals=job.signals,
        )
        batch = batch_of(dataset.train, view, np.arange(size))
        with answering:
            began = time.perf_counter()
            answering.load([0])
            ready = time.perf_counter() - began
            seconds = _median(lambda: job.signals.encode(answering.answer([0], batch)[0]).popitem()[1].cpu())
    return Voice(ready=ready, image=seconds / size * _part(teacher))


def drawing_seconds(job: Job, dataset: Dataset) -> float:
    """Seconds to fetch an image of the training split and to draw its view."""
    order = np.arange(min(_LOOK, len(dataset.train)))
    return _median(lambda: batch_of(dataset.train, job.views.at(0), order)) / len(order)


def waited(seconds: float, decoding: float, split: Split, training: Training) -> float:
    """Seconds that work takes where ``decoding`` of its ``seconds`` may be done meanwhile by loader processes."""
    if split.images.in_memory or not training.workers:
        return seconds
    return max(seconds - decoding, decoding / training.workers, seconds / cores())


def anonymous_bytes() -> int | None:
    """Memory of this process that no file stands behind; None where the system does not tell."""
    with contextlib.suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/self/status").read_text("utf-8").splitlines()
        return 1024 * int(next(line for line in lines if line.startswith("RssAnon:")).split()[1])
    return None


def _stand_ins(job: Job, few: Dataset) -> list[Lookup | Teacher]:
    """Random answers for teachers that are heard; for those whose layers are looked at, their networks with any weights."""
    assert job.stage.method is not None
    classes = len(few.class_names)
    if job.stage.method.needs().teacher_features:
        networks = [teacher.stage.network for teacher in job.teachers]
        return [
            Teacher(load=partial(one.build, few), preprocessing=one.preprocessing(few)) for one in networks
        ]
    return [Lookup(answers=torch.randn(len(few.train), classes)) for _ in job.teachers if hears(job)]


# --- measuring ------------------------------------------------------------------------------------------------------


class _EnoughError(Exception):
    """Enough steps were seen."""


class _Watch:
    """Asked by the loop after each step whether to stop: it notes the time, and ends the training in the end."""

    def __init__(self, device: str) -> None:
        self.device = device
        self.steps: list[float] = []
        self.laps: list[float] = []
        self.batches = 0  # in an epoch
        self.calls = 0
        self.began = self.lap_began = time.perf_counter()
        self.last: float | None = (
            None  # step of this epoch; what comes before its first one belongs to the lap
        )
        self.lap_ended = False

    def told(self, progress: Progress) -> None:
        if progress.epoch_done:
            self.lap_ended, self.batches = True, progress.batch // progress.epoch

    def __call__(self) -> bool:
        if self.device == "cuda":
            torch.cuda.synchronize()
        now = time.perf_counter()
        self.calls += 1
        if self.lap_ended:  # the loop asks once more then
            self.laps.append(now - self.lap_began)
            self.lap_began, self.last, self.lap_ended = now, None, False
        else:
            if self.last is not None:
                self.steps.append(now - self.last)
            self.last = now
        if self.calls == 1:
            self.began = now
        elif self.calls > 2 and now - self.began > _SECONDS:
            self._leave_out_the_first()
            raise _EnoughError
        return False

    def _leave_out_the_first(self) -> None:
        """Memory and kernels are got ready in them."""
        self.steps = self.steps[len(self.steps) // 4 :]
        few = self.device == "cpu" and len(self.laps) == 1  # on a GPU the first one has its start in it
        self.laps = self.laps[0 if few else 1 :]


def _looks(model: nn.Module, job: Job, dataset: Dataset, training: Training) -> dict[str, float]:
    found = {}
    size = _affordable(job.whole.multiply_adds, _LOOK)
    for name in ("validation", "test"):
        split: Split = getattr(dataset, name)
        if not len(split):
            continue
        some = _some(split, size)
        look = partial(
            outputs,
            model,
            some,
            preprocessing=job.stage.network.preprocessing(dataset),
            device=training.device,
            autocast=partial(precision.autocast, training),
        )
        fetch = partial(some.images.fetch, np.arange(len(some)))
        decoded = 0.0 if some.images.in_memory else _median(fetch)
        found[name] = waited(_median(look), decoded, split, training) * len(split) / len(some)
    return found


def _median(work: Callable[[], object]) -> float:
    """Seconds, after once to warm up."""
    work()
    times: list[float] = []
    began = time.perf_counter()
    while not times or (len(times) < 9 and time.perf_counter() - began < _SECONDS / 4):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def _affordable(multiply_adds: int, images: int) -> int:
    """So many of ``images`` that a step does not take too long."""
    return max(min(images, 8), min(images, int(_MULTIPLY_ADDS / max(1, multiply_adds))))


def _bytes_of(model: nn.Module) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values())


class _Rows:
    """Some of the images of a split."""

    def __init__(self, images: Images, rows: np.ndarray) -> None:
        self.images, self.rows = images, rows

    @property
    def in_memory(self) -> bool:
        return self.images.in_memory

    def __len__(self) -> int:
        return len(self.rows)

    def fetch(self, index: np.ndarray) -> np.ndarray:
        return self.images.fetch(self.rows[index])


def _some(split: Split, count: int) -> Split:
    """At most ``count`` samples from all over a split."""
    rows = np.arange(min(count, len(split)), dtype=np.int64)
    rows = rows * len(split) // max(1, len(rows))
    return Split(images=_Rows(split.images, rows), labels=split.labels[rows])
